"""Task ``report``: one HTML page for each finished run."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.show.report.page import write_report
from static_dynamic.errors import UserError


def run(cfg: DictConfig) -> None:
    """Write the report of each of ``cfg.runs``."""
    if not cfg.runs:
        raise UserError("task=report needs a finished run: give runs=[FOLDER]")
    for folder in cfg.runs:
        print(f"written: {write_report(Path(folder))}")
