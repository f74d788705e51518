"""Plan a run from the options: network, clips, views, pairs, batch size, folder and manifest."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import pandas as pd
from omegaconf import DictConfig

from static_dynamic.analysis.run.identity import identity_of, manifest_of, run_folder
from static_dynamic.analysis.run.locks import writing
from static_dynamic.analysis.run.manifest import has_run
from static_dynamic.analysis.run.setup import (
    batch_size_of,
    build_network,
    find_clips,
    read_views,
    require_fit,
    sampling_of,
    with_cells,
)
from static_dynamic.analysis.run.shards import Shard, is_complete, merge_shards, shard_of, wait_for_all
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import ClipList, make_views, parse_styles
from static_dynamic.models import VideoNetwork

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedRun:
    """A run whose network, clips and views are chosen, but whose activations may not be computed yet."""

    cfg: DictConfig
    net: VideoNetwork
    clips: ClipList
    views: pd.DataFrame
    pairs: pd.DataFrame
    folder: Path
    identity: dict
    batch_size: int

    @classmethod
    def of(cls, cfg: DictConfig) -> Self:
        """Build the network, list the clips and choose the views that the options ask for."""
        require_fit(cfg)
        net, weights = build_network(cfg)
        # This call raises UserError for an unknown stage, before any video is read.
        net.stage_name(cfg.stg, cfg)
        styles = parse_styles(cfg.styles)
        listed = (*styles, 0) if cfg.use_normal_app and 0 not in styles else styles
        clips = find_clips(cfg, net, listed)
        spec = net.input_spec
        window = cfg.n_sample_frames or spec.frames * spec.sampling_rate
        clips = with_cells(cfg, net, clips)
        for line in clips.remarks(spec.fps, cfg.resample_fps, window):
            log.warning(line)
        views, pairs = make_views(
            clips.clips, styles, spec.pathways, n_sample_frames=window, seed=cfg.seed, **sampling_of(cfg)
        )
        identity = identity_of(cfg, clips, weights, window)
        folder = run_folder(cfg, identity, f"seed{cfg.seed:03d}")
        batch_size = batch_size_of(cfg, folder)
        return cls(cfg, net, clips, views, pairs, folder, identity, batch_size)

    @cached_property
    def manifest(self) -> dict:
        """Content of ``manifest.json`` of a new run."""
        return manifest_of(
            self.cfg, self.net, self.clips, self.identity, self.views, self.pairs, self.batch_size
        )

    def open(self, folder: Path, shard: Shard | None = None) -> Store:
        """Create or resume the store of the run, or of one of its shards, in `folder`."""
        if shard:
            manifest = shard.manifest(self.manifest)
        else:
            # A resumed run has a manifest already, so `self.manifest`, which takes seconds, is not computed.
            manifest = {"identity": self.identity} if has_run(folder) else self.manifest
        return Store.create_or_resume(folder, manifest, self.views, self.pairs)

    def read_shard(self) -> Path | None:
        """Compute the shard of this process, if the options ask for shards and the run is not complete.

        Returns the folder of results if this process is done. Returns None if this process goes on with the
        whole run in ``folder``. Under torchrun, only the process of shard 0 goes on, with the merged run.
        """
        shard = shard_of(self.cfg, self.batch_size * self.clips.rows_per_view)
        if shard and not is_complete(self.folder):
            own = shard.folder(self.folder)
            with writing(own):
                self.read(self.open(own, shard))
            if not shard.torchrun:
                log.info("shard %s is finished; once all shards are finished, run task=merge", own)
                return own
            wait_for_all()
            if shard.index == 0:
                merge_shards(self.folder, shard.all_folders(self.folder), remove=True)
        return self.folder if shard and shard.index else None

    def read(self, store: Store, end: int | None = None) -> None:
        """Compute and store the missing activations of all views, or only of the views before row `end`."""
        read_views(self.cfg, self.net, self.clips, self.views, store, end)
