"""Figures of the original's result files, and the same as TikZ; colours and marks are those of
`static_dynamic.analysis.show.figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.estimator import FACTORS, UNIT_CLASSES
from static_dynamic.analysis.show.figures import COLOURS, MARKERS, save
from static_dynamic.analysis.show.latex_text import escape
from static_dynamic.errors import UserError

# places that all networks with two streams have, at their positions on the axis
PLACES = {"conv1": 1, "layer1": 2, "layer2": 3, "layer3": 4, "layer4": 5}
STREAM_TITLES = {
    "app_stream": "appearance stream",
    "mot_stream": "motion stream",
    "sensor_fusion": "sensor fusion",
}
SHOWN = FACTORS[:2]
# the original's range of percentages and its steps; `_range` widens it where a point lies outside
LOWEST, HIGHEST, TICK = 10, 50, 5
LEGEND = "Motion (dynamic), Appearance (static)"
CONDITION_TITLES = {"dynamic": "dynamics", "static": "appearance"}


def new_panels(count: int, width: float, height: float, rows: int = 1) -> tuple[Figure, list]:
    """A figure with panels in rows, without the lines that frame them above and to the right."""
    columns = -(-count // rows)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def positions(places: Sequence[str]) -> list[int]:
    """Where places stand on the axis.

    Raises
    ------
    UserError
        A place that networks with two streams do not have.
    """
    for place in places:
        if place not in PLACES:
            raise UserError(f"stage {place!r} has no position; known: {', '.join(PLACES)}")
    return [PLACES[place] for place in places]


def draw_stages(streams: Mapping[str, pd.DataFrame], path: Path, title: str) -> None:
    """Draw percentages by place, a panel a stream; tables have place, dynamic, static, with or without
    ``_ci``."""
    figure, panels = new_panels(len(streams), 4.2, 3.6)
    for axes, (stream, table) in zip(panels, streams.items(), strict=True):
        x = positions(table["place"])
        for factor in SHOWN:
            error = table.get(f"{factor}_ci")
            axes.errorbar(x, table[factor], error, label=factor, capsize=3, **_line(factor))
        axes.set(title=STREAM_TITLES.get(stream, stream), xlim=(0.5, 5.5), xlabel="stage")
        axes.set_xticks(list(PLACES.values()), list(PLACES))
        axes.set_ylim(_range(table))
        axes.grid(alpha=0.3)
    _save_shares(figure, panels, title, path)


def _save_shares(figure: Figure, panels: Sequence[Axes], title: str, path: Path) -> None:
    """Say once what all panels show, and write the figure."""
    panels[0].set_ylabel("share (%)")
    panels[0].legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def stages_as_tikz(streams: Mapping[str, pd.DataFrame], title: str) -> str:
    """The figure of `draw_stages` for LaTeX: one pgfplots axis a stream, one legend; needs
    ``\\usepackage{pgfplots}``."""
    colours = [f"\\definecolor{{{factor}}}{{HTML}}{{{COLOURS[factor][1:]}}}" for factor in SHOWN]
    # one axis gives the legend, which is set below all of them
    pictures = [_tikz_axis(stream, table, k == 0) for k, (stream, table) in enumerate(streams.items())]
    return "\n".join(
        [
            "% needs \\usepackage{pgfplots}\\pgfplotsset{compat=newest}; compile twice for the legend",
            "\\begin{figure}[t]",
            "\\centering",
            *colours,
            "\\hfill\n".join(pictures) + "\\\\",
            "\\ref{target_legend3}",
            f"\\caption{{{escape(title)}: share of dynamic and static information by stage.}}",
            "\\end{figure}\n",
        ]
    )


def _tikz_axis(stream: str, table: pd.DataFrame, legend: bool) -> str:
    low, high = _range(table)
    ticks = ", ".join(str(y) for y in range(int(low), int(high) + 1, TICK))
    bars = "error bars/.cd, y dir=both, y explicit"
    plots = []
    for factor, mark in zip(SHOWN, ("*", "square*"), strict=True):
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
            f"  title={{\\textbf{{{escape(STREAM_TITLES.get(stream, stream))}}}}},",
            "  title style={font=\\footnotesize},",
            "  xlabel={Network stage}, ylabel={Share (\\%)},",
            f"  xmin=0.5, xmax=5.5, ymin={low:g}, ymax={high:g},",
            f"  xtick={{{', '.join(map(str, PLACES.values()))}}}, ytick={{{ticks}}},",
            f"  xticklabels={{{', '.join(PLACES)}}}, tick label style={{font=\\footnotesize}},",
            "  width=6.5cm, height=5cm, grid=major, major grid style={dotted},",
            *(
                [f"  legend columns=2, legend entries={{{LEGEND}}}, legend to name=target_legend3,"]
                if legend
                else []
            ),
            "]",
            *plots,
            "\\end{axis}",
            "\\end{tikzpicture}\n",
        ]
    )


def draw_iterations(stages: Mapping[str, pd.DataFrame], path: Path, title: str) -> None:
    """Draw percentages by training iteration, a panel a stage."""
    figure, panels = new_panels(len(stages), 4.2, 3.6)
    for axes, (stage, table) in zip(panels, stages.items(), strict=True):
        for factor in SHOWN:
            axes.plot(table["iteration"], table[factor], label=factor, **_line(factor))
        axes.set(title=stage, xlabel="training iteration")
        axes.set_ylim(_range(table))
        axes.grid(alpha=0.3)
    _save_shares(figure, panels, title, path)


def draw_histograms(
    shares: Mapping[str, NDArray], path: Path, title: str, factors: Sequence[str] = SHOWN
) -> None:
    """Draw how many units of each stage have which share of `factors`, (C, 3) shares in all; a row a
    stream."""
    streams: dict[str, list[str]] = {}
    for stage in shares:
        streams.setdefault(stage.partition(",")[2], []).append(stage)
    columns = max(map(len, streams.values()))
    width, height = (3.2, 2.6) if len(shares) > 1 else (5.0, 3.6)
    figure, panels = new_panels(columns * len(streams), width, height, len(streams))
    for k, stages in enumerate(streams.values()):
        row = panels[k * columns : (k + 1) * columns]
        for axes in row[len(stages) :]:
            axes.set_axis_off()
        for axes, stage in zip(row, stages, strict=False):
            for factor in factors:
                draw_histogram(axes, shares[stage], factor)
            axes.set_title(stage, fontsize=9)
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, frameon=False, loc="outside lower center", ncols=len(factors))
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def draw_histogram(axes, shares: NDArray, factor: str) -> None:
    """Draw one factor's histogram into a panel; dead units, whose shares are NaN, are no part of it."""
    percent = 100 * shares[:, FACTORS.index(factor)]
    bins = np.arange(0, 101, 2)
    axes.hist(percent[~np.isnan(percent)], bins, color=COLOURS[factor], alpha=0.7, label=factor)
    axes.set(xlabel="share (%)", ylabel="units", xlim=(LOWEST - TICK, HIGHEST + 2 * TICK))


def draw_joint_encoding(percent: pd.DataFrame, path: Path, title: str) -> None:
    """Draw the percentages of units by class (columns) of stages (index) as stacked bars."""
    figure, (axes,) = new_panels(1, max(5.0, 2.5 + 0.8 * len(percent)), 4.0)
    bottom = np.zeros(len(percent))
    for name in UNIT_CLASSES:
        height = percent[name].to_numpy()
        bars = axes.bar(percent.index, height, bottom=bottom, color=COLOURS[name], label=name, width=0.75)
        labels = [f"{h:.0f}" if h >= 6 else "" for h in height]
        dark = "black" if name == "dead" else "white"
        axes.bar_label(bars, labels, label_type="center", color=dark, fontsize=8)
        bottom += height
    axes.set(ylabel="units (%)", ylim=(0, 100))
    axes.set_xticks(range(len(percent)), percent.index, rotation=45, ha="right", rotation_mode="anchor")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def draw_conditions(statistics: pd.DataFrame, own: str, path: Path, title: str) -> None:
    """Draw mean and standard deviation of units over what the members of pairs have in common.

    `own` is the factor of the stream, ``dynamic`` or ``static``, on the axis; the bars beside each other are
    pairs that share the other one and pairs that do not.
    """
    other = "static" if own == "dynamic" else "dynamic"
    figure, (axes,) = new_panels(1, 6.0, 3.8)
    # at own not shared, and at own shared
    bars = {"shared": (other, "both"), "not shared": ("neither", own)}
    for k, (said, columns) in enumerate(bars.items()):
        part = statistics[list(columns)]
        colour = COLOURS[other] if said == "shared" else COLOURS["residual"]
        x = np.arange(2) + 0.36 * (k - 0.5)
        label = f"{CONDITION_TITLES[other]} {said}"
        axes.bar(x, part.mean(), 0.34, yerr=part.std(ddof=0), capsize=3, color=colour, label=label)
    axes.set_xticks([0, 1], [f"{CONDITION_TITLES[own]} {said}" for said in ("not shared", "shared")])
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_ylabel("mean of units, standard deviation")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def draw_prior(prior: NDArray, path: Path, title: str) -> None:
    """Draw how often each pixel belongs to an object, (H, W) in [0, 1]."""
    figure = Figure(figsize=(7.0, 3.9), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(100 * prior, cmap="cividis", vmin=0)
    axes.set_axis_off()
    axes.set_title(title, fontsize=11)
    figure.colorbar(picture, label="masks that hold the pixel (%)", shrink=0.85)
    save(figure, path)


def _line(factor: str) -> dict:
    return {"color": COLOURS[factor], "marker": MARKERS[factor]}


def _range(table: pd.DataFrame) -> tuple[float, float]:
    """The original's range of percentages, widened in its steps where a point (with its bar) lies outside."""
    values = table[list(SHOWN)].to_numpy(float)
    bars = np.nan_to_num(table.reindex(columns=[f"{f}_ci" for f in SHOWN]).to_numpy(float))
    low, high = np.floor((values - bars).min() / TICK) * TICK, np.ceil((values + bars).max() / TICK) * TICK
    return min(LOWEST, float(low)), max(HIGHEST, float(high))
