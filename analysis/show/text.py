"""Format tables of results as text for a terminal, and escape text for LaTeX."""

import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.estimator import FACTORS, MEASURED, UNIT_CLASSES
from static_dynamic.analysis.estimate.variance import COMPONENTS

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def format_information(layers: pd.DataFrame) -> str:
    """Return the text table of information measures by stage and factor, with intervals and p-values."""
    first = layers.iloc[0]
    lines = [
        "Mutual information in bits: mean over units under a Gaussian and under a copula model (bits),",
        "and in the principal directions of the stage with the largest variance (subspace).",
        f"{layers['clusters'].max()} videos; in brackets: p-values from {first['permutations']} random "
        "sign flips (cka: permutations)",
        "coverage of the 95 % intervals in simulations: 92 to 97 % with 100 videos, 90 to 97 % with 24,",
        "87 to 95 % if units have heavy tails (python -m bench.information)",
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
    """Return a text table, by stage, of the share (%) of the units' variance that each source explains."""
    shares = 100 * layers.pivot(index="stage", columns="component", values="share")
    shares = shares.loc[layers["stage"].unique(), list(COMPONENTS)]
    return align([{"stage": stage, **row.map("{:.1f}".format)} for stage, row in shares.iterrows()])


def format_behaviour(table: pd.DataFrame) -> str:
    """Return a text table of prediction changes, with the matching variance parts of the last stage."""
    stage = table["stage"].iloc[0]
    columns = {
        "top1_kept": "top-1 class stays",
        "js_bits": "divergence (bits)",
        **({"accuracy": "accuracy"} if table["labelled_clips"].any() else {}),
        "part_value": f"part of {stage}",
    }
    rows = []
    for _, row in table.iterrows():
        cells = {"change": row["change"], "clips": row["clips"]}
        for name, heading in columns.items():
            cells[heading] = "-" if pd.isna(row[name]) else with_interval(row, name, 1, 3)
        if pd.notna(row["part_value"]):
            cells[f"part of {stage}"] = f"{row['part']} {cells[f'part of {stage}']}"
        rows.append(cells)
    heading = (
        "prediction: share of clips whose top-1 class stays, and Jensen-Shannon divergence of the class\n"
        f"probabilities; beside them the part of {stage} that depends on what is changed"
    )
    return f"{heading}\n\n{align(rows)}"


def format_plan(table: pd.DataFrame) -> str:
    """Return text tables of the videos, clips and hours that a study needs with each ``pairs`` option.

    The first table is for the parts, if the pilot has parts, and the last one for the paper's scores. Rows
    are sorted by hours. In brackets, each number is followed by the number expected from the pilot's variance
    itself. The stage and part (or score) that need the largest number of videos decide.
    """
    is_score = table["score"].isin(MEASURED)
    blocks = [f"the paper's scores\n\n{plan_rows(table[is_score], ' score of ')}"]
    if not is_score.all():
        blocks.insert(0, f"content, motion and appearance\n\n{plan_rows(table[~is_score], ' of ')}")
    return "\n\n".join(blocks)


def plan_rows(table: pd.DataFrame, of: str) -> str:
    """Return a text table of planned study sizes; `of` is printed between score and stage."""
    widest = table.loc[table.groupby("pairs", sort=False)["clusters"].idxmax()].sort_values("hours")
    shown = widest[["pairs"]].copy()
    for name, column in (("videos", "clusters"), ("clips", "clips"), ("views", "views"), ("hours", "hours")):
        digits = 2 if name == "hours" else 0
        pairs = zip(widest[column], widest[f"expected_{column}"], strict=True)
        shown[name] = [f"{planned:.{digits}f} ({expected:.{digits}f})" for planned, expected in pairs]
    shown["decided by"] = widest["score"] + of + widest["stage"]
    return align(shown)


def format_dimensions(row: pd.Series) -> str:
    """Return the two lines that Kowal et al.'s code prints for one stage."""
    dims, percent = dimensions_of(row)
    return f" >>> Estimated factor dimensionalities: {dims}\n >>> Ratio to total dimensions: {percent}"


def dimensions_of(row: pd.Series) -> tuple[list[int], list[float]]:
    """Return numbers and percentages of one stage's dimensions, as two lists with one item per factor."""
    dims = [int(row[f"dims_{factor}"]) for factor in FACTORS]
    return dims, [float(row[f"dims_percent_{factor}"]) for factor in FACTORS]


def format_classes(row: pd.Series) -> str:
    """Return one line with the number of units per unit class (dynamic, static, ...) of one stage."""
    counts = ", ".join(f"{name} {with_interval(row, f'units_{name}', 1, 0)}" for name in UNIT_CLASSES)
    return f" >>> Joint encoding at {row['threshold']}: {counts}"


def value_and_bounds(values: pd.Series | pd.DataFrame, name: str, scale: float = 1) -> NDArray[np.float64]:
    """Return estimate, lower and upper bound as an array: (3,) for a table row, (3, rows) for a table.

    Bounds that `values` lacks are NaN.
    """
    missing = 0 * values[name] + np.nan
    bounds = [values.get(f"{name}_{end}", missing) for end in ("low", "high")]
    return scale * np.array([values[name], *bounds], float)


def with_interval(row: pd.Series, name: str, scale: float, digits: int, interval: str = " [{}, {}]") -> str:
    """Format a number and an interval, as in ``0.50 [0.45, 0.55]``; an interval of NaN is left out."""
    value, low, high = (f"{number:.{digits}f}" for number in value_and_bounds(row, name, scale))
    return value if low == "nan" else value + interval.format(low, high)


def align(rows: list[dict] | pd.DataFrame) -> str:
    """Return rows as text in aligned columns; the headings are the keys of the rows."""
    return pd.DataFrame(rows).to_string(index=False)


def escape_latex(text: object) -> str:
    """Escape text so that LaTeX prints it literally.

    A hyphen before a number becomes a minus sign. Characters beyond Latin-1, which the default fonts lack,
    become question marks.
    """
    text = "".join(LATEX.get(c, c if c.isprintable() and ord(c) < 256 else "?") for c in str(text))
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text)
