"""Figures of docs/atlas.md, 174 mm wide and readable in grey."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.atlas.networks import DATA, NETWORKS, UNTRAINED, Network
from examples.atlas.tables import Results
from static_dynamic.analysis.show.figure_style import PAGE, print_style, save

# Order of the sets of weights -> label, colour, marker and line style of their curves.
CURVES = (
    ("trained (first set of weights)", "#D55E00", "o", "-"),
    ("trained (second set)", "#009E73", "D", "--"),
    ("untrained", "#555555", "s", ":"),
)
# Colour and marker of each network in the plane.
POINTS = dict(
    zip(
        (network.name for network in NETWORKS),
        (
            ("#0072B2", "s"),
            ("#56B4E9", "D"),
            ("#009E73", "^"),
            ("#CC79A7", "v"),
            ("#E69F00", "P"),
            ("#D55E00", "o"),
        ),
        strict=True,
    )
)


def curves_of(network: Network) -> list[tuple[str, tuple[str, str, str, str]]]:
    """Return (weights, style of the curve) of each curve of a network."""
    trained = list(zip(network.trained, CURVES, strict=False))
    return [*trained, (UNTRAINED, CURVES[2])]


@print_style
def draw_stages(results: Results, part: str, path: Path) -> None:
    """Draw one part of the variance by stage: one column per network, one row per data set."""
    figure = Figure(figsize=(PAGE, 3.9), layout="constrained")
    panels = figure.subplots(len(DATA), len(NETWORKS), sharey="row", sharex="col")
    for row, data in zip(panels, DATA, strict=True):
        for axes, network in zip(row, NETWORKS, strict=True):
            draw_network(axes, results, part, network, data)
        row[0].set_ylabel(f"{data}: {part} (%)")
    for axes, network in zip(panels[0], NETWORKS, strict=True):
        axes.set_title(network.label)
    handles, labels = panels[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


def draw_network(axes: Axes, results: Results, part: str, network: Network, data: str) -> None:
    """Draw the curves of one network, with intervals as bars."""
    x = np.arange(len(network.stages))
    for k, (weights, (label, colour, marker, line)) in enumerate(curves_of(network)):
        found = [results.part(part, network.name, weights, data, stage) for stage in network.stages]
        values, halves = (100 * np.array([[n.value, n.half] for n in found])).T
        style: dict[str, Any] = {
            "label": label,
            "color": colour,
            "marker": marker,
            "linestyle": line,
            "markersize": 3,
        }
        axes.errorbar(x + 0.12 * (k - 1), values, halves, elinewidth=0.7, **style)
    axes.axhline(0, color="black", linewidth=0.5)
    names = [stage.replace("_layer", "").replace("SDDCNN.", "SDDCNN ") for stage in network.stages]
    axes.set_xticks(x, names, rotation=90, fontsize=6)


@print_style
def draw_balance(results: Results, path: Path) -> None:
    """Draw the last stage of each network in the plane of appearance and motion."""
    figure = Figure(figsize=(PAGE, 2.9), layout="constrained")
    panels = figure.subplots(1, len(DATA), sharex=True, sharey=True)
    for axes, data in zip(panels, DATA, strict=True):
        for network in NETWORKS:
            draw_points(axes, results, network, data)
        ends = [0.0, 100.0]
        axes.plot(ends, ends, color="black", linewidth=0.6, linestyle=":")
        axes.set(title=data, xlabel="appearance (%)", xlim=(-12, 112), ylim=(-12, 112))
        axes.set_aspect("equal")
    panels[0].set_ylabel("motion (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    save(figure, path)


def draw_points(axes: Axes, results: Results, network: Network, data: str) -> None:
    """Draw the trained networks as filled markers and the untrained network as an open marker."""
    colour, marker = POINTS[network.name]
    for weights, (label, *_) in curves_of(network):
        ends = [
            results.part(part, network.name, weights, data, network.last) for part in ("appearance", "motion")
        ]
        filled = colour if weights != UNTRAINED else "white"
        axes.errorbar(
            100 * ends[0].value,
            100 * ends[1].value,
            100 * ends[1].half,
            100 * ends[0].half,
            color=colour,
            marker=marker,
            markersize=5,
            markerfacecolor=filled,
            elinewidth=0.6,
            linestyle="",
            label=network.label if label == CURVES[0][0] else None,
        )


def draw_all(results: Results, folder: Path) -> None:
    """Draw all figures into `folder`."""
    draw_stages(results, "motion", folder / "atlas_motion.png")
    draw_balance(results, folder / "atlas_balance.png")
