"""Write the report of a finished run: one HTML file that loads no other file."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from omegaconf import ListConfig, OmegaConf

from static_dynamic.analysis.estimate.altered_orders import FURTHER_ORDERS
from static_dynamic.analysis.estimate.comparison import SWEEP, is_trained
from static_dynamic.analysis.estimate.decomposition import PARTS
from static_dynamic.analysis.estimate.estimator import FACTORS, MEASURED, UNIT_CLASSES
from static_dynamic.analysis.estimate.kinds import COUNTED_KINDS
from static_dynamic.analysis.estimate.tables import read_layers, read_units
from static_dynamic.analysis.estimate.units import sweep_thresholds
from static_dynamic.analysis.run.manifest import read_manifest, to_json
from static_dynamic.analysis.run.store import REPORT_NAME, Store
from static_dynamic.analysis.run.tables import read_table
from static_dynamic.analysis.show.encoding import jpeg_data_uri
from static_dynamic.analysis.show.figure_style import COLOURS, COMPONENT_COLOURS, PART_COLOURS
from static_dynamic.analysis.show.parts import (
    ABSENT,
    LIMITS,
    OVERLAP,
    has_parts,
    headline,
    kind_cells,
    part_cells,
)
from static_dynamic.analysis.show.report import charts
from static_dynamic.analysis.show.report.examples import find_examples
from static_dynamic.analysis.show.report.yardsticks import Reference, references
from static_dynamic.analysis.show.stage_text import class_cells, effective_cells, layer_cells, stage_notes
from static_dynamic.analysis.show.text import value_and_bounds
from static_dynamic.configs import CONFIG_DIR
from static_dynamic.errors import DamagedRun
from static_dynamic.files import write_text
from static_dynamic.models.stage_names import group_by_reading

TEMPLATES = Path(__file__).parent / "templates"
# The report shows at most this number of rows of each additional table.
MOST_ROWS = 200
# The report shows at most this number of clip names per reason why clips were left out.
MOST_NAMES = 50


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a finished run; the same run always gives the same bytes."""
    manifest = read_manifest(folder)
    by_stage = read_layers(folder)
    layers = by_stage.reset_index()
    units = read_units(folder)
    views = Store.open(folder).views
    identity, parts = manifest["identity"], has_parts(layers)
    by_reading = group_by_reading(layers["stage"])
    shown = by_stage.loc[sum(by_reading.values(), [])].reset_index()
    breaks = list(np.cumsum([len(stages) for stages in by_reading.values()])[:-1])
    deepest = [stages[-1] for stages in by_reading.values()]
    listed = OmegaConf.load(CONFIG_DIR / "report.yaml")
    root = str(manifest.get("root", ""))
    shareable = without_folders(manifest, root)
    page = {
        "model": identity["model"]["name"],
        "trained": is_trained(identity),
        "dataset": identity["dataset"]["name"],
        "manifest": shareable,
        "manifest_text": to_json(shareable),
        "headlines": [headline(by_stage.loc[s]) for s in deepest] if parts else [ABSENT],
        "about_parts": [OVERLAP, LIMITS] if parts else [],
        "part_rows": [part_cells(row) for _, row in layers.iterrows()] if parts else [],
        "kind_rows": [kind_cells(row) for _, row in layers.iterrows()] if parts else [],
        "videos": int(layers["clusters"].iloc[0]),
        "threshold": f"{layers['threshold'].iloc[0]:g}",
        "charts": [
            *stage_charts(folder, shown, breaks, references(folder, manifest)),
            *unit_charts(units, shown, deepest[-1]),
        ],
        "notes": stage_notes(layers),
        "layer_rows": [report_cells(row) for _, row in layers.iterrows()],
        "class_rows": [class_cells(row) for _, row in layers.iterrows()],
        "other_tables": other_tables(folder, listed.tables),
        "pictures": pictures(folder, listed.pictures),
        "left_out": left_out(shareable),
        "examples": [
            replace(example, missing=without_folders(example.missing, root))
            for example in find_examples(manifest, views)
        ],
    }
    path = folder / REPORT_NAME
    write_text(path, render(page))
    return path


def without_folders(value: Any, root: str) -> Any:
    """Shorten the paths of the data folder `root` and of the home folder in all texts of a manifest.

    A report is meant to be shared, and absolute paths hold names of users and machines.
    """
    if isinstance(value, dict):
        return {key: without_folders(own, root) for key, own in value.items()}
    if isinstance(value, list):
        return [without_folders(own, root) for own in value]
    if not isinstance(value, str):
        return value
    short = value.replace(root, Path(root).name) if Path(root).is_absolute() else value
    return short.replace(str(Path.home()), "~") if Path.home().name else short


def render(page: dict) -> str:
    """Render the report as HTML. Values from the run are escaped, and only the report's script can run."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = ((TEMPLATES / f"report.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        page, script=Markup(script), style=Markup(style), script_hash=digest, chart_width=charts.WIDTH
    )


def report_cells(row: pd.Series) -> dict[str, object]:
    """Return one stage's table row: effective numbers of videos and units, scores, shares and intervals."""
    return {"stage": row["stage"], "units": row["units"]} | effective_cells(row) | layer_cells(row)


def percent(part: float) -> str:
    """Return a fraction in whole percent; fractions above 0 are never shown as 0 %."""
    return "under 1\u00a0%" if 0 < part < 0.005 else f"{100 * part:.0f}\u00a0%"


def stage_charts(
    folder: Path, layers: pd.DataFrame, breaks: Sequence[int], yardsticks: Sequence[Reference]
) -> list[charts.Chart]:
    """Draw charts by stage: parts, unit kinds, the paper's scores, shares and classes, variance by source."""
    made = part_charts(layers, breaks, yardsticks) if has_parts(layers) else []
    scores = {f: (f"score_{f}", COLOURS[f]) for f in MEASURED}
    shares = {f: (f"share_{f}", COLOURS[f]) for f in FACTORS}
    about = "Covariance of the two members of a pair, divided by the pooled variance; bands: 95 % intervals."
    made.append(charts.stage_curves(layers, breaks, scores, "The paper's scores", about))
    about = "Shares of dimensions as in the paper: a softmax of the scores, in a narrow range."
    made.append(
        charts.stage_curves(layers, breaks, shares, "The paper's shares (%)", about, scale=100, digits=1)
    )
    classes = pd.DataFrame(index=pd.Index(layers["stage"]))
    for name in UNIT_CLASSES:
        percents = value_and_bounds(layers, f"units_{name}", 100) / layers["units"].to_numpy()
        classes[[name, f"{name}_low", f"{name}_high"]] = percents.T
    about = f"A unit encodes a factor if its unit score exceeds {layers['threshold'].iloc[0]:g}."
    made.append(charts.stacked_bars(classes, COLOURS, "The paper's classes of units (%)", about))
    variance = folder / "variance_layers.csv"
    if variance.exists():
        parts = read_table(variance, ("stage", "component", "share"), text=("stage",))
        cells = parts[["stage", "component"]]
        if cells.duplicated().any() or set(parts["component"]) != set(COMPONENT_COLOURS):
            raise DamagedRun(f"{variance} is damaged: give the command of the run again")
        table = 100 * parts.pivot(index="stage", columns="component", values="share")
        table = table.loc[[s for s in layers["stage"] if s in table.index]]
        about = "The part of the units' variance that each source explains; no threshold is needed."
        made.append(charts.stacked_bars(table, COMPONENT_COLOURS, "Variance by source (%)", about))
    return made


def part_charts(
    layers: pd.DataFrame, breaks: Sequence[int], yardsticks: Sequence[Reference]
) -> list[charts.Chart]:
    """Draw charts by stage: the parts of the units' variance, and the percentage of units of each kind."""
    curves = {part: (part, PART_COLOURS[part]) for part in PARTS}
    for column in FURTHER_ORDERS.values():
        if column.name in layers and layers[column.name].notna().all():
            curves[column.name] = (column.name, PART_COLOURS[column.name])
    about = "Mean over units of each part of the variance: content survives a new style and an altered frame "
    about += "order, motion needs the order, appearance needs the style; bands: 95 % intervals."
    if yardsticks:
        about += " Dotted lines: hand-made encoders on the same videos; the motion part of velocity says how "
        about += "much of a known motion signal the styles let through."
    options: dict = {"scale": 100, "digits": 1, "lines": yardsticks}
    made = [charts.stage_curves(layers, breaks, curves, "Parts (%)", about, **options)]
    kinds = pd.DataFrame(index=pd.Index(layers["stage"]))
    for name in COUNTED_KINDS:
        percents = value_and_bounds(layers, f"kind_{name}", 100) / layers["units"].to_numpy()
        kinds[[name, f"{name}_low", f"{name}_high"]] = percents.T
    kinds["dead or unknown"] = 100 - kinds[list(COUNTED_KINDS)].sum(axis=1)
    about = (
        "A unit has the kind of the part that is at least half of content, motion and appearance together."
    )
    colours = {name: PART_COLOURS[name] for name in (*COUNTED_KINDS, "dead or unknown")}
    return [*made, charts.stacked_bars(kinds, colours, "Units by kind (%)", about)]


def unit_charts(units: pd.DataFrame, layers: pd.DataFrame, stage: str) -> list[charts.Chart]:
    """Draw two charts of a stage: the histogram of unit scores, and the units per class by threshold."""
    of_stage = units[units["stage"] == stage]
    scores = {f: of_stage[f"score_{f}"].to_numpy(float) for f in MEASURED}
    counts = sweep_thresholds(of_stage, SWEEP.tolist()).set_index("threshold")[list(UNIT_CLASSES)]
    sweep = 100 * counts / len(of_stage)
    about = "The classes of units depend on the threshold; the dashed line marks the threshold of this run."
    title = f"The paper's scores of units, {stage} (% of units)"
    histogram = charts.histogram(scores, COLOURS, title, "Distribution of unit scores (correlations).")
    title = f"The paper's classes over the threshold, {stage} (%)"
    colours = {c: COLOURS[c] for c in UNIT_CLASSES[:4]}
    threshold = float(layers["threshold"].iloc[0])
    return [histogram, charts.threshold_curves(sweep, colours, title, about, threshold)]


def other_tables(folder: Path, listed: ListConfig) -> list[dict]:
    """Return the tables listed in ``configs/report.yaml`` whose files are in the run's folder."""
    found = []
    for about in listed:
        file = folder / about.file
        if file.exists():
            table = read_table(file).rename(columns=dict(about.get("rename") or {}))
            if "spread" in about:
                table = spread(table, **about.spread)
            table = table[[c for c in table if c not in (about.get("hide") or ())]]
            rows = table_cells(table.iloc[:MOST_ROWS])
            if rows:
                found.append({**about, "rows": rows, "total": len(table), "cut": len(table) > MOST_ROWS})
    return found


def pictures(folder: Path, listed: ListConfig) -> list[dict]:
    """Return, as data URIs, the pictures that ``configs/report.yaml`` lists and the run's folder contains."""
    found = [about for about in listed if (folder / about.file).exists()]
    return [{**about, "uri": jpeg_data_uri((folder / about.file).read_bytes())} for about in found]


def spread(
    table: pd.DataFrame, rows: Sequence[str], columns: str, value: str, scale: float = 1
) -> pd.DataFrame:
    """Pivot a long table into a wide table, with one column per different value of the column `columns`.

    The wide table has one line per combination of the columns `rows` and one column per value of the column
    `columns`. Its cells are `value` times `scale`; the bounds of `value` get columns of their own.
    """
    rows = list(rows)
    lines = pd.MultiIndex.from_frame(table[rows].drop_duplicates())
    parts = [
        scale
        * table.pivot(index=rows, columns=columns, values=f"{value}{end}")
        .reindex(index=lines, columns=table[columns].unique())
        .add_suffix(end)
        for end in ("", "_low", "_high")
        if f"{value}{end}" in table
    ]
    return pd.concat(parts, axis=1).reset_index()


def table_cells(table: pd.DataFrame) -> list[dict[str, str]]:
    """Return table cells as text; a value `x` and its bounds `x_low` and `x_high` share one cell."""
    bounds = {f"{column}{end}" for column in table for end in ("_low", "_high")}
    shown = [column for column in table if column not in bounds]
    return [
        {c: cell(*(line.get(f"{c}{end}") for end in ("", "_low", "_high"))) for c in shown}
        for _, line in table.iterrows()
    ]


def cell(value: object, low: float | None = None, high: float | None = None) -> str:
    """Return a value as text, with its interval if there is one.

    A number has three significant digits. A number and the bounds of its interval have the same number of
    decimals, so that the larger of the number and half the interval's width has three significant digits.
    """
    if low is None or high is None or np.isnan([low, high]).any() or not isinstance(value, Real):
        if not isinstance(value, float):
            return str(value)
        return "-" if np.isnan(value) else f"{value:g}" if value.is_integer() else f"{value:.3g}"
    number = float(value)
    if np.isnan(number):
        return "-"
    largest = max(abs(number), (high - low) / 2)
    decimals = int(np.clip(2 - np.floor(np.log10(largest)), 0, 8)) if largest else 0
    # adding 0 turns a negative zero into zero
    number, low, high = (round(float(x), decimals) + 0.0 for x in (number, low, high))
    return f"{number:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def left_out(manifest: dict) -> list[dict]:
    """Return the clips that the run skipped or filtered out, grouped by reason."""
    skipped: dict[str, list[str]] = {}
    for part in ("skipped_clips", "skipped_views"):
        for entry in manifest.get(part, []):
            skipped.setdefault(entry["reason"], []).append(entry["clip"])
    groups = [("skipped", skipped), ("filtered", manifest.get("filtered_clips", {}))]
    return [
        {"kind": kind, "reason": reason, "count": len(clips), "names": clips[:MOST_NAMES]}
        for kind, reasons in groups
        for reason, clips in reasons.items()
    ]
