"""Task ``profile``, the main task: measure how static and how dynamic the stages of a network are."""

import logging
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.estimate.sequential import read_until
from static_dynamic.analysis.outputs import conclude
from static_dynamic.analysis.run.identity import identity_of, manifest_of, run_folder
from static_dynamic.analysis.run.locks import writing
from static_dynamic.analysis.run.setup import (
    batch_size_of,
    build_network,
    find_clips,
    read_views,
    require_fit,
    sampling_of,
)
from static_dynamic.analysis.run.shards import is_complete, merge_shards, shard_of, wait_for_all
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import make_views, parse_styles

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Compute and analyse the activations of ``cfg.model`` on ``cfg.dataset``; return the run folder."""
    require_fit(cfg)
    net, weights = build_network(cfg)
    # This call raises UserError for an unknown stage, before any video is read.
    net.stage_name(cfg.stg, cfg)
    styles = parse_styles(cfg.styles)
    listed = (*styles, 0) if cfg.use_normal_app and 0 not in styles else styles
    clips = find_clips(cfg, net, listed)
    spec = net.input_spec
    window = cfg.n_sample_frames or spec.frames * spec.sampling_rate
    for line in clips.remarks(spec.fps, cfg.resample_fps, window):
        log.warning(line)
    views, pairs = make_views(
        clips.clips, styles, spec.pathways, n_sample_frames=window, seed=cfg.seed, **sampling_of(cfg)
    )

    identity = identity_of(cfg, clips, weights, window)
    folder = run_folder(cfg, identity, f"seed{cfg.seed:03d}")
    batch_size = batch_size_of(cfg, folder)
    manifest = manifest_of(cfg, net, clips, identity, views, pairs, batch_size)
    shard = shard_of(cfg, batch_size * clips.rows_per_view)
    if shard and not is_complete(folder):
        own = shard.folder(folder)
        with writing(own):
            store = Store.create_or_resume(own, shard.manifest(manifest), views, pairs)
            read_views(cfg, net, clips, views, store)
        if not shard.torchrun:
            log.info("shard %s is finished; once all shards are finished, run task=merge", own)
            return own
        wait_for_all()
        if shard.index == 0:
            merge_shards(folder, shard.all_folders(folder), remove=True)
    # Only the process of shard 0 writes tables and figures, so all other processes stop here.
    if shard and shard.index:
        return folder

    with writing(folder):
        store = Store.create_or_resume(folder, manifest, views, pairs)
        if cfg.until is not None:
            read_until(store, cfg.until, partial(read_views, cfg, net, clips, views, store))
        read_views(cfg, net, clips, views, store)
        conclude(cfg, folder, net.stage_name(cfg.stg, cfg), net.shown_stages(cfg))
    return folder
