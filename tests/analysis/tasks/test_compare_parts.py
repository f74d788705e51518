"""Comparison of runs by content, motion, appearance and residual: tables, figures, and runs without parts."""

import re

import numpy as np
import pytest

from static_dynamic.analysis.estimate.comparison import compare_runs
from static_dynamic.analysis.estimate.decomposition import PARTS
from static_dynamic.analysis.estimate.tables import average_runs, read_layers
from static_dynamic.analysis.show import comparison_figures as figures
from static_dynamic.analysis.show import comparison_latex as latex
from static_dynamic.analysis.show import comparison_tables as tables
from static_dynamic.analysis.show.parts import NEEDED
from static_dynamic.analysis.show.text import escape_latex
from tests.analysis.finished import finished_run, forget_new_columns

COLUMNS = [f"{part}{end}" for part in PARTS for end in ("", "_low", "_high")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, one run of an older version, and one run without parts."""
    root = tmp_path_factory.mktemp("runs")
    made = {name: finished_run(root / name, model=name) for name in ("one", "two", "old")}
    return made | {"paper": finished_run(root / "paper", model="paper", pairs="paper")}


@pytest.fixture(scope="module")
def before(runs):
    """Parts of the older run, before its table of layers loses them."""
    table = read_layers(runs["old"])
    forget_new_columns(runs["old"])
    return table


@pytest.fixture(scope="module")
def comparison(runs, before):
    return compare_runs([runs[name] for name in ("paper", "one", "old")], n_boot=20)


def label(table, name):
    return next(run for run in table["run"].unique() if run.startswith(name))


def test_parts_are_those_of_the_runs(comparison, runs, before):
    layers = comparison.layers
    for name, own in (("one", read_layers(runs["one"])), ("old", before)):
        shown = layers[layers["run"] == label(layers, name)].set_index("stage")
        np.testing.assert_allclose(shown[COLUMNS].astype(float), own[COLUMNS], rtol=1e-6)
    assert layers.loc[layers["run"] == label(layers, "paper"), COLUMNS].isna().all(axis=None)


def test_differences_of_parts_leave_out_runs_without_parts(comparison, before, runs):
    (grid,) = [g for g in tables.grids_of_differences(comparison.differences) if "parts" in g.name]
    assert grid.caption.startswith(
        f"{label(comparison.layers, 'one')} minus {label(comparison.layers, 'old')}"
    )
    assert len(grid.rows) == 2 and "nan" not in str(grid.rows)
    one, found = read_layers(runs["one"]), comparison.differences.dropna(subset="motion").set_index("stage")
    expected = one["motion"] - before["motion"]
    np.testing.assert_allclose(found["motion"].astype(float), expected, rtol=1e-6)
    low, high = found["motion_low"].astype(float), found["motion_high"].astype(float)
    np.testing.assert_allclose((low + high) / 2, expected, rtol=1e-6)


def test_a_line_names_the_runs_without_parts(comparison):
    says = f"There are no parts of {label(comparison.layers, 'paper')}: {NEEDED}."
    assert tables.as_text(comparison).count(says) == 1 and tables.as_markdown(comparison).count(says) == 1
    assert latex.comparison_files(comparison)["table_parts.tex"].count("There are no parts of") == 1


def test_the_figure_has_a_curve_and_a_band_per_run_with_parts(comparison):
    figure = figures.parts(comparison)
    layers = comparison.layers
    assert [axes.get_title() for axes in figure.axes] == list(PARTS)
    for axes in figure.axes:
        lines = {line.get_label(): line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 2}
        for name in ("one", "old"):
            own = layers[layers["run"] == label(layers, name)]
            np.testing.assert_allclose(lines[label(layers, name)], 100 * own[axes.get_title()].astype(float))
        assert len(axes.collections) == 2
        assert all(np.isfinite(band.get_paths()[0].vertices).all() for band in axes.collections)


def test_the_latex_figure_has_no_curve_of_a_run_without_parts(comparison):
    """An empty curve would move the following names of the legend to other curves."""
    layers = comparison.layers
    text = latex.parts(comparison)
    entries = re.findall(r"addlegendentry\{(.*)\}", text)
    assert entries == [escape_latex(label(layers, name)) for name in ("one", "old")] * len(PARTS)
    assert "coordinates {}" not in text
    own = layers[layers["run"] == label(layers, "one")]
    assert f"(0.0000,{100 * float(own['content'].iloc[0]):.5f})" in text


def test_runs_without_any_parts_are_compared_as_before(runs, tmp_path):
    other = finished_run(tmp_path / "other", model="other", pairs="paper")
    comparison = compare_runs([runs["paper"], other], n_boot=20)
    assert figures.parts(comparison) is None
    files = latex.comparison_files(comparison)
    assert not [name for name in files if "parts" in name] and "parts" not in files["comparison.tex"]
    text = tables.as_text(comparison)
    assert f"There are no parts of paper, other: {NEEDED}." in text
    assert "content %" not in text and "the paper's dynamic score" in text


def test_all_runs_with_parts_need_no_such_line(runs):
    comparison = compare_runs([runs["one"], runs["two"]], n_boot=20)
    assert tables.runs_without_parts(comparison.layers) == ""
    assert "There are no parts" not in tables.as_text(comparison)


def test_parts_are_averaged_over_seeds(runs, tmp_path):
    twin = finished_run(tmp_path / "twin", model="one", seed=2)
    comparison = compare_runs([runs["one"], twin, runs["two"]], n_boot=20, average_seeds=True)
    layers = comparison.layers[comparison.layers["seeds"] == 2].set_index("stage")
    expected = (read_layers(runs["one"])[list(PARTS)] + read_layers(twin)[list(PARTS)]) / 2
    np.testing.assert_allclose(layers[list(PARTS)].astype(float), expected, rtol=1e-6)
    assert layers["p_motion"].isna().all()
    spread = np.stack([read_layers(folder)["motion"] for folder in (runs["one"], twin)]).std(0) / np.sqrt(2)
    np.testing.assert_allclose(layers["motion_seeds"].astype(float), 1.96 * spread)
    table = average_runs([runs["one"], twin]).set_index("stage")
    np.testing.assert_allclose(table["motion_ci"], layers["motion_seeds"].astype(float))


def test_averages_of_runs_without_parts_have_no_columns_of_parts(runs, tmp_path):
    twin = finished_run(tmp_path / "twin", model="paper", pairs="paper", seed=2)
    table = average_runs([runs["paper"], twin])
    assert "score_dynamic" in table and not {"content", "motion_ci"} & set(table)
    other = finished_run(tmp_path / "other", model="other")
    layers = compare_runs([runs["paper"], twin, other], n_boot=10, average_seeds=True).layers
    averaged = layers[layers["seeds"] == 2]
    assert averaged[[*COLUMNS, "motion_seeds"]].isna().all(axis=None) and len(averaged) == 2
