"""Task ``profile``, the main task: measure how static and how dynamic the stages of a network are."""

import logging
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.estimate.sequential import read_until
from static_dynamic.analysis.outputs import conclude
from static_dynamic.analysis.run.locks import writing
from static_dynamic.analysis.run.planned import PlannedRun
from static_dynamic.analysis.run.shards import is_complete, merge_shards, shard_of, wait_for_all

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Compute and analyse the activations of ``cfg.model`` on ``cfg.dataset``; return the run folder."""
    planned = PlannedRun.of(cfg)
    net, folder = planned.net, planned.folder
    shard = shard_of(cfg, planned.batch_size * planned.clips.rows_per_view)
    if shard and not is_complete(folder):
        own = shard.folder(folder)
        with writing(own):
            planned.read(planned.open(own, shard))
        if not shard.torchrun:
            log.info("shard %s is finished; once all shards are finished, run task=merge", own)
            return own
        wait_for_all()
        if shard.index == 0:
            merge_shards(folder, shard.all_folders(folder), remove=True)
    # Only the process of shard 0 writes tables and figures.
    if shard and shard.index:
        return folder

    with writing(folder):
        store = planned.open(folder)
        if cfg.until is not None:
            read_until(store, cfg.until, partial(planned.read, store))
        planned.read(store)
        conclude(cfg, folder, net.stage_name(cfg.stg, cfg), net.shown_stages(cfg))
    return folder
