"""Tables: as files, as text for a terminal, and averaged over runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.bootstrap import RunEstimate
from static_dynamic.analysis.estimate.estimator import FACTORS
from static_dynamic.analysis.estimate.variance import VarianceEstimate
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path


def write_tables(folder: Path, result: RunEstimate) -> None:
    """Write ``layers.csv``, ``units.parquet`` and, for each stage, the original's two-row ``dim_est`` csv."""
    with atomic_path(folder / "layers.csv") as temporary:
        result.layers.to_csv(temporary, index=False)
    with atomic_path(folder / "units.parquet") as temporary:
        result.units.to_parquet(temporary, index=False)
    for _, row in result.layers.iterrows():
        with atomic_path(dimensions_file(folder, row["stage"])) as temporary:
            with temporary.open("w", newline="") as file:
                writer = csv.writer(file)  # CRLF, as the original's
                writer.writerow([row[f"dims_{factor}"] for factor in FACTORS])
                writer.writerow([row[f"dims_percent_{factor}"] for factor in FACTORS])


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a csv file."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def write_variance(folder: Path, estimate: VarianceEstimate) -> None:
    """Write ``variance_layers.csv`` and ``variance_units.parquet``."""
    with atomic_path(folder / "variance_layers.csv") as temporary:
        estimate.layers.to_csv(temporary, index=False)
    with atomic_path(folder / "variance_units.parquet") as temporary:
        estimate.units.to_parquet(temporary, index=False)


def write_information(folder: Path, layers: pd.DataFrame, units: pd.DataFrame) -> None:
    """Write ``information_layers.csv`` and ``information_units.parquet``."""
    write_table(folder / "information_layers.csv", layers)
    with atomic_path(folder / "information_units.parquet") as temporary:
        units.to_parquet(temporary, index=False)


def dimensions_file(folder: Path, stage: str) -> Path:
    """The original's two-row csv of one stage: dimensions, then percent; dynamic, static, residual."""
    return folder / "dim_est" / f"{stage.replace('/', '--')}.csv"


def average_runs(folders: Sequence[str | Path]) -> pd.DataFrame:
    """Average ``layers.csv`` over runs that differ in their seed: mean and 1.96 * std / sqrt(n) for each
    stage.

    The standard deviation is that of the original's script (population, ddof 0).

    Raises
    ------
    UserError
        Fewer than two runs, one without results, or runs of different stages.
    """
    if len(folders) < 2:
        raise UserError(f"{len(folders)} run: an average needs two runs at least")
    runs = [read_layers(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if list(run.index) != list(runs[0].index):
            raise UserError(f"{folder} has other stages than {folders[0]}: average runs of one network")
    columns = [f"{kind}_{f}" for kind in ("score", "share") for f in FACTORS if f"{kind}_{f}" in runs[0]]
    values = np.stack([run[columns].to_numpy(float) for run in runs])  # (runs, stages, columns)
    table = pd.DataFrame({"stage": runs[0].index, "runs": len(runs)})
    for k, column in enumerate(columns):
        table[column] = values[:, :, k].mean(0)
        table[f"{column}_ci"] = 1.96 * values[:, :, k].std(0) / np.sqrt(len(runs))
    return table


def read_units(folder: str | Path) -> pd.DataFrame:
    """``units.parquet`` of a finished run.

    Raises
    ------
    UserError
        Where there is none.
    """
    file = Path(folder) / "units.parquet"
    if not file.exists():
        raise UserError(f"{folder} holds no units.parquet: is it the folder of a finished run?")
    return pd.read_parquet(file)


def read_layers(folder: str | Path) -> pd.DataFrame:
    """``layers.csv`` of a finished run, by stage.

    Raises
    ------
    UserError
        Where there is none.
    """
    file = Path(folder) / "layers.csv"
    if not file.exists():
        raise UserError(f"{folder} holds no layers.csv: is it the folder of a finished run?")
    return pd.read_csv(file).set_index("stage")
