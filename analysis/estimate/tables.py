"""Join, write, read and average the result tables of finished runs."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.run.manifest import read_manifest
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.run.tables import read_table, write_table
from static_dynamic.errors import DamagedRun, UserError
from static_dynamic.files import atomic_path

from .decomposition import PARTS
from .estimator import FACTORS, MEASURED
from .jackknife import student_quantile

# How to write damaged result tables again.
WAY_OUT = (
    "give the command of the run again, or, after import_activations, call "
    "estimate_run(FOLDER).write(FOLDER) in Python"
)


@dataclass(frozen=True)
class RunEstimate:
    """Result tables of a whole run: ``layers`` describes each stage, ``units`` describes each unit."""

    layers: pd.DataFrame
    units: pd.DataFrame

    @classmethod
    def join(cls, store: Store, stages: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Self:
        """Concatenate the tables of all stages; insert ``stage`` and ``stream`` as the first columns."""
        for stage, tables in stages.items():
            for table in tables:
                table.insert(0, "stage", stage)
                table.insert(1, "stream", store.stages[stage]["stream"])
        return cls(*(pd.concat(tables, ignore_index=True) for tables in zip(*stages.values(), strict=True)))

    def write(self, folder: str | Path, prefix: str = "") -> None:
        """Write the tables to ``<prefix>layers.csv`` and ``<prefix>units.parquet``."""
        write_table(Path(folder) / f"{prefix}layers.csv", self.layers)
        write_table(Path(folder) / f"{prefix}units.parquet", self.units)


def write_tables(folder: Path, result: RunEstimate) -> None:
    """Write ``layers.csv``, ``units.parquet`` and, per stage, ``dim_est/STAGE.csv`` (factors' dimensions)."""
    result.write(folder)
    for _, row in result.layers.iterrows():
        file = dimensions_file(folder, row["stage"])
        with atomic_path(file) as temporary, temporary.open("w", newline="") as opened:
            # lines end with CRLF as in Kowal et al.'s code
            writer = csv.writer(opened)
            writer.writerow([row[f"dims_{factor}"] for factor in FACTORS])
            writer.writerow([row[f"dims_percent_{factor}"] for factor in FACTORS])


def dimensions_file(folder: Path, stage: str) -> Path:
    """Return the path of the csv with the number and the percentage of a stage's dimensions per factor."""
    return folder / "dim_est" / f"{stage.replace('/', '--')}.csv"


class SeedHalfWidths(NamedTuple):
    """Half-widths of two ranges about the mean over runs that differ only in the seed."""

    # 1.96 * std / sqrt(n) with the population's std (ddof 0), as in Kowal et al.'s code.
    # Mean +- 1.96 * std / sqrt(n) covers the true mean in 60, 75, 81, 85 % of cases for 2, 3, 4, 5 runs.
    original: NDArray
    # t(n - 1) * std / sqrt(n) with the sample's std (ddof 1): half-width of Student's 95 % interval.
    student: NDArray


# Note printed below tables of averages: which of the two half-width columns gives a 95 % interval.
SEED_NOTE = (
    "95 % intervals: mean -+ the column that ends in _ci_student; _ci is 1.96 * std / sqrt(n), "
    "which is no 95 % interval for few runs"
)


def seed_half_widths(values: NDArray) -> SeedHalfWidths:
    """Compute the half-widths of two ranges about the mean over runs (first axis); NaN for a single run."""
    n = len(values)
    if n < 2:
        unknown = np.full(values.shape[1:], np.nan)
        return SeedHalfWidths(unknown, unknown)
    spread = values.std(0) / np.sqrt(n), values.std(0, ddof=1) / np.sqrt(n)
    return SeedHalfWidths(1.96 * spread[0], student_quantile(0.95, n - 1) * spread[1])


def average_runs(folders: Sequence[str | Path]) -> pd.DataFrame:
    """Average ``layers.csv`` over runs that differ only in the seed; return means and half-widths.

    For each part, score and share X, the columns are X (the mean), ``X_ci`` (1.96 standard errors, as in
    Kowal et al.'s code) and ``X_ci_student`` (Student's 95 % interval), see `SeedHalfWidths`. Raises
    UserError if there are fewer than two runs, if a run has no results, or if runs differ in more than the
    seed or have the same seed.
    """
    if len(folders) < 2:
        raise UserError(f"cannot average {len(folders)} run: give at least two run folders")
    runs = [read_layers(folder) for folder in folders]
    require_seeds(folders)
    for folder, run in zip(folders, runs, strict=True):
        if list(run.index) != list(runs[0].index):
            raise UserError(f"{folder} has other stages than {folders[0]}: give runs of one network")
    columns = [part for part in PARTS if all(part in run and run[part].notna().any() for run in runs)]
    columns += [f"{kind}_{f}" for kind in ("score", "share") for f in FACTORS if f"{kind}_{f}" in runs[0]]
    values = np.stack([run[columns].to_numpy(float) for run in runs])  # (runs, stages, columns)
    half = seed_half_widths(values)
    table = pd.DataFrame({"stage": runs[0].index, "runs": len(runs)})
    for k, column in enumerate(columns):
        table[column] = values[:, :, k].mean(0)
        table[f"{column}_ci"], table[f"{column}_ci_student"] = half.original[:, k], half.student[:, k]
    return table


def require_seeds(folders: Sequence[str | Path]) -> None:
    """Raise UserError unless the runs in `folders` have different seeds and are otherwise equal."""
    identities = [read_manifest(Path(folder))["identity"] for folder in folders]
    first = identities[0]
    seeds: dict[int, str | Path] = {}
    for folder, identity in zip(folders, identities, strict=True):
        names = dict.fromkeys([*first, *identity])
        other = [name for name in names if name != "seed" and first.get(name) != identity.get(name)]
        if other:
            raise UserError(
                f"{folder} and {folders[0]} differ in {', '.join(other)}: "
                "average runs that differ only in the seed"
            )
        twin = seeds.setdefault(identity.get("seed"), folder)
        if twin is not folder:
            raise UserError(f"{folder} and {twin} have the same seed: give one run per seed")


def read_units(folder: str | Path) -> pd.DataFrame:
    """Read ``units.parquet`` of a finished run.

    Raises UserError if the folder lacks this file, and DamagedRun if the stages or their numbers of units
    differ from ``layers.csv``.
    """
    columns = ("stage", "unit", *(f"score_{f}" for f in MEASURED))
    units = read_table(existing_file(folder, "units.parquet"), columns)
    layers = read_layers(folder)["units"]
    counts = units["stage"].value_counts()
    if counts.to_dict() != layers.to_dict():
        raise DamagedRun(
            f"{folder}/units.parquet and layers.csv differ in their stages or numbers of units: {WAY_OUT}"
        )
    return units


def read_layers(folder: str | Path) -> pd.DataFrame:
    """Read ``layers.csv`` of a finished run, indexed by stage; raise UserError if the file is missing."""
    columns = ("stage", "units", "threshold", *(f"score_{f}" for f in MEASURED))
    layers = read_table(existing_file(folder, "layers.csv"), columns, text=("stage",)).set_index("stage")
    if not layers.index.is_unique or not len(layers):
        raise DamagedRun(f"{folder}/layers.csv names no stage, or names a stage twice: {WAY_OUT}")
    # copied into one memory block, as pandas warns of fragmented frames
    return layers.copy()


def existing_file(folder: str | Path, name: str) -> Path:
    """Return the path of a result file; raise UserError if the folder has no such file."""
    file = Path(folder) / name
    if not file.exists():
        raise UserError(
            f"{folder} holds no {name}: give the folder of a finished run "
            "(if import_activations made the run, call estimate_run(FOLDER).write(FOLDER) in Python first)"
        )
    return file
