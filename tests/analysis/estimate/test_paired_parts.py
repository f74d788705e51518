"""Differences of the parts between runs: against loops over videos, and their coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from bench.decomposition import DESIGNS, LEVEL, estimate
from static_dynamic.analysis.estimate.decomposition import PARTS
from static_dynamic.analysis.estimate.jackknife import Jackknife
from static_dynamic.analysis.estimate.paired_parts import PairedParts, columns
from static_dynamic.analysis.run.store import Store
from tests.analysis.estimate.slow_decomposition import kept_cells, parts_of
from tests.analysis.finished import finished_run

NETWORKS = {"a": range(0, 9), "b": range(3, 12), "c": range(20, 26)}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Runs of three networks: a and b have six videos in common, c has other videos."""
    root = tmp_path_factory.mktemp("runs")
    return {
        name: Store.open(finished_run(root / name, model=name, videos=videos, units=5, styles=(1, 2, 3)))
        for name, videos in NETWORKS.items()
    }


def pseudo_values(store, videos):
    """Pseudo-values of the layer's parts (videos, 4), by leaving out one video after another."""
    views, rows = store.views, store.activations("stage1").astype(float)

    def layer(left_out=None):
        own = views["clip"].isin([v for v in videos if v != left_out])
        keys = list(
            zip(views["clip"], views["style"], (views["order"] != "forward").astype(int), strict=True)
        )
        cells = [
            kept_cells({key: y for key, y, kept in zip(keys, rows[:, u], own, strict=True) if kept})
            for u in range(1, 5)  # unit 0 is dead
        ]
        return np.mean([parts_of(unit) for unit in cells], axis=0)

    n = len(videos)
    return n * layer() - (n - 1) * np.array([layer(video) for video in videos])


def expect(found, estimate, error, df):
    half = student.ppf(0.975, df) * error
    for k, part in enumerate(PARTS):
        given = [found[f"{part}{end}"] for end in ("", "_low", "_high")]
        np.testing.assert_allclose(
            given, [estimate[k], estimate[k] - half[k], estimate[k] + half[k]], atol=1e-7
        )


def test_runs_with_common_videos_are_compared_video_by_video(stores):
    parts = PairedParts([stores["a"], stores["b"]], [0, 0])
    common = [str(v) for v in range(3, 9)]
    difference = pseudo_values(stores["a"], common) - pseudo_values(stores["b"], common)
    error = difference.std(0, ddof=1) / np.sqrt(6)
    found = parts.difference([(0, "stage1")], [(1, "stage1")])
    expect(found, difference.mean(0), error, 5)
    both = (pseudo_values(stores["a"], common) + pseudo_values(stores["b"], common)) / 2
    found = parts.mean([(0, "stage1"), (1, "stage1")])
    expect(found, both.mean(0), both.std(0, ddof=1) / np.sqrt(6), 5)


@pytest.mark.parametrize(("other", "data"), [("c", [0, 0]), ("b", [0, 1])])
def test_errors_of_other_videos_add_up(stores, other, data):
    """Videos of equal name in another data set are other videos."""
    parts = PairedParts([stores["a"], stores[other]], data)
    values = [pseudo_values(stores[name], [str(v) for v in NETWORKS[name]]) for name in ("a", other)]
    error = np.sqrt(sum(x.var(0, ddof=1) / len(x) for x in values))
    found = parts.difference([(0, "stage1")], [(1, "stage1")])
    expect(found, values[0].mean(0) - values[1].mean(0), error, min(map(len, values)) - 1)


def test_runs_without_parts_have_no_columns(stores, tmp_path):
    paper = Store.open(finished_run(tmp_path / "paper", videos=range(8), pairs="paper"))
    parts = PairedParts([stores["a"], paper], [0, 0])
    assert parts.difference([(0, "stage1")], [(1, "stage1")]) == {} == parts.mean([(1, "stage1")])


def test_intervals_of_paired_differences_hold():
    """Two networks see the same videos; the second one adds noise of its own."""
    design = DESIGNS[0]
    truth = design.truth.mean(1)
    noisy = design.planted + np.array([[0], [0], [0], [0.5]])
    change = (noisy / noisy.sum(0)).mean(1) - truth
    held, widths = [], []
    for run in range(200):
        rng = np.random.default_rng([run, 3])
        y, table = design.simulate(24, rng, design.planted), design.table(24, rng)
        other = y + np.sqrt(0.5) * rng.standard_normal(y.shape)
        one, two = (estimate(x, table).layer for x in (other, y))
        paired = Jackknife(one.estimate - two.estimate, one.deviation - two.deviation)
        row = pd.Series(columns(paired, 24, LEVEL))
        low, high = (row[[f"{part}_{end}" for part in PARTS]].to_numpy(float) for end in ("low", "high"))
        held.append((low <= change) & (change <= high))
        widths.append([(high - low).sum(), 2 * student.ppf(0.975, 23) * np.hypot(one.error, two.error).sum()])
    assert (np.abs(np.mean(held, axis=0) - 0.95) < 0.045).all()
    narrow, unpaired = np.mean(widths, axis=0)
    assert narrow < 0.8 * unpaired  # pairing by video pays
