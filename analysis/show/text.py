"""Tables as text for a terminal."""

from __future__ import annotations

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.estimator import FACTORS, UNIT_CLASSES
from static_dynamic.analysis.estimate.variance import COMPONENTS


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


def with_interval(row: pd.Series, name: str, scale: float, digits: int) -> str:
    """A number of a table with its interval, ``0.50 [0.45, 0.55]``; without one where it is NaN."""
    value, low, high = (scale * row[name + part] for part in ("", "_low", "_high"))
    if np.isnan(low):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def align(rows: list[dict]) -> str:
    """Rows as text with aligned columns."""
    return pd.DataFrame(rows).to_string(index=False)
