"""Draw figures of the result files of Kowal et al.'s code, as images and as TikZ."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.estimator import FACTORS, MEASURED, UNIT_CLASSES
from static_dynamic.analysis.show.figure_style import (
    COLOURS,
    COLUMN,
    MARKERS,
    PAGE,
    bar_style,
    draw_stacked_bars,
    new_panels,
    print_style,
    save,
    stage_ticks,
)
from static_dynamic.analysis.show.figure_style import title as print_title
from static_dynamic.analysis.show.text import escape_latex
from static_dynamic.errors import UserError

# Positions of a two-stream network's stages on the x axis.
PLACES = {"conv1": 1, "layer1": 2, "layer2": 3, "layer3": 4, "layer4": 5}
STREAM_TITLES = {
    "app_stream": "appearance stream",
    "mot_stream": "motion stream",
    "sensor_fusion": "sensor fusion",
}
# Limits of the percentage axis in the figures of Kowal et al., and distance between two ticks.
LOWEST, HIGHEST, TICK = 10, 50, 5
# TikZ options of the legend that all panels share.
LEGEND = (
    "  legend columns=2, legend entries={Motion (dynamic), Appearance (static)}, "
    "legend to name=target_legend3,"
)
CONDITION_TITLES = {"dynamic": "dynamics", "static": "appearance"}


def positions(places: Sequence[str]) -> list[int]:
    """Return the x positions of stages such as layer1; raise UserError if a stage is unknown."""
    for place in places:
        if place not in PLACES:
            raise UserError(f"stage {place!r} is unknown; known stages: {', '.join(PLACES)}")
    return [PLACES[place] for place in places]


@print_style
def draw_stages(streams: Mapping[str, pd.DataFrame], path: Path, title: str) -> None:
    """Draw the dynamic and static shares by stage, one panel per stream.

    `streams`: name of a stream -> table with the columns place, dynamic and static, in percent. The columns
    dynamic_ci and static_ci, if there are any, give error bars.
    """

    def draw(axes: Axes, stream: str, table: pd.DataFrame) -> None:
        x = positions(table["place"])
        for factor in MEASURED:
            error = table.get(f"{factor}_ci")
            axes.errorbar(x, table[factor], error, label=factor, capsize=3, **_line(factor))
        absent = absent_places(table)
        label = f"stage (no results: {absent})" if absent else "stage"
        axes.set(title=STREAM_TITLES.get(stream, stream), xlim=(0.5, 5.5), xlabel=label)
        axes.set_xticks(list(PLACES.values()), list(PLACES))

    _draw_shares(streams, draw, path, title)


@print_style
def draw_iterations(stages: Mapping[str, pd.DataFrame], path: Path, title: str) -> None:
    """Draw the dynamic and static shares by training iteration, one panel per stage."""

    def draw(axes: Axes, stage: str, table: pd.DataFrame) -> None:
        for factor in MEASURED:
            axes.plot(table["iteration"], table[factor], label=factor, **_line(factor))
        stream, _, place = stage.rpartition("_")
        title = f"{STREAM_TITLES.get(stream, stream)}, {place}"
        axes.set(title=title, xlabel="training iteration", xlim=(0, 1.05 * max(1, table["iteration"].max())))

    _draw_shares(stages, draw, path, title)


def _draw_shares(
    tables: Mapping[str, pd.DataFrame],
    draw: Callable[[Axes, str, pd.DataFrame], None],
    path: Path,
    title: str,
) -> None:
    """Call `draw` for one panel per table, all with the same y axis; add a legend, and write the figure."""
    figure, panels = new_panels(
        len(tables), len(tables), (PAGE if len(tables) > 1 else COLUMN, 2.4), sharey=True
    )
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        draw(axes, name, table)
        axes.set_ylim(_range(tables))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("share (%)")
    panels[0].legend(frameon=False)
    _save(figure, path, title)


def _save(figure: Figure, path: Path, title: str) -> None:
    """Add a title to a figure and write the figure to a file."""
    print_title(figure, title)
    save(figure, path)


def stages_as_tikz(streams: Mapping[str, pd.DataFrame], title: str) -> str:
    """Return the figure of `draw_stages` as TikZ: one pgfplots axis per stream and one common legend."""
    colours = [f"\\definecolor{{{factor}}}{{HTML}}{{{COLOURS[factor][1:]}}}" for factor in MEASURED]
    # The first axis defines the common legend, which LaTeX's ``\ref`` places below all axes.
    limits = _range(streams)
    pictures = [_tikz_axis(name, table, limits, k == 0) for k, (name, table) in enumerate(streams.items())]
    absent = [
        f" No results: {STREAM_TITLES.get(name, name)}, {places}."
        for name, table in streams.items()
        if (places := absent_places(table))
    ]
    caption = f"{title}: dynamic and static shares of the dimensions by stage.{''.join(absent)}"
    return "\n".join(
        [
            "% needs \\usepackage{pgfplots}\\pgfplotsset{compat=newest}; compile twice for the legend",
            "\\begin{figure}[t]",
            "\\centering",
            *colours,
            "\\hfill\n".join(pictures) + "\\\\",
            "\\ref{target_legend3}",
            f"\\caption{{{escape_latex(caption)}}}",
            "\\end{figure}\n",
        ]
    )


def _tikz_axis(stream: str, table: pd.DataFrame, limits: tuple[float, float], legend: bool) -> str:
    """Return one pgfplots axis; ``legend=True`` adds the entries of the legend that all axes share."""
    low, high = limits
    ticks = ", ".join(str(y) for y in range(int(low), int(high) + 1, TICK))
    bars = "error bars/.cd, y dir=both, y explicit"
    plots = []
    for factor, mark in zip(MEASURED, ("*", "square*"), strict=True):
        errors = table.get(f"{factor}_ci", pd.Series(0.0, table.index)).fillna(0.0)
        points = zip(positions(table["place"]), table[factor], errors, strict=True)
        coordinates = " ".join(f"({x}, {y:.2f}) +- (0, {e:.2f})" for x, y, e in points)
        plots += [
            f"\\addplot[color={factor}, mark={mark}, mark size=1.1pt, line width=1.6pt, {bars}]",
            f"  coordinates {{{coordinates}}};",
        ]
    return "\n".join(
        [
            "\\begin{tikzpicture}",
            "\\begin{axis}[",
            f"  title={{\\textbf{{{escape_latex(STREAM_TITLES.get(stream, stream))}}}}},",
            "  title style={font=\\footnotesize},",
            "  xlabel={Network stage}, ylabel={Share (\\%)},",
            f"  xmin=0.5, xmax=5.5, ymin={low:g}, ymax={high:g},",
            f"  xtick={{{', '.join(map(str, PLACES.values()))}}}, ytick={{{ticks}}},",
            f"  xticklabels={{{', '.join(PLACES)}}}, tick label style={{font=\\footnotesize}},",
            "  width=6.5cm, height=5cm, grid=major, major grid style={dotted},",
            *([LEGEND] if legend else []),
            "]",
            *plots,
            "\\end{axis}",
            "\\end{tikzpicture}\n",
        ]
    )


@print_style
def draw_histograms(
    shares: Mapping[str, NDArray], path: Path, title: str, factors: Sequence[str] = MEASURED
) -> None:
    """Draw histograms of the static and dynamic shares of units: one panel per stage, one row per stream."""
    streams: dict[str, list[str]] = {}
    for stage in shares:
        streams.setdefault(stage.partition(",")[2], []).append(stage)
    columns = max(map(len, streams.values()))
    size = (PAGE if len(shares) > 1 else COLUMN, 0.6 + 1.6 * len(streams))
    figure, panels = new_panels(columns * len(streams), columns, size)
    for k, stages in enumerate(streams.values()):
        row = panels[k * columns : (k + 1) * columns]
        for axes in row[len(stages) :]:
            axes.set_axis_off()
        for axes, stage in zip(row, stages, strict=False):
            for factor in factors:
                draw_histogram(axes, shares[stage], factor)
            axes.set_title(stage)
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, frameon=False, loc="outside lower center", ncols=len(factors))
    _save(figure, path, title)


def draw_histogram(axes, shares: NDArray, factor: str) -> None:
    """Draw one factor's histogram into a panel; dead units, whose shares are NaN, are left out."""
    percent = 100 * shares[:, FACTORS.index(factor)]
    bins = np.arange(0, 101, 2)
    axes.hist(percent[~np.isnan(percent)], bins, color=COLOURS[factor], alpha=0.35)
    look = {"color": COLOURS[factor], "linestyle": "--" if factor == "static" else "-", "label": factor}
    axes.hist(percent[~np.isnan(percent)], bins, histtype="step", **look)
    axes.set(xlabel="share (%)", ylabel="units", xlim=(LOWEST - TICK, HIGHEST + 2 * TICK))


@print_style
def draw_joint_encoding(percent: pd.DataFrame, path: Path, title: str) -> None:
    """Draw the percentage of units per unit class (dynamic, static, ...), one stacked bar per stage."""
    figure, (axes,) = new_panels(1, 1, (PAGE, 2.9))
    draw_stacked_bars(axes, percent.index, {name: percent[name] for name in UNIT_CLASSES}, COLOURS)
    axes.set(ylabel="units (%)", ylim=(0, 100))
    stage_ticks(axes, list(percent.index), 5)
    _save(figure, path, title)


@print_style
def draw_conditions(statistics: pd.DataFrame, own: str, path: Path, title: str) -> None:
    """Draw mean and SD of unit correlations for pairs that share dynamics, appearance, neither or both.

    `statistics`: one row per unit; columns: what the members of pairs share (``dynamic``, ``static``,
    ``neither``, ``both``). `own`: the factor on the axis, ``dynamic`` or ``static``, which the members of a
    pair share or not. Neighbouring bars differ in the other factor.
    """
    other = "static" if own == "dynamic" else "dynamic"
    figure, (axes,) = new_panels(1, 1, (COLUMN, 2.6))
    # Each entry: (column for pairs that do not share the factor `own`, column for pairs that share it).
    bars = {"shared": (other, "both"), "not shared": ("neither", own)}
    for k, (condition, columns) in enumerate(bars.items()):
        part = statistics[list(columns)]
        style = bar_style(other, COLOURS[other]) if condition == "shared" else {"color": COLOURS["residual"]}
        x = np.arange(2) + 0.36 * (k - 0.5)
        label = f"{CONDITION_TITLES[other]} {condition}"
        axes.bar(x, part.mean(), 0.34, yerr=part.std(ddof=0), capsize=3, label=label, **style)
    axes.set_xticks([0, 1], [f"{CONDITION_TITLES[own]} {shared}" for shared in ("not shared", "shared")])
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_ylabel("correlation of a unit over pairs:\nmean and SD over units")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    _save(figure, path, f"{title}: {len(statistics)} units")


@print_style
def draw_prior(prior: NDArray, path: Path, title: str) -> None:
    """Draw `prior`, an array (H, W) with the fraction of masks that contain each pixel."""
    figure, (axes,) = new_panels(1, 1, (COLUMN, 2.2))
    picture = axes.imshow(100 * prior, cmap="cividis", vmin=0)
    axes.set_axis_off()
    axes.set_title(title)
    figure.colorbar(picture, label="masks that contain the pixel (%)", shrink=0.85)
    save(figure, path)


def _line(factor: str) -> dict:
    """Return the look of the curve of a factor (dynamic, static): its colour, marker and line style."""
    return {
        "color": COLOURS[factor],
        "marker": MARKERS[factor],
        "linestyle": "--" if factor == "static" else "-",
    }


def absent_places(table: pd.DataFrame) -> str:
    """Return the names of the stages (`PLACES`) that have no row in `table`."""
    return ", ".join(place for place in PLACES if place not in set(table["place"]))


def _range(tables: Mapping[str, pd.DataFrame]) -> tuple[float, float]:
    """Return the limits of the percentage axis: 10 and 50, or wider limits within 0 to 100.

    Wider limits include all values, and all error bars as far as shares can reach.
    """
    table = pd.concat(tables.values())
    values = table[list(MEASURED)].to_numpy(float)
    bars = np.nan_to_num(table.reindex(columns=[f"{f}_ci" for f in MEASURED]).to_numpy(float))
    low = np.floor(max(0.0, (values - bars).min()) / TICK) * TICK
    high = np.ceil(min(100.0, (values + bars).max()) / TICK) * TICK
    return min(LOWEST, float(low)), max(HIGHEST, float(high))
