"""Tables: as files, as text for a terminal, and averaged over runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.bootstrap import RunEstimate
from analysis.paper import FACTORS, UNIT_CLASSES
from analysis.variance import COMPONENTS, VarianceEstimate
from configs import UserError
from configs.files import atomic_path


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


def format_information(layers: pd.DataFrame) -> str:
    """Measures of each stage and factor with their intervals, beside the p-values of broken pairs."""
    first = layers.iloc[0]
    lines = [
        "bits: mean over units as if Gaussian and of the copula; subspace: bits of the stage's largest "
        "directions",
        f"{layers['clusters'].max()} videos, {first['permutations']} permutations; p in brackets",
        "95 % intervals held the truth in 92 to 97 % of simulated runs of 100 videos; in 90 to 97 % of runs",
        "of 24, and in 87 to 95 % where units have heavy tails (python -m bench.information)",
        "",
    ]
    rows = []
    for (stage, factor), group in layers.groupby(["stage", "factor"], sort=False):
        cells = {"stage": stage, "factor": factor}
        for _, row in group.rename(columns={"low": "value_low", "high": "value_high"}).iterrows():
            cells[row["measure"]] = f"{with_interval(row, 'value', 1, 3)} ({row['p']:.3f})"
        rows.append(cells)
    return "\n".join([*lines, align(rows)])


def format_variance(layers: pd.DataFrame) -> str:
    """Shares of each stage's variance by component, in percent."""
    shares = 100 * layers.pivot(index="stage", columns="component", values="share")
    shares = shares.loc[layers["stage"].unique(), list(COMPONENTS)]
    return align([{"stage": stage, **row.map("{:.1f}".format)} for stage, row in shares.iterrows()])


def dimensions_file(folder: Path, stage: str) -> Path:
    """The original's two-row csv of one stage: dimensions, then percent; dynamic, static, residual."""
    return folder / "dim_est" / f"{stage.replace('/', '--')}.csv"


def format_layers(layers: pd.DataFrame, title: str) -> str:
    """The table of stages for a terminal: shares with intervals, raw scores, classes of units."""
    first = layers.iloc[0]
    lines = [
        f"{title}: {first['clips']} clips, {first['pairs_dynamic']} dynamic and "
        f"{first['pairs_static']} static pairs",
        "95 % intervals from a bootstrap over "
        + (f"{first['clusters']} videos" if first["clusters"] > 1 else "videos need two videos: none here"),
        "",
    ]
    rows = []
    for _, row in layers.iterrows():
        cells = {"stage": row["stage"], "units": row["units"]}
        cells |= {f"{f} %": with_interval(row, f"share_{f}", 100, 1) for f in FACTORS}
        cells |= {f"{f} score": with_interval(row, f"score_{f}", 1, 3) for f in FACTORS[:2]}
        rows.append(cells)
    lines.append(align(rows))
    lines.append(f"\nunits by class (correlation over {first['threshold']})\n")
    lines.append(
        align(
            [{"stage": r["stage"]} | {c: r[f"units_{c}"] for c in UNIT_CLASSES} for _, r in layers.iterrows()]
        )
    )
    return "\n".join(lines)


def format_dimensions(row: pd.Series) -> str:
    """The two lines that the original prints for one stage."""
    dims = [int(row[f"dims_{f}"]) for f in FACTORS]
    percent = [float(row[f"dims_percent_{f}"]) for f in FACTORS]
    return f" >>> Estimated factor dimensionalities: {dims}\n >>> Ratio to total dimensions: {percent}"


def format_classes(row: pd.Series) -> str:
    """Numbers of units by class, one line."""
    counts = ", ".join(f"{name} {row[f'units_{name}']}" for name in UNIT_CLASSES)
    return f" >>> Joint encoding at {row['threshold']}: {counts}"


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


def with_interval(row: pd.Series, name: str, scale: float, digits: int) -> str:
    """A number of a table with its interval, ``0.50 [0.45, 0.55]``; without one where it is NaN."""
    value, low, high = (scale * row[name + part] for part in ("", "_low", "_high"))
    if np.isnan(low):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def align(rows: list[dict]) -> str:
    """Rows as text with aligned columns."""
    return pd.DataFrame(rows).to_string(index=False)
