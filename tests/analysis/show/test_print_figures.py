"""Figures at their printed width: sizes of text, overlaps, and looks that do not rest on colour alone."""

from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from static_dynamic.analysis.show import cells, figure_style, figures, unit_figures
from static_dynamic.analysis.show.figure_style import (
    COLUMN,
    PAGE,
    limit,
    new_panels,
    print_style,
    stage_ticks,
)
from static_dynamic.analysis.vos import stage_figures

LONG = [f"blocks.{k}/temporal_attention" for k in range(24)]
STAGES = {"five": [f"stage{k}" for k in range(1, 6)], "one": ["stage1"], "many": LONG}


def layers_of(stages, wide=False):
    """A table of stages with all columns that the figures show; `wide` intervals exceed what is possible."""
    rng = np.random.default_rng(0)
    names = ["content", "motion", "appearance", "residual"]
    names += [f"score_{f}" for f in ("dynamic", "static")]
    names += [f"share_{f}" for f in ("dynamic", "static", "residual")]
    table = pd.DataFrame({"stage": stages, "units": 64, "clips": 24, "threshold": 0.5})
    for name in names:
        table[name] = rng.uniform(0, 0.6, len(stages))
        half = 30.0 if wide else 0.1
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - half, table[name] + half
    for name in ("content", "motion", "appearance", "mixed", "residual"):
        for column in (f"kind_{name}", f"kind_{name}_low", f"kind_{name}_high"):
            table[column] = 12
    for name in ("dynamic", "static", "joint", "residual", "dead"):
        for column in (f"units_{name}", f"units_{name}_low", f"units_{name}_high"):
            table[column] = 12
    return table


def variance_of(stages):
    rows = [(s, c, 1 / 7) for s in stages for c in figure_style.COMPONENT_COLOURS]
    return pd.DataFrame(rows, columns=["stage", "component", "share"])


def convergence_of(stages):
    tables = [layers_of(stages).assign(clusters=count) for count in (6, 12, 24)]
    return pd.concat(tables, ignore_index=True)


def cells_of(stages, **places):
    places = pd.DataFrame(places)
    return pd.concat([layers_of([s] * len(places)).join(places) for s in stages], ignore_index=True)


def grid(time, rows, columns):
    index = np.unravel_index(np.arange(time * rows * columns), (time, rows, columns))
    return dict(zip(("time", "row", "column"), index, strict=True))


def units_of(stages):
    rng = np.random.default_rng(0)
    names = ["score_dynamic", "score_static", "content", "motion", "appearance"]
    tables = [pd.DataFrame({n: rng.uniform(0, 1, 30) for n in names}).assign(stage=s) for s in stages]
    return pd.concat(tables, ignore_index=True)


FIGURES = {
    "profile": lambda s, path: figures.draw_profile(layers_of(s), path, "a network on a data set"),
    "wide intervals": lambda s, path: figures.draw_profile(layers_of(s, True), path, "a network"),
    "classes": lambda s, path: figures.draw_classes(layers_of(s).iloc[0], path, f"a network, {s[0]}"),
    "variance": lambda s, path: figures.draw_variance(variance_of(s), path, "a network on a data set"),
    "convergence": lambda s, path: figures.draw_convergence(convergence_of(s), path),
    "histograms": lambda s, path: unit_figures.draw_histograms(units_of(s), path, 0.5),
    "parts": lambda s, path: unit_figures.draw_parts(units_of(s), path),
    "maps": lambda s, path: cells.draw_maps(cells_of(s[:6], **grid(1, 3, 3)), None, path, "a network"),
    "courses": lambda s, path: cells.draw_courses(cells_of(s, **grid(8, 1, 1)), path, "a network"),
    "regions": lambda s, path: cells.draw_regions(
        cells_of(s, region=["background", "foreground"]), path, "x"
    ),
    "joint": lambda s, path: stage_figures.draw_joint_encoding(
        pd.DataFrame(20.0, s, ["dynamic", "static", "joint", "residual", "dead"]), path, "a network"
    ),
}


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a figure and return it with its renderer, instead of writing it."""

    def draw(name, stages):
        kept = []
        for module in (figures, unit_figures, cells, stage_figures):
            monkeypatch.setattr(module, "save", lambda figure, path: kept.append(figure))
        FIGURES[name](stages, tmp_path / "figure.png")
        (figure,) = kept
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return figure, canvas.get_renderer()

    return draw


def written(figure):
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("stages", STAGES)
def test_a_figure_is_readable_in_print(drawn, name, stages):
    figure, renderer = drawn(name, STAGES[stages])
    width, height = figure.get_size_inches()
    assert any(width == pytest.approx(known) for known in (PAGE, COLUMN))
    box = figure.bbox
    outside = set()
    for axes in figure.axes:
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            # of shared axes, only the outer panels have labels
            ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
            outside |= {label for place, label in ticks if not min(low, high) <= place <= max(low, high)}
    for text in set(written(figure)) - outside:
        own = text.get_window_extent(renderer)
        assert text.get_fontsize() >= 5.5, text.get_text()
        slack = 0.02 * box.width
        assert own.x0 >= -slack and own.x1 <= box.width + slack, (text.get_text(), own, box)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [t for t in axis.get_ticklabels() if t in set(written(figure)) - outside]
            flat = [t.get_window_extent(renderer) for t in labels if not t.get_rotation() % 90]
            assert not any(one.overlaps(other) for one, other in combinations(flat, 2)), name
            rotated = [t.get_window_extent(renderer).x1 for t in labels if t.get_rotation() % 90]
            # Rotated labels that end at least a line apart do not touch.
            points = 72 / figure.dpi
            assert all(points * abs(b - a) >= 6.5 for a, b in zip(rotated, rotated[1:], strict=False)), name


@pytest.mark.parametrize("name", ["profile", "convergence", "courses"])
def test_curves_differ_without_colour(drawn, name):
    figure, _ = drawn(name, STAGES["five"])
    for axes in figure.axes:
        looks = [
            (line.get_marker(), str(line.get_linestyle()))
            for line in axes.get_lines()
            if not line.get_label().startswith("_")
        ]
        assert len(set(looks)) == len(looks), looks


@pytest.mark.parametrize("name", ["variance", "joint"])
def test_bars_differ_without_colour(drawn, name):
    figure, _ = drawn(name, STAGES["five"])
    hatches = [container[0].get_hatch() for container in figure.axes[0].containers]
    assert len(set(hatches)) == len(hatches)


def test_axes_ignore_impossible_intervals(drawn):
    figure, _ = drawn("wide intervals", STAGES["five"])
    low, high = figure.axes[0].get_ylim()
    assert -40 < low and high < 130


@print_style
def test_limits_contain_all_estimates():
    _, (axes,) = new_panels(1, 1, (3, 2))
    axes.fill_between([0, 1], [-900, -900], [900, 900])
    limit(axes, [-60.0, 150.0, np.nan], -20, 110)
    low, high = axes.get_ylim()
    assert -75 < low <= -60 and 150 <= high < 165


def test_ticks_are_thinned_out_and_shortened():
    _, (axes,) = new_panels(1, 1, (3, 2))
    stage_ticks(axes, LONG, 1.5)
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert len(labels) < len(LONG) and all(len(label) <= 20 for label in labels)
    stage_ticks(axes, ["a", "b"], 1.5)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b"]


def test_styles_leave_the_users_settings_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    figures.draw_variance(variance_of(STAGES["five"]), tmp_path / "variance.png", "a network")
    assert dict(matplotlib.rcParams) == before
