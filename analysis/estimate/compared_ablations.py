"""Collect the effects of ablations (``task=ablate``) of several runs in one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from static_dynamic.analysis.run.tables import read_table

ABLATION_NAME = "ablation.csv"
# Columns that identify a row of ``ablation.csv``.
ABLATION_KEYS = ("stage", "replace", "set", "dose", "measure")


def read_ablation(folder: Path) -> pd.DataFrame | None:
    """Read ``ablation.csv`` of a run; return None if no unit of the run was ablated."""
    file = folder / ABLATION_NAME
    text = ("stage", "replace", "set", "measure")
    return read_table(file, ABLATION_KEYS, text=text) if file.exists() else None


def collect_ablations(folders: Sequence[Path], groups: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Return the rows of ``ablation.csv`` of all runs, with the name of the run in the column ``run``.

    `groups` maps the name of a run to its number in `folders`. Groups of several seeds are left out, because
    their sets of units differ.
    """
    tables = []
    for label, members in groups.items():
        found = read_ablation(folders[members[0]]) if len(members) == 1 else None
        if found is not None:
            found.insert(0, "run", label)
            tables.append(found)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
