"""Task ``convergence``: scores of finished runs from more and more of their videos."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.estimate.convergence import estimate_convergence
from static_dynamic.analysis.estimate.tables import write_table
from static_dynamic.analysis.show.convergence_figure import draw_convergence
from static_dynamic.errors import UserError


def run(cfg: DictConfig) -> None:
    """Write ``convergence.csv`` and ``convergence.png`` into each of ``cfg.runs``."""
    if not cfg.runs:
        raise UserError("task=convergence needs the folder of a finished run: give runs=[FOLDER]")
    for folder in map(Path, cfg.runs):
        table = estimate_convergence(folder, cfg.n_boot, cfg.seed, progress=True)
        write_table(folder / "convergence.csv", table)
        draw_convergence(table, folder / "convergence.png")
        print(f"written to {folder}: convergence.csv, convergence.png")
