"""Format tables of results as text for a terminal, and escape text for LaTeX."""

import re
from textwrap import fill

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.estimator import FACTORS, UNIT_CLASSES
from static_dynamic.analysis.estimate.variance import COMPONENTS

# The scores of a stage rest on few videos if there are fewer effective videos than this number, or than this
# fraction of all videos.
FEWEST_EFFECTIVE, LEAST_EFFECTIVE = 10, 0.5
# Notes in a terminal are wrapped at this number of characters.
NOTE_WIDTH = 100
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def format_layers(layers: pd.DataFrame, title: str) -> str:
    """Return text tables of scores, shares and units per unit class by stage, with a heading."""
    first = layers.iloc[0]
    pairs = f"{first['pairs_dynamic']} dynamic and {first['pairs_static']} static pairs"
    intervals = "no intervals: a bootstrap over videos needs at least two videos"
    if first["clusters"] > 1:
        intervals = f"95 % intervals: bootstrap over {first['clusters']} videos"
    rows = [row for _, row in layers.iterrows()]
    scores = align([layer_cells(row) for row in rows])
    classes = align([class_cells(row) | effective_cells(row) for row in rows])
    heading = f"units by class (threshold of the unit score: {first['threshold']})"
    parts = [f"{title}: {first['clips']} clips, {pairs}\n{intervals}", scores, heading, classes]
    return "\n\n".join([*parts, *(fill(note, NOTE_WIDTH) for note in stage_notes(layers))])


def layer_cells(row: pd.Series) -> dict[str, object]:
    """Return one stage's row of the table of results, with scores, shares (%) and intervals."""
    cells = {"stage": row["stage"], "units": row["units"]}
    cells |= {f"{f} score": with_interval(row, f"score_{f}", 1, 3) for f in FACTORS[:2]}
    return cells | {f"{f} %": with_interval(row, f"share_{f}", 100, 1) for f in FACTORS}


def class_cells(row: pd.Series) -> dict[str, object]:
    """Return one stage's row of the table of unit classes, with the number of units per unit class."""
    counts = {c: with_interval(row, f"units_{c}", 1, 0) for c in UNIT_CLASSES}
    return {"stage": row["stage"], "units": row["units"]} | counts


def effective_cells(row: pd.Series) -> dict[str, str]:
    """Return the effective numbers of videos and units of one stage; no cells in runs of version 0.1.0."""
    names = ("effective_videos", "effective_units")
    return {name.replace("_", " "): f"{row[name]:.1f}" for name in names if name in row}


def stage_notes(layers: pd.DataFrame) -> list[str]:
    """Return sentences on stages whose scores rest on few videos, and on units without interval.

    The list is empty if there are neither, if all clips are of one video, or in runs of version 0.1.0.
    """
    if "effective_videos" not in layers or layers["clusters"].iloc[0] < 2:
        return []
    videos = layers["clusters"].iloc[0]
    few = layers[layers["effective_videos"] < max(FEWEST_EFFECTIVE, LEAST_EFFECTIVE * videos)]
    unknown = layers[layers["units_few_videos"] > 0]
    found = {
        f"Stages whose scores rest on few of the {videos} videos (in brackets: effective videos)": [
            f"{row['stage']} ({row['effective_videos']:.1f})" for _, row in few.iterrows()
        ],
        "Units without interval, because their variance rests on fewer than three videos": [
            f"{row['units_few_videos']} of {row['units']} in {row['stage']}" for _, row in unknown.iterrows()
        ],
    }
    return [f"{about}: {', '.join(stages)}." for about, stages in found.items() if stages]


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
    """Return a text table of how the prediction changes, beside the parts of the last stage."""
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
    """Return a text table of the videos, clips and hours that a study needs with each ``pairs`` option.

    Rows are sorted by hours. In brackets, each number is followed by the number expected from the pilot's
    variance itself. The stage and score that need the largest number of videos decide.
    """
    widest = table.loc[table.groupby("pairs", sort=False)["clusters"].idxmax()].sort_values("hours")
    shown = widest[["pairs"]].copy()
    for name, column in (("videos", "clusters"), ("clips", "clips"), ("views", "views"), ("hours", "hours")):
        digits = 2 if name == "hours" else 0
        pairs = zip(widest[column], widest[f"expected_{column}"], strict=True)
        shown[name] = [f"{planned:.{digits}f} ({expected:.{digits}f})" for planned, expected in pairs]
    shown["decided by"] = widest["score"] + " score of " + widest["stage"]
    return align(shown)


def format_dimensions(row: pd.Series) -> str:
    """Return the two lines that Kowal et al.'s code prints for one stage."""
    dims, percent = dimensions_of(row)
    return f" >>> Estimated factor dimensionalities: {dims}\n >>> Ratio to total dimensions: {percent}"


def dimensions_of(row: pd.Series) -> tuple[list[int], list[float]]:
    """Return two lists with one entry per factor: number and percentage of dimensions at one stage."""
    dims = [int(row[f"dims_{factor}"]) for factor in FACTORS]
    return dims, [float(row[f"dims_percent_{factor}"]) for factor in FACTORS]


def format_classes(row: pd.Series) -> str:
    """Return one line with the number of units per unit class (dynamic, static, ...) of one stage."""
    counts = ", ".join(f"{name} {with_interval(row, f'units_{name}', 1, 0)}" for name in UNIT_CLASSES)
    return f" >>> Joint encoding at {row['threshold']}: {counts}"


def value_and_bounds(values: pd.Series | pd.DataFrame, name: str, scale: float = 1) -> NDArray[np.float64]:
    """Return an array of estimate, lower and upper bound: (3,) for a table row, (3, rows) for a table.

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
    """Return rows as text in aligned columns, with the rows' keys as headings."""
    return pd.DataFrame(rows).to_string(index=False)


def escape_latex(text: object) -> str:
    """Escape text so that LaTeX prints it literally.

    A hyphen before a number becomes a minus sign. Characters beyond Latin-1, which the default fonts lack,
    become question marks.
    """
    text = "".join(LATEX.get(c, c if c.isprintable() and ord(c) < 256 else "?") for c in str(text))
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text)
