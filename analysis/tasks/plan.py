"""Task ``plan``: how large a study has to be, from a small finished run (the pilot)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from static_dynamic.analysis.estimate.planning import plan_study
from static_dynamic.analysis.estimate.tables import write_table
from static_dynamic.analysis.run.store import read_manifest
from static_dynamic.analysis.show.text import align
from static_dynamic.errors import UserError
from static_dynamic.models.stage_names import find_stage


def run(cfg: DictConfig) -> None:
    """Print and write what a study needs, from the pilot in ``cfg.runs``."""
    if len(cfg.runs) != 1:
        raise UserError("task=plan needs the folder of one finished run: give runs=[PILOT]")
    folder, task = Path(cfg.runs[0]), cfg.task
    names = read_manifest(folder)["stages"]
    stage = None if cfg.stg is None else find_stage(cfg.stg, names, cfg)
    table = plan_study(folder, task.width, stage=stage, seconds_per_view=task.seconds_per_view)
    write_table(folder / "plan.csv", table)
    print(f"for 95 % intervals of the scores of +- {task.width:g}\n")
    print(format_plan(table))
    print(f"\nwritten to {folder}: plan.csv, with every stage")


def format_plan(table: pd.DataFrame) -> str:
    """What each pairing needs for all stages and both scores, the soonest first."""
    widest = table.loc[table.groupby("pairs", sort=False)["clusters"].idxmax()].sort_values("hours")
    rows = [
        {
            "pairs": row["pairs"],
            "videos": row["clusters"],
            "clips": row["clips"],
            "views": row["views"],
            "hours": f"{row['hours']:.2f}",
            "decided by": f"{row['score']} score of {row['stage']}",
        }
        for _, row in widest.iterrows()
    ]
    return align(rows)
