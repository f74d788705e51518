"""Collect probes, and differences between regions of masks, of several runs, for ``task=compare``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from static_dynamic.analysis.run.tables import read_table

from .probe_features import ALL

COLUMNS = ("variable", "stage", "features", "decodability", "decodability_low", "decodability_high", "p")


def compared_probes(
    folders: Sequence[Path], groups: Mapping[str, Sequence[int]], layers: pd.DataFrame
) -> pd.DataFrame:
    """Collect ``probe.csv`` of the runs that have one, with the further columns run, curve and depth.

    Runs that are averaged over seeds are left out, because the errors of runs on the same videos are not
    independent. `layers` is the table of the compared stages.
    """
    found = []
    for label, members in groups.items():
        file = folders[members[0]] / "probe.csv"
        if len(members) > 1 or not file.exists():
            continue
        table = read_table(file, COLUMNS, text=("variable", "stage"))
        table = table.loc[table["features"] == ALL, list(COLUMNS)].drop(columns="features")
        own = layers.loc[layers["run"] == label, ["run", "curve", "stage", "depth"]]
        found.append(own.merge(table, on="stage"))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["run", *COLUMNS])


REGION_COLUMNS = ("stage", "left", "right", "part", "difference", "difference_low", "difference_high")


def compared_regions(folders: Sequence[Path], groups: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Collect ``cell_differences.csv`` of the runs that have one; runs averaged over seeds are left out."""
    files = {label: folders[members[0]] / "cell_differences.csv" for label, members in groups.items()}
    found = [
        read_table(file, REGION_COLUMNS, text=("stage", "left", "right", "part")).assign(run=label)
        for label, file in files.items()
        if len(groups[label]) == 1 and file.exists()
    ]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["run", *REGION_COLUMNS])
