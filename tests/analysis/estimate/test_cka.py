"""Unbiased linear CKA against sums over tuples written with loops, and on planted geometries."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import ortho_group

from static_dynamic.analysis.estimate.information import cka
from static_dynamic.analysis.estimate.information.cka import (
    ReplicateWeights,
    WeightedGram,
    batches,
    gram_matrices,
    gram_matrix,
    permuted_hsic,
    stage_cka,
)
from static_dynamic.analysis.estimate.intervals import bootstrap_weights, interval
from static_dynamic.analysis.estimate.pairs import pairs_of_factor
from static_dynamic.analysis.run.store import Store
from tests.analysis.simulated import effects, independent, write_run


def oracle(k, l, w):  # noqa: E741
    """Song et al. 2012, eq. 5, tuple by tuple, each weighted by the product of its samples' weights."""
    total = weight = 0.0
    for c, d, e, g in permutations(range(len(k)), 4):
        product = w[c] * w[d] * w[e] * w[g]
        total += product * (k[c, d] * l[c, d] + k[c, d] * l[e, g] - 2 * k[c, d] * l[c, e])
        weight += product
    return total / weight


def hsic(k, l, weights):  # noqa: E741
    weights = ReplicateWeights(weights)
    return cka.hsic(WeightedGram(k, weights), WeightedGram(l, weights), weights)


def two_gram_matrices(n, seed=0, units=3):
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((n, units)) + 3
    return gram_matrix(x), gram_matrix(x + draw.standard_normal((n, units)))


@pytest.mark.parametrize("n", [4, 7])
def test_hsic_is_that_of_all_tuples(n):
    k, l = two_gram_matrices(n)  # noqa: E741
    weights = np.vstack([np.ones(n), bootstrap_weights(n, 6, 1)])
    for w, found in zip(weights, hsic(k, l, weights), strict=True):
        if (w > 0).sum() < 4:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(oracle(k, l, w), rel=1e-9)


def test_hsic_does_not_see_means_and_matches_its_matrix_form():
    draw = np.random.default_rng(2)
    x, y = draw.standard_normal((2, 9, 4))
    k, l = (z @ z.T for z in (x + 5, y - 3))  # noqa: E741
    for kernel in (k, l):
        np.fill_diagonal(kernel, 0)
    n, one = 9, np.ones(9)
    matrix = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    matrix = (matrix - 2 / (n - 2) * one @ k @ l @ one) / (n * (n - 3))
    assert hsic(gram_matrix(x), gram_matrix(y), np.ones((1, 9)))[0] == pytest.approx(matrix, rel=1e-9)


def test_permuted_hsic_is_that_of_permuted_samples():
    k, l = two_gram_matrices(8, 3)  # noqa: E741
    orders = np.stack([np.random.default_rng(p).permutation(8) for p in range(5)])
    slow = [hsic(k, l[order][:, order], np.ones((1, 8)))[0] for order in orders]
    np.testing.assert_allclose(permuted_hsic([(k, l)], orders)[0], slow)


def test_hsic_is_unbiased_with_more_units_than_samples():
    found = [hsic(*independent_gram_matrices(seed), np.ones((1, 6)))[0] for seed in range(2000)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


def independent_gram_matrices(seed):
    x, y = np.random.default_rng(seed).standard_normal((2, 6, 40))
    return gram_matrix(x), gram_matrix(y)


def cka_of(run, f=0, n_boot=100, **options):
    store = Store.open(run)
    pairs = pairs_of_factor(store.finished_pairs(), f, store.views)
    weights = bootstrap_weights(pairs.clusters, n_boot, 0)
    return stage_cka(store.activations("stage1"), pairs, weights, 99, 0, 0.95, **options)


def test_the_estimate_of_a_stage_is_that_of_loops(tmp_path):
    """Clips of a cluster averaged, slots averaged, interval over clusters."""
    run = write_run(tmp_path / "run", effects(1, units=5), 14, clips_a_cluster=2)
    store = Store.open(run)
    pairs, rows = store.finished_pairs(), store.activations("stage1").astype(float)
    own = pairs[pairs["factor"] == 0]
    own = own.assign(slot=own.groupby("clip").cumcount())
    weights = np.vstack([np.ones(7), bootstrap_weights(7, 15, 0)])
    values = []
    for w in weights:
        ratios = []
        for _, slot in own.groupby("slot"):
            x, y = (
                np.stack([rows[found[m]].mean(0) for _, found in slot.groupby("cluster")]) for m in ("a", "b")
            )
            k, l = x @ x.T, y @ y.T  # noqa: E741
            if (w > 0).sum() >= 4:
                xy, xx, yy = (oracle(p, q, w) for p, q in ((k, l), (k, k), (l, l)))
                ratios += [xy / np.sqrt(xx * yy)] if xx > 0 and yy > 0 else []
        values.append(np.mean(ratios) if ratios else np.nan)
    found = cka_of(run, n_boot=15)
    assert found["value"] == pytest.approx(values[0], rel=1e-6)
    low, high = interval(values[0], np.array(values[1:]), 7, 0.95)
    assert [found["low"], found["high"]] == pytest.approx([low, high], rel=1e-5)


def test_rotations_change_nothing_and_noise_does(tmp_path):
    draw = effects(2, units=6, style=0, order=0, noise=0, fixed=0)
    turn = ortho_group.rvs(6, random_state=3)

    def rotated(views):  # every style its own rotation
        rows = draw(views)
        odd = views["style"].to_numpy() % 2 == 1
        rows[odd] = 3 * rows[odd] @ turn
        return rows

    same = cka_of(write_run(tmp_path / "a", rotated, 30))
    assert same["value"] == pytest.approx(1, abs=1e-5) and same["p"] == 0.01
    apart = cka_of(write_run(tmp_path / "b", independent(4, units=40), 30))
    assert abs(apart["value"]) < 0.15 and apart["p"] > 0.05
    assert apart["low"] < 0 < apart["high"]


def test_a_gram_matrix_that_slots_share_is_computed_once(tmp_path):
    """Four styles: six dynamic pairs of four views."""
    store = Store.open(write_run(tmp_path / "run", effects(1), 12, clips_a_cluster=2))
    pairs = pairs_of_factor(store.finished_pairs(), 0, store.views)
    rows = store.activations("stage1")
    matrices, compared = gram_matrices(rows, pairs, pairs.slots(), np.array([1, 3, 4, 5]))
    assert len(matrices) == 4 and len(set(compared)) == 6
    for slot, two in zip(pairs.slots(), compared, strict=True):
        own = slot[np.isin(pairs.cluster[slot], [1, 3, 4, 5])]
        for member, number in zip((pairs.a, pairs.b), two, strict=True):
            x = rows[member[own]].astype(float).reshape(4, 2, -1).mean(1)
            np.testing.assert_allclose(matrices[number], gram_matrix(x), atol=1e-9)


def test_replicates_and_permutations_come_in_parts(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", effects(5), 20)
    whole = cka_of(run)
    monkeypatch.setattr("static_dynamic.analysis.estimate.information.cka.REPLICATES_AT_A_TIME", 7)
    monkeypatch.setattr("static_dynamic.analysis.estimate.information.cka.ORDERS_AT_A_TIME", 5)
    assert cka_of(run) == pytest.approx(whole)


def test_batches_hold_every_cluster_once(tmp_path, monkeypatch):
    parts = batches(1000, 3)
    assert sorted(np.concatenate(parts)) == list(range(1000)) and max(map(len, parts)) == 250
    run = write_run(tmp_path / "run", effects(5), 60)
    whole = cka_of(run)["value"]
    monkeypatch.setattr("static_dynamic.analysis.estimate.information.cka.BATCH", 20)
    assert cka_of(run)["value"] == pytest.approx(whole, abs=0.1)


def test_what_has_no_cka(tmp_path):
    few = cka_of(write_run(tmp_path / "few", effects(1), 3))
    dead = cka_of(write_run(tmp_path / "dead", lambda v: np.full((len(v), 3), 0.1), 8))
    assert np.isnan([few["value"], few["p"], dead["value"], dead["low"]]).all()


def test_clips_without_all_pairs_are_left_out(tmp_path):
    store = Store.open(write_run(tmp_path / "run", effects(1), 5))
    pairs = store.finished_pairs().drop(index=0)
    slots = pairs_of_factor(pairs, 0, store.views).slots()
    assert [len(slot) for slot in slots] == [4] * 6
