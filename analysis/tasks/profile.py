"""The main job: a network and a stylized data set in; table, csv and figure of static and dynamic
information out."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.outputs import conclude
from static_dynamic.analysis.run.identity import identity_of, manifest_of, run_folder
from static_dynamic.analysis.run.setup import (
    batch_size_of,
    build_network,
    find_clips,
    read_views,
    require_fit,
    sampling_of,
)
from static_dynamic.analysis.run.shards import is_read, merge_shards, shard_of, wait_for_all
from static_dynamic.analysis.run.store import Store, writing
from static_dynamic.datasets import make_views, parse_styles

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Profile ``cfg.model`` on ``cfg.dataset``; return the run folder."""
    require_fit(cfg)
    net, weights = build_network(cfg)
    net.stage_name(cfg.stg, cfg.path, cfg.fuse)  # refuses a wrong one before anything is read
    styles = parse_styles(cfg.styles)
    shown = (*styles, 0) if cfg.use_normal_app and 0 not in styles else styles
    clips = find_clips(cfg, net, shown)
    spec = net.input_spec
    window = cfg.n_sample_frames or spec.frames * spec.sampling_rate
    for line in clips.remarks(spec.fps, cfg.resample_fps, window):
        log.warning(line)
    views, pairs = make_views(
        clips.clips, styles, spec.pathways, n_sample_frames=window, seed=cfg.seed, **sampling_of(cfg)
    )
    identity = identity_of(cfg, clips, weights, window)
    folder = run_folder(cfg, identity, f"seed{cfg.seed:03d}")
    manifest = manifest_of(net, clips, identity, views, pairs)
    if cfg.batch_size == "auto":
        manifest["batch_size"] = batch_size_of(cfg, folder)
    shard = shard_of(cfg, batch_size_of(cfg, folder) * clips.rows_per_view)
    if shard and not is_read(folder):
        own = shard.folder(folder)
        with writing(own):
            store = Store.create_or_resume(own, shard.manifest(manifest), views, pairs)
            read_views(cfg, net, clips, views, store)
        if not shard.together:
            log.info("%s is read; when the others are: task=merge", own)
            return own
        wait_for_all()
        if shard.index == 0:
            folders = [replace(shard, index=k).folder(folder) for k in range(shard.of)]
            merge_shards(folder, folders, remove=True)
    if shard and shard.index:
        return folder
    with writing(folder):
        store = Store.create_or_resume(folder, manifest, views, pairs)
        read_views(cfg, net, clips, views, store)
        conclude(cfg, folder, net)
    return folder
