"""Tables of a comparison of runs, as text for a terminal and as Markdown."""

import html
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.comparison import Comparison
from static_dynamic.analysis.estimate.decomposition import BITS, PARTS
from static_dynamic.analysis.estimate.estimator import UNIT_CLASSES
from static_dynamic.analysis.estimate.unit_intervals import COUNTED
from static_dynamic.analysis.show.parts import NEEDED, OVERLAP
from static_dynamic.analysis.show.text import align, with_interval
from static_dynamic.errors import one_line

# Column of the results -> (table heading, multiplier of the values, number of decimals).
SHOWN_PARTS = {part: (f"{part} %", 100, 1) for part in PARTS}
SHOWN = {
    "score_dynamic": ("dynamic score", 1, 3),
    "score_static": ("static score", 1, 3),
    "share_dynamic": ("dynamic %", 100, 1),
    "share_static": ("static %", 100, 1),
}


@dataclass(frozen=True)
class Grid:
    """A table of text cells; each row is a dict whose keys are the column headings."""

    name: str
    caption: str
    rows: list[dict[str, str]]


def grids(comparison: Comparison) -> list[Grid]:
    """Return a comparison's tables, including differences if two runs have the requested stage."""
    layers, differences = comparison.layers, comparison.differences
    tables = [grid_of_runs(comparison.runs)]
    tables += [grid_of_parts(layers)] if layers["content"].notna().any() else []
    tables += [grid_of_scores(layers), grid_of_classes(layers)]
    tables += [grid_of_probes(comparison.probes)] if len(comparison.probes) else []
    tables += [grid_of_regions(comparison.regions)] if len(comparison.regions) else []
    tables += [grid_of_ablations(comparison.ablation)] if len(comparison.ablation) else []
    return tables + grids_of_differences(differences)


def grid_of_probes(probes: pd.DataFrame) -> Grid:
    """Return the table of decodability with intervals, with one row per variable and run."""
    rows = []
    for (variable, run), own in probes.groupby(["variable", "run"], sort=False):
        best = own.loc[own["decodability"].idxmax()]
        cells = {"variable": variable, "run": run, "best stage": best["stage"]}
        rows.append(cells | {"decodability": with_interval(best, "decodability", 1, 2)})
    caption = "Variables decoded from held-out videos, at the stage with the largest decodability, with "
    return Grid("probes", caption + "95 % intervals over videos (0: chance, 1: no error).", rows)


def grid_of_regions(regions: pd.DataFrame) -> Grid:
    """Return the table of differences between regions of masks, one row per stage, run and difference."""
    rows = [
        {"stage": stage, "run": run, "difference": f"{left} - {right}"}
        | {
            f"{row['part']} %": with_interval(row, "difference", 100, 1)
            for _, row in own[own["part"].isin(BITS)].iterrows()
        }
        for (stage, run, left, right), own in regions.groupby(["stage", "run", "left", "right"], sort=False)
    ]
    caption = (
        "Parts of the variance in one region of the masks minus those in another, with 95 % intervals that"
    )
    return Grid("regions", f"{caption} are paired by video.", rows)


def grid_of_runs(runs: pd.DataFrame) -> Grid:
    """Return the table that describes the runs, one row per run; missing values are dashes."""
    columns = ["run", "weights", "iterations", "data", "styles", "pairs", "videos", "clips", "seeds"]
    unknown = runs["iterations"].isna().all()
    shown = runs[[c for c in columns if not (c == "iterations" and unknown)]]
    cells = shown.astype(object).where(shown.notna(), "-").astype(str)
    return Grid("runs", "The runs.", cells.to_dict("records"))


def grid_of_parts(layers: pd.DataFrame) -> Grid:
    """Return the table of parts with intervals and motion's p-value, with one row per stage and run."""
    rows = []
    for _, row in by_stage(layers).iterrows():
        p = "-" if pd.isna(row["p_motion"]) else f"{row['p_motion']:.3f}"
        rows.append(
            {"stage": row["stage"], "run": row["run"], **shown_cells(row, SHOWN_PARTS), "p (motion)": p}
        )
    caption = f"Parts of the units' variance (mean over units), with 95 % intervals over videos. {OVERLAP}"
    return Grid("parts", " ".join(filter(None, (caption, runs_without_parts(layers)))), rows)


def runs_without_parts(layers: pd.DataFrame) -> str:
    """Return a sentence that names the runs without parts and the reason; empty if all runs have parts."""
    known = layers["content"].notna().groupby(layers["run"], sort=False).any()
    missing = ", ".join(known.index[~known])
    return f"There are no parts of {missing}: {NEEDED}." if missing else ""


def grid_of_scores(layers: pd.DataFrame) -> Grid:
    """Return the table of scores and shares with intervals, one row per stage and run."""
    rows = [
        {"stage": row["stage"], "run": row["run"], **shown_cells(row, SHOWN)}
        for _, row in by_stage(layers).iterrows()
    ]
    averaged = " Values are means over the seeds of a run." if (layers["seeds"] > 1).any() else ""
    caption = (
        "The paper's scores (covariance of the activations of the two members of a pair, divided by the "
        "pooled variance) and shares of dimensions, with 95 % intervals from a bootstrap over "
        f"videos.{averaged}"
    )
    return Grid("scores", caption, rows)


def shown_cells(row: pd.Series, shown: Mapping[str, tuple[str, float, int]]) -> dict[str, str]:
    """Return a dict for one table row: column heading -> text of the value with its interval.

    `shown` is `SHOWN_PARTS` or `SHOWN`. Values that the run lacks are dashes.
    """
    return {
        heading: "-" if pd.isna(row[name]) else with_interval(row, name, scale, digits)
        for name, (heading, scale, digits) in shown.items()
    }


def grid_of_classes(layers: pd.DataFrame) -> Grid:
    """Return the table of the percentage of units in each unit class, with one row per stage and run."""
    rows = []
    for _, row in by_stage(layers).iterrows():
        cells = {f"{name} %": with_interval(row, f"percent_{name}", 1, 1) for name in UNIT_CLASSES}
        rows.append({"stage": row["stage"], "run": row["run"], "units": str(row["units"]), **cells})
    threshold = layers["threshold"].iloc[0]
    caption = (
        f"The paper's classes of units: a unit encodes a factor if its unit score exceeds {threshold:g}."
    )
    bounds = layers[[f"percent_{name}_low" for name in COUNTED]]
    if bounds.notna().any(axis=None):
        caption += " In brackets: 95 % intervals over videos."
    return Grid("classes", caption, rows)


def grid_of_ablations(ablation: pd.DataFrame) -> Grid:
    """Return the table of the effects of ablations minus the mean effect of random sets."""
    rows = []
    keys = ["stage", "replace", "set", "dose", "run"]
    ordered = ablation.sort_values(["stage", "replace", "set", "dose"], kind="stable")
    for key, own in ordered.groupby(keys, sort=False):
        cells = dict(zip(keys, (str(value) for value in key), strict=True)) | {"dose": f"{key[3]:.3g} %"}
        for _, row in own.iterrows():
            cells[row["measure"]] = f"{with_interval(row, 'excess', 1, 3)} (p {row['p']:.3f})"
        rows.append(cells)
    measures = list(dict.fromkeys(ablation["measure"]))
    filled = [{**dict.fromkeys([*keys, *measures], "-"), **cells} for cells in rows]
    caption = (
        "Change of each measure when units are removed, less that of random sets of equal size and matched "
        "variance, with 95 % intervals over videos and p-values against the random sets."
    )
    return Grid("ablations", caption, filled)


def grids_of_differences(differences: pd.DataFrame) -> list[Grid]:
    """Return tables of differences between runs: of the parts (if known) and of the paper's scores."""
    if not len(differences):
        return []
    tables = [grid_of_differences(differences, "differences", "the paper's scores and shares", SHOWN)]
    known = differences[differences["content"].notna()] if "content" in differences else differences[:0]
    if len(known):
        tables.insert(0, grid_of_differences(known, "differences_of_parts", "parts", SHOWN_PARTS))
    return tables


def grid_of_differences(
    differences: pd.DataFrame, name: str, about: str, columns: Mapping[str, tuple[str, float, int]]
) -> Grid:
    """Return the table of differences, first run minus each other run; * marks intervals that exclude 0."""
    first = differences["run"].iloc[0]
    shown = differences[differences["run"] == first]
    others = list(dict.fromkeys(shown["minus"]))
    rows = []
    for _, row in shown.iterrows():
        stage = " - ".join(dict.fromkeys([row["stage"], row["minus_stage"]]))
        cells = shown_cells(row, columns)
        for measure, (heading, *_) in columns.items():
            if row[f"{measure}_low"] > 0 or row[f"{measure}_high"] < 0:
                cells[heading] += " *"
        videos = f"{row['videos']} same" if row["paired"] else f"{row['videos']}, {row['minus_videos']} other"
        minus = {"minus": row["minus"]} if len(others) > 1 else {}
        rows.append({"stage": stage, **minus, **cells, "videos": videos})
    title = f"{first} minus {others[0] if len(others) == 1 else '...'}"
    caption = f"{title}, {about}: {describe_pairing(shown)} *: the interval excludes 0."
    return Grid(name, caption, rows)


def describe_pairing(differences: pd.DataFrame) -> str:
    """Return sentences that explain how the intervals of the differences were computed."""
    sentences = ["differences with 95 % intervals."]
    if differences["paired"].any():
        sentences.append(
            "Same: both runs are estimated from the same videos, and errors of one video are paired."
        )
    if not differences["paired"].all():
        sentences.append(
            "Other: the runs have too few videos in common, so their errors count as independent; "
            "the difference is due to the videos as well as to the networks."
        )
    return " ".join(sentences)


def by_stage(layers: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by stage, with the stages in the order of their first appearance."""
    return layers.iloc[np.argsort(pd.factorize(layers["stage"])[0], kind="stable")]


def as_text(comparison: Comparison) -> str:
    """Return text tables: parts, scores and shares with one column per run, then differences between runs."""
    runs = comparison.runs["run"].tolist()
    blocks = []
    for grid, columns, whose in (
        (grid_of_parts(comparison.layers), SHOWN_PARTS, ""),
        (grid_of_scores(comparison.layers), SHOWN, "the paper's "),
    ):
        table = pd.DataFrame(grid.rows)
        stages = table["stage"].unique()
        for heading, *_ in columns.values():
            cells = table.pivot(index="stage", columns="run", values=heading).reindex(stages, columns=runs)
            if (cells.fillna("-") == "-").all(axis=None):
                continue  # no run has parts
            rows = [{"stage": stage, **row} for stage, row in cells.fillna("-").iterrows()]
            blocks.append(f"{whose}{heading}\n\n{align(rows)}")
    blocks += filter(None, [runs_without_parts(comparison.layers)])
    for grid in grids_of_differences(comparison.differences):
        blocks.append(f"{grid.caption}\n\n{align(grid.rows)}")
    return "\n\n".join(blocks)


def as_markdown(comparison: Comparison) -> str:
    """Return every table of a comparison as Markdown."""
    return "\n\n".join(f"{grid.caption}\n\n{markdown(grid.rows)}" for grid in grids(comparison)) + "\n"


def markdown(rows: list[dict[str, str]]) -> str:
    """Return a Markdown table of `rows`, which are dicts whose keys are the column headings."""

    def line(cells) -> str:
        # Markdown passes HTML through, so names from files are escaped.
        return (
            "| "
            + " | ".join(html.escape(one_line(cell), quote=False).replace("|", "\\|") for cell in cells)
            + " |"
        )

    head = list(rows[0])
    return "\n".join([line(head), line(["---"] * len(head)), *(line(row.values()) for row in rows)])
