"""Figures of a run: intervals of the numbers of units per class."""

import numpy as np
import pytest

from static_dynamic.analysis.estimate.decomposition import PARTS
from static_dynamic.analysis.estimate.kinds import COUNTED_KINDS
from static_dynamic.analysis.estimate.tables import read_layers
from static_dynamic.analysis.show import figures
from tests.analysis.finished import finished_run, forget_new_columns

COUNTED = ("dynamic", "static", "joint", "residual")


@pytest.fixture
def drawn(monkeypatch):
    """Keep the figure instead of writing it."""
    kept = []
    monkeypatch.setattr(figures, "save", lambda figure, path: kept.append(figure))
    return kept


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("runs") / "run", videos=range(12), units=20)


def test_bars_of_classes_have_the_intervals_as_error_bars(drawn, run):
    row = read_layers(run).iloc[1]
    figures.draw_classes(row, None, "stage2")
    (axes,) = drawn[0].axes
    ends = [c.lines[2][0].get_segments()[0] for c in axes.containers if hasattr(c, "has_yerr")]
    expected = [[[k, row[f"units_{n}_{e}"]] for e in ("low", "high")] for k, n in enumerate(COUNTED)]
    np.testing.assert_allclose(ends, expected)
    labels = {t.get_text(): t.xy for t in axes.texts}
    assert labels[str(row["units_joint"])] == (2, row["units_joint_high"])  # above the error bar
    assert "95 % intervals" in drawn[0].get_suptitle()


def test_the_profile_has_bands_of_the_percentages_of_units(drawn, run):
    layers = read_layers(run).reset_index()
    figures.draw_profile(layers, None, "tiny")
    parts, kinds, text, _, _, axes = drawn[0].axes
    require_bands(parts, layers, {part: part for part in PARTS}, 100)
    require_bands(kinds, layers, {kind: f"kind_{kind}" for kind in COUNTED_KINDS}, 100 / 20)
    assert "overlap" in text.texts[0].get_text()
    *counted, dead = axes.collections
    assert not dead.get_paths()  # the number of dead units has no interval
    for name, collection in zip(COUNTED, counted, strict=True):
        band = collection.get_paths()[0].vertices
        for k in range(len(layers)):
            expected = 100 * layers.loc[k, [f"units_{name}_low", f"units_{name}_high"]] / 20
            found = band[band[:, 0] == k, 1]
            np.testing.assert_allclose([found.min(), found.max()], expected.astype(float))


def require_bands(axes, layers, columns, scale):
    """Every curve and band of `axes` shows its column of `layers`; curves differ in marker and line style."""
    lines = {line.get_label(): line for line in axes.lines}
    for (name, column), collection in zip(columns.items(), axes.collections, strict=True):
        np.testing.assert_allclose(lines[name].get_ydata(), scale * layers[column])
        band = collection.get_paths()[0].vertices
        for k in range(len(layers)):
            found = band[band[:, 0] == k, 1]
            expected = scale * layers.loc[k, [f"{column}_low", f"{column}_high"]].astype(float)
            np.testing.assert_allclose([found.min(), found.max()], expected)
    looks = {(lines[name].get_marker(), lines[name].get_linestyle()) for name in columns}
    assert len(looks) == len(columns)


def test_figures_of_runs_of_an_older_version_have_no_intervals_of_units(drawn, tmp_path):
    run = finished_run(tmp_path / "run", videos=range(12), units=20)
    forget_new_columns(run)
    layers = read_layers(run).reset_index()
    figures.draw_profile(layers, None, "tiny")
    figures.draw_classes(layers.iloc[1], None, "stage2")
    assert len(drawn[0].axes) == 3  # there are no parts
    lines = {line.get_label(): line.get_ydata() for line in drawn[0].axes[2].lines}
    np.testing.assert_allclose(lines["joint"], 100 * layers["units_joint"] / 20)
    (axes,) = drawn[1].axes
    assert (
        not any(hasattr(c, "has_yerr") for c in axes.containers) and "interval" not in drawn[1].get_suptitle()
    )
