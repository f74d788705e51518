"""Outputs of a finished run: tables, figures, HTML report, and files in the format of Kowal et al.'s code.

Each module of this folder holds one output, a function of a `FinishedRun` that is decorated with `register`.
To add a measure or a figure, add a module; the modules are imported automatically.
"""

from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.estimate.bootstrap import estimate_run
from static_dynamic.analysis.outputs.registry import FinishedRun, write_outputs
from static_dynamic.analysis.run.store import read_manifest
from static_dynamic.models import VideoNetwork


def conclude(cfg: DictConfig, folder: Path, net: VideoNetwork) -> None:
    """Estimate all scores of a run whose activations are on disk, and write tables, figures and report."""
    stage = net.stage_name(cfg.stg, cfg)
    estimate = estimate_run(
        folder,
        cfg.n_boot,
        cfg.seed,
        threshold=cfg.joint_encoding_thresh,
        n_permutations=cfg.n_permutations,
        progress=True,
    )
    write_outputs(FinishedRun(folder, cfg, read_manifest(folder), stage, net.shown_stages(cfg), estimate))
    print(f"\nwritten to {folder}: report.html, layers.csv, units.parquet, profile.png, ...")
