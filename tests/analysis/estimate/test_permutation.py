"""Permutation test: the fast path against loops, p-values that are uniform where nothing is shared and small
where something is."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from static_dynamic.analysis import estimate_pairs, estimate_run
from static_dynamic.analysis.estimate.moments import Moments
from static_dynamic.analysis.estimate.pairs import pairs_of_factor
from static_dynamic.analysis.estimate.permutation import (
    TIE,
    p_value,
    permute_clusters,
    permuted_means,
    score_p_values,
)
from static_dynamic.analysis.run.store import Store
from tests.analysis.simulated import effects, independent, write_run


def permuted(pairs: pd.DataFrame, order: np.ndarray, f: int) -> pd.DataFrame:
    """The table with the second members of factor f in another order, written with a loop."""
    table = pairs.sort_values(["cluster", "clip"], kind="stable").copy()
    own = np.flatnonzero(table["factor"] == f)
    second = table["b"].to_numpy().copy()
    for position, place in enumerate(own):
        second[place] = table["b"].iloc[own[order[position]]]
    return table.assign(b=second)


@pytest.mark.parametrize("clips_a_cluster", [1, 3])
def test_p_values_are_those_of_permuted_pairs(tmp_path, clips_a_cluster):
    def draw(views):
        rows = effects(2, units=5)(views) + 100
        rows[:, 3] = np.round(rows[:, 3])  # ties
        rows[:, 4] = 7.0  # dead
        return rows

    run = write_run(tmp_path / "run", draw, 14, clips_a_cluster=clips_a_cluster)
    r = estimate_run(run, n_boot=20, seed=4, n_permutations=40)
    store = Store.open(run)
    rows, pairs = store.activations("stage1"), store.finished_pairs()
    whole = estimate_pairs(rows[pairs["a"]], rows[pairs["b"]], pairs["factor"])
    for f, name in enumerate(("dynamic", "static")):
        orders = permute_clusters(pairs_of_factor(pairs, f).cluster, 40, (4, f))
        assert len(np.unique(orders, axis=0)) > 20
        drawn = []
        for order in orders:
            table = permuted(pairs, order, f)
            drawn.append(estimate_pairs(rows[table["a"]], rows[table["b"]], table["factor"]))
        layer = np.array([e.scores[f] for e in drawn])
        assert r.layers.iloc[0][f"p_{name}"] == (1 + (layer >= whole.scores[f] - TIE).sum()) / 41
        units = np.array([e.unit_scores[f] for e in drawn])[:, :4]
        point = whole.unit_scores[f][:4] - TIE
        np.testing.assert_array_equal(r.units[f"p_{name}"][:4], (1 + (units >= point).sum(0)) / 41)
        family = (1 + (units.max(1)[:, None] >= point).sum(0)) / 41
        np.testing.assert_array_equal(r.units[f"p_family_{name}"][:4], family)
    assert r.units[["p_dynamic", "p_family_static"]].iloc[4].isna().all()
    assert r.layers["permutations"].iloc[0] == 40


def test_whole_clusters_change_places():
    cluster = np.repeat(np.arange(5), 3)
    for order in permute_clusters(cluster, 20, (1,)):
        assert sorted(order) == list(range(15))
        np.testing.assert_array_equal(order.reshape(5, 3) % 3, np.tile([0, 1, 2], (5, 1)))
    assert permute_clusters(np.zeros(4, int), 20, (1,)).shape == (0, 4)
    uneven = permute_clusters(np.array([0, 1, 1, 1, 2, 2]), 50, (1,))
    assert all("123" in "".join(map(str, order)) and "45" in "".join(map(str, order)) for order in uneven)
    np.testing.assert_array_equal(permute_clusters(cluster, 3, (1,)), permute_clusters(cluster, 3, (1,)))


def test_the_fast_means_are_those_of_a_gather():
    draw = np.random.default_rng(0)
    za, zb = draw.standard_normal((2, 300, 7)).astype(np.float32)
    orders = permute_clusters(np.arange(300) // 4, 5, (2,))
    slow = [(za.astype(float) * zb.astype(float)[order]).mean(0) for order in orders]
    np.testing.assert_allclose(permuted_means(za, zb, orders), slow, atol=1e-6)


def test_p_values_count_themselves():
    null = np.array([0.1, 0.2, 0.3])
    assert p_value(0.25, null) == 0.5 and p_value(9, null) == 0.25 and p_value(-1, null) == 1
    assert p_value(0.3, null) == 0.5  # a tie is no smaller
    assert np.isnan(p_value(0.25, np.empty(0))) and np.isnan(p_value(np.nan, null))
    np.testing.assert_array_equal(p_value(np.array([0.0, 0.25, np.nan]), null[:, None]), [1, 0.5, np.nan])


def test_where_nothing_is_shared_p_values_are_uniform(tmp_path):
    store = Store.open(write_run(tmp_path / "run", independent(0, units=4), 20, "both"))
    pairs = store.finished_pairs()
    factors = [pairs_of_factor(pairs, f) for f in (0, 1)]
    cluster = np.unique(pairs["cluster"], return_inverse=True)[1]
    p, least = [], []
    for seed in range(300):
        rows = np.random.default_rng(seed).standard_normal((len(store.status), 4)).astype(np.float32)
        orders = [permute_clusters(factor.cluster, 99, (seed, f)) for f, factor in enumerate(factors)]
        whole = Moments.per_cluster(rows, pairs, cluster, 20).over_clusters()
        p_layer, p_unit, p_family = score_p_values(rows, factors, orders, whole)
        p += [p_layer[0], p_unit[1, 0]]
        least.append(p_family[1].min())
    # as many values as permutations allow, each as likely as the others
    assert kstest(np.array(p) - 0.005, "uniform").pvalue > 0.05
    assert 0.02 <= np.mean(np.array(least) <= 0.05) <= 0.08


def test_a_planted_signal_has_a_small_p(tmp_path):
    def draw(views):
        rows = independent(3)(views)
        rows[:, 2] = 3 * effects(3, units=1, style=0, order=0, fixed=0)(views)[:, 0]
        return rows

    r = estimate_run(write_run(tmp_path / "run", draw, 30), n_boot=20, n_permutations=199)
    assert r.layers.iloc[0]["p_dynamic"] == r.layers.iloc[0]["p_static"] == 1 / 200
    assert r.units["p_family_dynamic"][2] == r.units["p_family_static"][2] == 1 / 200
    assert (r.units["p_family_dynamic"].drop(2) > 1 / 200).all()


def test_a_factor_of_one_video_has_no_p_value(tmp_path):
    store = Store.open(write_run(tmp_path / "run", effects(1), 8))
    pairs = store.finished_pairs()
    pairs = pairs[(pairs["factor"] == 0) | (pairs["clip"] == "c0000")]
    factors = [pairs_of_factor(pairs, f) for f in (0, 1)]
    orders = [permute_clusters(factor.cluster, 20, (1,)) for factor in factors]
    rows, cluster = store.activations("stage1"), np.unique(pairs["cluster"], return_inverse=True)[1]
    whole = Moments.per_cluster(rows, pairs, cluster, 8).over_clusters()
    p_layer, p_unit, p_family = score_p_values(rows, factors, orders, whole)
    assert np.isfinite([p_layer[0], *p_unit[0], *p_family[0]]).all()
    assert np.isnan([p_layer[1], *p_unit[1], *p_family[1]]).all()


def test_one_video_has_no_p_value(tmp_path):
    run = write_run(tmp_path / "run", effects(1), 3, clips_a_cluster=3)
    r = estimate_run(run, n_boot=20, n_permutations=20)
    assert np.isnan(r.layers.iloc[0]["p_dynamic"]) and r.units["p_family_static"].isna().all()
    assert "p_dynamic" not in estimate_run(run, n_boot=20).layers
