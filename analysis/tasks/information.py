"""Task ``information``: estimate mutual information (bits) and CKA between the two views of each pair."""

from typing import cast

from omegaconf import DictConfig, OmegaConf

from static_dynamic.analysis.estimate.information.estimate import estimate_information
from static_dynamic.analysis.run.progress import finished_runs
from static_dynamic.analysis.show.text import format_information
from static_dynamic.errors import UserError


def run(cfg: DictConfig) -> None:
    """Write tables of mutual information and CKA into each run folder in ``cfg.runs``; print the tables."""
    folders = finished_runs(cfg, "information")
    units = OmegaConf.to_container(cfg.task.units) if cfg.task.units else None
    if not isinstance(units, dict | None):
        raise UserError(
            f"task.units={units} does not list units per stage: give e.g. task.units={{stage3: [17, 40]}}"
        )
    for folder in folders:
        estimate = estimate_information(
            folder,
            cfg.n_boot,
            cfg.seed,
            n_permutations=cfg.n_permutations,
            units=cast("dict[str, list[int]] | None", units),
            progress=True,
        )
        estimate.write(folder, "information_")
        print(format_information(estimate.layers))
        print(f"\nwritten to {folder}: information_layers.csv, information_units.parquet")
