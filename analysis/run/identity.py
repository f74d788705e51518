"""Compute a run's identity (options and inputs that determine the activations), folder and manifest."""

import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import cast

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from static_dynamic import CHECKOUT, __version__
from static_dynamic.analysis.run.class_scores import class_scores_of
from static_dynamic.analysis.run.setup import sampling_of, takes_flow
from static_dynamic.assets import versions
from static_dynamic.datasets import ClipList
from static_dynamic.files import file_name, json_sha256, sha256
from static_dynamic.models import VideoNetwork
from static_dynamic.models.cells import parse_grid, uses_masks
from static_dynamic.models.source_code import source_hashes

# Entries of configs/model/NAME.yaml that do not change activations, so a run's identity leaves them out.
NOT_IDENTITY = ("about", "checkpoint", "pretrained", "original_name")


def identity_of(cfg: DictConfig, clips: ClipList, weights: Path | None, window: int) -> dict:
    """Return the options and inputs that determine the activations; equal identities mean the same run."""
    # Since version 0.2.0, the program chooses other views for these options, so the identity differs.
    changed = cfg.pairs == "both" or (cfg.pairs == "factorial" and takes_flow(cfg))
    return {
        **subject_of(cfg, clips, clips.root, weights),
        "styles": list(clips.styles),
        **sampling_of(cfg),
        **({"views": "0.2.0"} if changed else {}),
        "n_sample_frames": window,
        "seed": cfg.seed,
        # Default values are left out, so that runs made before an option existed keep their identity.
        **({"precision": cfg.precision} if cfg.precision not in (None, "fp32") else {}),
        **({"tune": True} if cfg.tune else {}),
        **({"until": cfg.until} if cfg.until is not None else {}),
        **({"units": cfg.units} if cfg.units != "channels" else {}),
        **({"tokens": cfg.tokens} if cfg.tokens is not None else {}),
        **({"cells": cfg.cells} if cfg.cells is not None else {}),
        **({"backgrounds": cfg.backgrounds} if clips.backgrounds is not None else {}),
        **({"masks": clips.masks.identity} if clips.masks is not None else {}),
    }


def subject_of(cfg: DictConfig, clips: ClipList, root: Path, weights: Path | None) -> dict:
    """Return the part of a run's identity that describes network, weights and data set (folder `root`)."""
    model = cast(dict, OmegaConf.to_container(cfg.model, resolve=True))
    # A network in a local folder is named without the folder's path: manifests are published with results.
    if cfg.model.get("adapter") and Path(str(model["name"])).is_dir():
        name = Path(model["name"]).resolve().name
        model = {**model, "name": name, "args": {**model["args"], "network": name}}
    return {
        # part=None is left out, so that runs made before the option model.part existed keep their identity.
        "model": {k: v for k, v in model.items() if k not in NOT_IDENTITY and (k, v) != ("part", None)},
        "weights_sha256": sha256(weights) if weights else None,
        "dataset": {"name": clips.name, "folder": root.name, "listing_sha256": clips.listing_sha256},
    }


def run_folder(cfg: DictConfig, identity: dict, prefix: str) -> Path:
    """Return the folder of a run: ``run_dir`` if given, else ``save_dir/MODEL/DATASET/PREFIX-HASH``."""
    if cfg.run_dir:
        return Path(cfg.run_dir)
    digest = json_sha256(identity)[:8]
    model, dataset = (file_name(identity[part]["name"]) for part in ("model", "dataset"))
    return Path(cfg.save_dir) / model / dataset / f"{prefix}-{digest}"


def manifest_of(
    cfg: DictConfig,
    net: VideoNetwork,
    clips: ClipList,
    identity: dict,
    views: pd.DataFrame,
    pairs: pd.DataFrame,
    batch_size: int,
) -> dict:
    """Return the content of ``manifest.json``, without time or host name, so equal runs write equal files."""
    original_name = cfg.model.get("original_name")
    return {
        "identity": identity,
        "stages": {
            name: {
                "units": stage.units,
                "stream": stage.stream,
                **({"heads": stage.heads} if stage.heads else {}),
                # a stage that keeps the time axis has steps x units columns
                **({"steps": stage.steps} if stage.steps > 1 else {}),
            }
            for name, stage in net.stages.items()
        },
        **({"cells": about_cells(cfg, net, clips)} if net.cells else {}),
        # task=merge never builds the network, so it reads the names of these stages from the manifest.
        "deepest_stage": net.stage_name(None, cfg),
        "shown_stages": net.shown_stages(cfg),
        "class_scores": class_scores_of(cfg, net, clips, identity["weights_sha256"] is not None),
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
        "video_notes": clips.videos_by_note,
        "skipped_clips": [{"clip": clip, "reason": reason} for clip, reason in clips.skipped],
        "filtered_clips": clips.filtered_by_reason,
        "skipped_views": [],
        "code": code_version(),
        "network_code": source_hashes(net),
        "versions": versions(),
        # A run that resumes on another device takes the batch size from the manifest.
        **({"batch_size": batch_size} if cfg.batch_size == "auto" else {}),
        # task=merge needs this name for the result files of Kowal et al.'s code.
        **({"original_name": original_name} if original_name else {}),
    }


def about_cells(cfg: DictConfig, net: VideoNetwork, clips: ClipList) -> dict:
    """Describe the cells in which activations are averaged: grid or regions, and positions of each stage."""
    regions = uses_masks(net)
    grid = None if regions else list(parse_grid(cfg.cells))
    stages = {
        name: {
            "cells": stage.units // net.stages[name].units,
            "own": sorted({tap.cells.own for tap in stage.taps if tap.cells}),
        }
        for name, stage in net.cells.items()
    }
    return {
        "grid": grid,
        "regions": list(clips.masks.regions) if clips.masks and regions else [],
        "stages": stages,
    }


def code_version() -> str:
    """Return the commit of the checkout that this code runs from, or the version of an installed copy."""
    if CHECKOUT is None:
        return __version__
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
