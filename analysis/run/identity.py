"""Identity of a run: all that decides its activations, its folder and its manifest."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from static_dynamic.analysis.run.setup import sampling_of
from static_dynamic.assets import versions
from static_dynamic.datasets import ClipList
from static_dynamic.files import file_name, json_sha256, sha256
from static_dynamic.models import VideoNetwork

# what a model row says that does not change activations, or that the hash of the weights says better
NOT_IDENTITY = ("about", "checkpoint", "pretrained", "original_name")


def identity_of(cfg: DictConfig, clips: ClipList, weights: Path | None, window: int) -> dict:
    """All that decides the activations: two runs with the same identity are the same run."""
    return {
        **subject_of(cfg, clips, clips.root, weights),
        "styles": list(clips.styles),
        **sampling_of(cfg),
        "n_sample_frames": window,
        "seed": cfg.seed,
        # named where they differ from what every run was read with before there was a choice
        **({"precision": cfg.precision} if cfg.precision not in (None, "fp32") else {}),
        **({"tune": True} if cfg.tune else {}),
    }


def subject_of(cfg: DictConfig, clips: ClipList, root: Path, weights: Path | None) -> dict:
    """Network, weights and data set, as an identity names them."""
    model = OmegaConf.to_container(cfg.model, resolve=True)
    return {
        "model": {key: value for key, value in model.items() if key not in NOT_IDENTITY},
        "weights_sha256": sha256(weights) if weights else None,
        "dataset": {"name": clips.name, "folder": root.name, "listing_sha256": clips.listing_sha256},
    }


def run_folder(cfg: DictConfig, identity: dict, prefix: str) -> Path:
    """Folder of this run: no two identities share one."""
    if cfg.run_dir:
        return Path(cfg.run_dir)
    digest = json_sha256(identity)[:8]
    model, dataset = (file_name(identity[part]["name"]) for part in ("model", "dataset"))
    return Path(cfg.save_dir) / model / dataset / f"{prefix}-{digest}"


def manifest_of(net: VideoNetwork, clips: ClipList, identity: dict, views, pairs) -> dict:
    """Where a result comes from; holds no time and no machine, so that the same run writes the same bytes."""
    return {
        "identity": identity,
        "stages": {
            name: {"units": stage.units, "stream": stage.stream} for name, stage in net.stages.items()
        },
        "input": asdict(net.input_spec),
        "root": str(clips.root),
        "counts": {
            "clips": len(clips.clips),
            "clusters": int(views["cluster"].nunique()),
            "views": len(views),
            "pairs_dynamic": int((pairs["factor"] == 0).sum()),
            "pairs_static": int((pairs["factor"] == 1).sum()),
        },
        "frame_rates": {str(fps): count for fps, count in clips.frame_rates.items()},
        "skipped_clips": [{"clip": clip, "reason": reason} for clip, reason in clips.skipped],
        "filtered_clips": clips.filtered_by_reason,
        "skipped_views": [],
        "code": code_version(),
        "versions": versions(),
    }


def code_version() -> str:
    """The commit of this project, where it is a git checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
