"""A run as one HTML file: opens from disk, holds all that it shows, and asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from static_dynamic.analysis.estimate.comparison import SWEEP, is_trained
from static_dynamic.analysis.estimate.estimator import FACTORS, UNIT_CLASSES
from static_dynamic.analysis.estimate.tables import read_layers, read_units
from static_dynamic.analysis.estimate.units import sweep_thresholds
from static_dynamic.analysis.run.store import read_manifest, to_json
from static_dynamic.analysis.show.figures import COLOURS, COMPONENT_COLOURS
from static_dynamic.analysis.show.report import charts
from static_dynamic.analysis.show.report.strips import examples
from static_dynamic.analysis.show.text import with_interval
from static_dynamic.configs import row
from static_dynamic.errors import UserError
from static_dynamic.files import write_text
from static_dynamic.models.stage_names import readings

TEMPLATES = Path(__file__).parent / "templates"
REPORT_NAME = "report.html"
# of a table of any other file, and of the names of what was left out
MOST_ROWS, MOST_NAMES = 200, 50


def write_report(folder: Path) -> Path:
    """Write ``report.html`` of a finished run into its folder; the same run gives the same bytes.

    Raises
    ------
    UserError
        No run there, or one without results.
    """
    manifest = read_manifest(folder)
    layers = read_layers(folder).reset_index()
    units = read_units(folder)
    if not (folder / "views.parquet").exists():
        raise UserError(f"{folder} holds no views.parquet: is it the folder of a finished run?")
    identity = manifest["identity"]
    by_reading = readings(layers["stage"])
    shown = layers.set_index("stage").loc[sum(by_reading.values(), [])].reset_index()
    breaks = list(np.cumsum([len(stages) for stages in by_reading.values()])[:-1])
    deepest = [stages[-1] for stages in by_reading.values()]
    page = {
        "model": identity["model"]["name"],
        "trained": is_trained(identity),
        "dataset": identity["dataset"]["name"],
        "manifest": manifest,
        "manifest_text": to_json(manifest),
        "headlines": [headline(layers.set_index("stage").loc[s]) for s in deepest],
        "videos": int(layers["clusters"].iloc[0]),
        "threshold": f"{layers['threshold'].iloc[0]:g}",
        "charts": [*stage_charts(folder, shown, breaks), *unit_charts(units, shown, deepest[-1])],
        "layer_rows": [layer_cells(r) for _, r in layers.iterrows()],
        "class_rows": [class_cells(r) for _, r in layers.iterrows()],
        "other_tables": other_tables(folder),
        "pictures": pictures(folder),
        "left_out": left_out(manifest),
        "examples": examples(manifest, pd.read_parquet(folder / "views.parquet")),
    }
    path = folder / REPORT_NAME
    write_text(path, render(page))
    return path


def render(page: dict) -> str:
    """The page; all that comes from a run is escaped, and the one script is allowed by its hash."""
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


def headline(stage: pd.Series) -> str:
    """What one stage encodes, in plain words."""
    static, dynamic = (
        f"{factor} score {stage[f'score_{factor}']:.2f}{between(stage, f'score_{factor}')}"
        for factor in FACTORS[1::-1]
    )
    if stage["score_static_low"] > stage["score_dynamic_high"]:
        said = f"appearance ({static}) more than motion and order ({dynamic})."
    elif stage["score_dynamic_low"] > stage["score_static_high"]:
        said = f"motion and order ({dynamic}) more than appearance ({static})."
    else:
        said = (
            f"appearance ({static}) and motion and order ({dynamic}); "
            "which of them more, these videos cannot tell."
        )
    parts = [
        f"{percent(stage[f'units_{c}'] / stage['units'])} {c}" for c in UNIT_CLASSES if stage[f"units_{c}"]
    ]
    return f"At {stage.name} the network follows {said} Units: {', '.join(parts)}."


def percent(part: float) -> str:
    """A part in whole percent; what is something is not said to be nothing."""
    return "under 1\u00a0%" if 0 < part < 0.005 else f"{100 * part:.0f}\u00a0%"


def between(values: pd.Series, name: str) -> str:
    """An interval in words; nothing where there is none."""
    low, high = values[f"{name}_low"], values[f"{name}_high"]
    return f", 95 % interval {low:.2f} to {high:.2f}" if np.isfinite(low) else ""


def stage_charts(folder: Path, layers: pd.DataFrame, breaks: Sequence[int]) -> list[charts.Chart]:
    """Scores, shares, classes of units and, where they are there, sources of variance by stage."""
    made = [
        charts.stage_curves(
            layers,
            breaks,
            {f: (f"score_{f}", COLOURS[f]) for f in FACTORS[:2]},
            "Scores",
            "Correlation of what the network says of the two members of a pair; bands are 95 % intervals.",
        ),
        charts.stage_curves(
            layers,
            breaks,
            {f: (f"share_{f}", COLOURS[f]) for f in FACTORS},
            "Shares (%)",
            "The paper's percentages: a softmax of the scores, and so in a narrow band.",
            scale=100,
            digits=1,
        ),
        charts.stacked_bars(
            percent_of_units(layers),
            {c: COLOURS[c] for c in UNIT_CLASSES},
            "Units by class (%)",
            f"A unit encodes a factor where its correlation is over {layers['threshold'].iloc[0]:g}.",
        ),
    ]
    variance = folder / "variance_layers.csv"
    if variance.exists():
        shares = 100 * pd.read_csv(variance).pivot(index="stage", columns="component", values="share")
        shares = shares.loc[[s for s in layers["stage"] if s in shares.index]]
        about = "How much of what units do each source explains, without a threshold."
        made.append(charts.stacked_bars(shares, COMPONENT_COLOURS, "Variance by source (%)", about))
    return made


def percent_of_units(layers: pd.DataFrame) -> pd.DataFrame:
    """Percent of units in each class, by stage."""
    counts = layers.set_index("stage")[[f"units_{c}" for c in UNIT_CLASSES]]
    return 100 * counts.div(layers.set_index("stage")["units"], axis=0).set_axis(UNIT_CLASSES, axis=1)


def unit_charts(units: pd.DataFrame, layers: pd.DataFrame, stage: str) -> list[charts.Chart]:
    """How the scores of the units of one stage spread, and their classes over the threshold."""
    of_stage = units[units["stage"] == stage]
    scores = {f: of_stage[f"score_{f}"].to_numpy(float) for f in FACTORS[:2]}
    sweep = sweep_thresholds(of_stage, SWEEP).set_index("threshold")[list(UNIT_CLASSES)]
    sweep = 100 * sweep / len(of_stage)
    about = "Where the threshold is set decides how many units have a class; the line marks the one in use."
    return [
        charts.histogram(
            scores,
            COLOURS,
            f"Scores of units, {stage} (% of units)",
            "How the correlations of single units spread.",
        ),
        charts.threshold_curves(
            sweep,
            {c: COLOURS[c] for c in UNIT_CLASSES[:4]},
            f"Classes over the threshold, {stage} (%)",
            about,
            float(layers["threshold"].iloc[0]),
        ),
    ]


def layer_cells(layer: pd.Series) -> dict[str, str]:
    """One line of the table of stages."""
    cells = {"stage": layer["stage"], "units": layer["units"]}
    cells |= {f"{f} score": with_interval(layer, f"score_{f}", 1, 3) for f in FACTORS[:2]}
    return cells | {f"{f} %": with_interval(layer, f"share_{f}", 100, 1) for f in FACTORS}


def class_cells(layer: pd.Series) -> dict[str, str]:
    """One line of the table of classes: numbers of units."""
    return {"stage": layer["stage"], "units": layer["units"]} | {c: layer[f"units_{c}"] for c in UNIT_CLASSES}


def other_tables(folder: Path) -> list[dict]:
    """The tables that ``configs/task/report.yaml`` lists, of those that this run has."""
    found = []
    for about in row("task", "report").tables:
        file = folder / about.file
        if file.exists():
            table = pd.read_csv(file).rename(columns=dict(about.get("rename") or {}))
            if "spread" in about:
                table = spread(table, **about.spread)
            table = table[[c for c in table if c not in (about.get("hide") or ())]]
            rows = table_cells(table.iloc[:MOST_ROWS])
            if rows:
                found.append({**about, "rows": rows, "total": len(table), "cut": len(table) > MOST_ROWS})
    return found


def pictures(folder: Path) -> list[dict]:
    """The pictures (JPEG) that ``configs/task/report.yaml`` lists, of those that this run has, as ``data:``
    addresses."""
    found = []
    for about in row("task", "report").pictures:
        file = folder / about.file
        if file.exists():
            content = base64.b64encode(file.read_bytes()).decode()
            found.append({**about, "address": f"data:image/jpeg;base64,{content}"})
    return found


def spread(
    table: pd.DataFrame, rows: Sequence[str], columns: str, value: str, scale: float = 1
) -> pd.DataFrame:
    """A long table as a wide one: a line for each of `rows`, a column for each of `columns`, with the bounds
    of `value`."""
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
    """Any table as text; ``x``, ``x_low`` and ``x_high`` become one cell."""
    bounds = {
        c for c in table for end in ("_low", "_high") if c.endswith(end) and c.removesuffix(end) in table
    }
    rows = []
    for _, line in table.iterrows():
        cells = {}
        for column in table:
            if column not in bounds:
                cells[column] = cell(line[column]) + bounds_of(line, column)
        rows.append(cells)
    return rows


def cell(value: object) -> str:
    """One value as text: three digits of a number with decimals."""
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:g}" if value.is_integer() else f"{value:.3g}"
    return str(value)


def bounds_of(line: pd.Series, column: str) -> str:
    """The interval of a value, where the table has one."""
    low, high = (line.get(f"{column}{end}", np.nan) for end in ("_low", "_high"))
    return "" if np.isnan(low) or np.isnan(high) else f" [{cell(float(low))}, {cell(float(high))}]"


def left_out(manifest: dict) -> list[dict]:
    """What the run did not see, by reason, with names."""
    broken: dict[str, list[str]] = {}
    for part in ("skipped_clips", "skipped_views"):
        for entry in manifest.get(part, []):
            broken.setdefault(entry["reason"], []).append(entry["clip"])
    groups = [("skipped", broken), ("filtered", manifest.get("filtered_clips", {}))]
    return [
        {"kind": kind, "reason": reason, "count": len(clips), "names": clips[:MOST_NAMES]}
        for kind, reasons in groups
        for reason, clips in reasons.items()
    ]
