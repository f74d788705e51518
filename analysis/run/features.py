"""Plan a run with chosen views and stages, whose activations are exported as features."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import DictConfig

from static_dynamic.analysis.run.feature_files import SECONDS, frames_of
from static_dynamic.analysis.run.identity import run_folder
from static_dynamic.analysis.run.manifest import LOGITS
from static_dynamic.analysis.run.optional import load_h5py
from static_dynamic.analysis.run.planned import PlannedRun
from static_dynamic.analysis.run.setup import batch_size_of
from static_dynamic.datasets import ClipList
from static_dynamic.datasets.clips import Clip
from static_dynamic.datasets.views import NO_PAIRS
from static_dynamic.errors import UserError
from static_dynamic.models import VideoNetwork
from static_dynamic.models.time_steps import keep_time

# Value of task.views -> options that replace those of the command line.
VIEWS: dict[str, dict] = {
    "original": {"styles": "0", "pairs": NO_PAIRS},
    "forward": {"pairs": NO_PAIRS},
    "all": {},
}


@dataclass(frozen=True)
class PlannedFeatures(PlannedRun):
    """A run whose activations are exported as features; ``chosen`` are the names of its stages."""

    chosen: tuple[str, ...] = ()

    @classmethod
    def of(cls, cfg: DictConfig) -> Self:
        """Plan the views and stages that the options of ``task=features`` ask for."""
        if cfg.until is not None:
            raise UserError("until=WIDTH belongs to task=profile: omit it, or give n_examples=CLIPS")
        if cfg.task.format == "h5":
            # a missing package is reported before anything is computed
            load_h5py()
        cfg.merge_with(VIEWS[cfg.task.views])
        if cfg.task.views == "original" and cfg.dataset.root is None:
            # a user who has no stylized videos gives the folder of the original ones only
            cfg.dataset.root = cfg.normal_data_root
        if cfg.cells is not None:
            raise UserError(f"cells={cfg.cells} has no effect with task=features: omit cells")
        planned = PlannedRun.of(cfg)
        chosen = choose_stages(planned.net, cfg)
        if cfg.task.time:
            keep_time(planned.net, [name for name in chosen if name != LOGITS])
        identity = planned.identity | {"features": {"stages": list(chosen), "time": bool(cfg.task.time)}}
        folder = run_folder(cfg, identity, "features")
        plan = {field.name: getattr(planned, field.name) for field in fields(planned)}
        plan |= {
            "views": planned.views.assign(**{SECONDS: seconds_of(planned.clips, planned.views)}),
            "identity": identity,
            "folder": folder,
            "batch_size": batch_size_of(cfg, folder),
        }
        return cls(**plan, chosen=chosen)

    @cached_property
    def manifest(self) -> dict:
        """Content of ``manifest.json``, with the chosen stages only."""
        manifest = super().manifest
        if LOGITS in self.chosen and "classes" not in manifest["class_scores"]:
            raise UserError(f"task.stages={LOGITS}: {manifest['class_scores']['reason']}: omit {LOGITS}")
        if self.cfg.task.stages and LOGITS not in self.chosen:
            # without class scores, the forward pass stops after the deepest chosen stage
            manifest["class_scores"] = {"reason": f"{LOGITS} is not in task.stages"}
        stages = {name: about for name, about in manifest["stages"].items() if name in self.chosen}
        export = {"format": self.cfg.task.format, "rdm": self.cfg.task.rdm}
        return manifest | {"stages": stages, "features": export}


def choose_stages(net: VideoNetwork, cfg: DictConfig) -> tuple[str, ...]:
    """Return the names of the stages in ``task.stages``, in depth order; without stages, return all names.

    Raises UserError if the network has no such stage.
    """
    wanted = {name if name == LOGITS else net.stage_name(name, cfg) for name in cfg.task.stages}
    if wanted == {LOGITS}:
        raise UserError(f"task.stages=[{LOGITS}]: give at least one stage, too ({', '.join(net.stages)})")
    return tuple(name for name in (*net.stages, LOGITS) if name in wanted) or tuple(net.stages)


def seconds_of(clips: ClipList, views: pd.DataFrame) -> list[NDArray[np.float64]]:
    """Return the times of the frames of each view, in seconds from the first frame of the clip.

    The times are NaN if the frame rate is unknown.
    """
    by_id = {clip.id: clip for clip in clips.clips}
    frames = frames_of(views)
    return [times_of(by_id[clip], own) for clip, own in zip(views["clip"], frames, strict=True)]


def times_of(clip: Clip, frames: NDArray) -> NDArray[np.float64]:
    """Return the times of frame numbers of a clip, in seconds from the first frame of the clip."""
    position = np.asarray(frames) - clip.first
    if clip.times is not None:
        return np.asarray(clip.times)[position]
    return position / (clip.fps or np.nan)
