"""Task ``profile``, the main task: measure how static and how dynamic the stages of a network are."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.estimate.sequential import read_until
from static_dynamic.analysis.outputs import conclude
from static_dynamic.analysis.run.locks import writing
from static_dynamic.analysis.run.mean_frame import write_mean_frame
from static_dynamic.analysis.run.planned import PlannedRun


def run(cfg: DictConfig) -> Path:
    """Compute and analyse the activations of ``cfg.model`` on ``cfg.dataset``; return the run folder."""
    planned = PlannedRun.of(cfg)
    net, folder = planned.net, planned.folder
    if elsewhere := planned.read_shard():
        return elsewhere
    with writing(folder):
        store = planned.open(folder)
        if cfg.until is not None:
            read_until(store, cfg.until, partial(planned.read, store))
        planned.read(store)
        if "cells" in store.manifest:
            write_mean_frame(net, planned.clips, planned.views, folder, cfg.clip_timeout)
        conclude(cfg, folder, net.stage_name(cfg.stg, cfg), net.shown_stages(cfg))
    return folder
