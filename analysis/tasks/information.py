"""Task ``information``: further measures of finished runs, as tables."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from static_dynamic.analysis.estimate.information.estimate import estimate_information
from static_dynamic.analysis.estimate.tables import write_information
from static_dynamic.analysis.show.text import format_information
from static_dynamic.errors import UserError


def run(cfg: DictConfig) -> None:
    """Estimate the information of each of ``cfg.runs``; tables into its folder and on stdout."""
    if not cfg.runs:
        raise UserError("task=information needs the folder of a finished run: give runs=[FOLDER]")
    chosen = OmegaConf.to_container(cfg.task.units) if cfg.task.units else None
    if chosen is not None and not isinstance(chosen, dict):
        raise UserError(
            f"task.units={chosen}: give stages with their units, e.g. task.units={{stage3: [17, 40]}}"
        )
    for folder in map(Path, cfg.runs):
        estimate = estimate_information(
            folder, cfg.n_boot, cfg.seed, n_permutations=cfg.n_permutations, units=chosen, progress=True
        )
        write_information(folder, estimate.layers, estimate.units)
        print(format_information(estimate.layers))
        print(f"\nwritten to {folder}: information_layers.csv, information_units.parquet")
