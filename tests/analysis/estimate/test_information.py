"""Information in bits: against loops and formulas, known truths, p-values, and what cannot be estimated."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import digamma
from scipy.stats import norm, rankdata
from scipy.stats import t as student_t

from static_dynamic.analysis import estimate_information, estimate_pairs, estimate_run
from static_dynamic.analysis.estimate.bits import gaussian_bits
from static_dynamic.analysis.estimate.information.gaussian import (
    TRANSFORMS,
    correlation,
    normal_scores,
    rank_bias,
    transformed,
    unit_information,
)
from static_dynamic.analysis.estimate.information.neighbours import local_bits, neighbour_information
from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.estimate.pairs import FactorPairs, pairs_of_factor
from static_dynamic.analysis.estimate.sign_flips import TIE, draw_signs, inflation
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError
from tests.analysis.simulated import effects, independent, pairs_and_rows, write_run

RHO = 0.6
BITS = -0.5 * np.log2(1 - RHO**2)


def pairs_apart(n):
    """Pairs that each are a cluster of their own: rows 0 .. n - 1 with n .. 2 n - 1."""
    k, zero, one = np.arange(n), np.zeros(n, int), np.ones(n, int)
    return FactorPairs(k, n + k, k, k, zero, one, zero, one, zero, k)


def correlated(n, seed, rho=RHO, units=1):
    a, e = np.random.default_rng(seed).standard_normal((2, n, units))
    return np.concatenate([a, rho * a + np.sqrt(1 - rho**2) * e]).astype(np.float32)


def bits_of_units(rows, n, transform=TRANSFORMS["gaussian"], n_boot=200):
    no_signs = np.empty((0, n))
    return unit_information(rows, pairs_apart(n), bootstrap_weights(n, n_boot, 0), no_signs, transform, 0.95)


@pytest.mark.parametrize("transform", TRANSFORMS.values())
def test_planted_units_share_the_bits_that_they_should(transform):
    layer, units = bits_of_units(correlated(1500, 1, units=20), 1500, transform)
    assert layer["value"] == pytest.approx(BITS, abs=0.01)
    assert ((units["low"] <= BITS) & (BITS <= units["high"])).mean() >= 0.8
    assert units["value"].mean() == pytest.approx(layer["value"])


def test_the_copula_sees_through_a_distortion():
    rows = correlated(1000, 2, rho=0.9)
    bent = np.exp(3 * rows)
    straight = bits_of_units(rows, 1000, normal_scores)[0]["value"]
    assert bits_of_units(bent, 1000, normal_scores)[0]["value"] == pytest.approx(straight, rel=1e-6)
    assert bits_of_units(bent, 1000)[0]["value"] < straight - 0.3


@pytest.mark.parametrize("most", [1, 4])
def test_normal_scores_are_quantiles_of_ranks(most):
    draw = np.random.default_rng(0)
    x = draw.standard_normal((30, 4))
    x[:, 1] = np.round(x[:, 1])
    x[:, 2] = 4
    x[:, 3] = np.maximum(x[:, 3], 0)
    counts = draw.integers(1, most + 1, 30)
    n = counts.sum()
    found = normal_scores(x, counts)
    for u, column in enumerate(x.T):
        every = np.repeat(column, counts)
        ranks = [np.mean([k + 1 for k, v in enumerate(sorted(every)) if v == value]) for value in column]
        np.testing.assert_allclose(found[:, u], norm.ppf(np.array(ranks) / (n + 1)), atol=1e-12)
        np.testing.assert_allclose(np.repeat(ranks, counts), rankdata(every))


def test_views_of_several_pairs_are_ranked_as_often(tmp_path):
    pairs, rows = pairs_and_rows(tmp_path, effects(1), 10)
    slow = norm.ppf(rankdata(rows[pairs.b], axis=0) / (len(pairs.b) + 1))
    np.testing.assert_allclose(transformed(rows, pairs.b, normal_scores), slow, atol=1e-12)


def flips_by_loops(za, zb, groups, signs, scale):
    """Correlations of one unit's pairs without the means of `groups`: of the sample, and of each flip."""
    centred = []
    for z, group in zip((za, zb), groups, strict=True):
        means = {g: np.mean([v for v, other in zip(z, group, strict=True) if other == g]) for g in group}
        centred.append([v - means[g] for v, g in zip(z, group, strict=True)])
    a, b = centred
    length = np.sqrt(sum(v**2 for v in a) * sum(v**2 for v in b))
    products = [x * y / length for x, y in zip(a, b, strict=True)]
    flipped = [sum(sign * q for sign, q in zip(flip, products, strict=True)) for flip in signs]
    return abs(sum(products)), [min(1, scale * abs(r)) for r in flipped]


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("f", [0, 1])
@pytest.mark.parametrize("options", [{}, {"clips_a_cluster": 3}, {"pairs": "paper"}, {"pairs": "both"}])
def test_p_values_of_bits_are_those_of_loops(tmp_path, name, f, options):
    draw = effects(2, units=5, clip=0.3, style=0.2, order=0.2, noise=1)
    store = Store.open(write_run(tmp_path / "run", draw, 14, **options))
    views, rows = store.views, store.activations("stage1").astype(float)
    rows[:, 3] = 0.3  # dead
    pairs = pairs_of_factor(store.finished_pairs().drop(index=[0, 3, 9, 11]), f, views)
    keys = list(zip(views["style"], views["order"], strict=True))
    groups = [[keys[row] for row in member] for member in (pairs.a, pairs.b)]
    signs = draw_signs(pairs, 39, (1,))
    weights = bootstrap_weights(pairs.clusters, 10, 0)
    layer, units = unit_information(rows, pairs, weights, signs, TRANSFORMS[name], 0.95)
    seen_bits, null_bits = 0, np.zeros(39)
    for u in (0, 1, 2, 4):
        za, zb = rows[pairs.a, u], rows[pairs.b, u]
        if name == "copula":
            za, zb = (norm.ppf(rankdata(z) / (len(z) + 1)) for z in (za, zb))
        seen, null = flips_by_loops(za, zb, groups, signs, inflation(pairs))
        assert units["p"][u] == (1 + sum(r >= seen - TIE for r in null)) / 40
        seen_bits += -0.5 * np.log2(1 - seen**2) / 4
        null_bits += gaussian_bits(np.array(null)) / 4
    assert layer["p"] == (1 + sum(null_bits >= seen_bits - TIE)) / 40
    assert np.isnan(units["p"][3])


def test_what_ranks_lose_is_given_back():
    """Videos ranked among themselves seem to share less than they do as they are (here normal)."""
    pairs, errors = pairs_apart(100), []
    for seed in range(8):
        r = correlated(100, seed, rho=0.9, units=40).astype(float)
        za, zb = (transformed(r, member, normal_scores) for member in (pairs.a, pairs.b))
        found, truth = (np.arctanh(correlation(*two)) for two in ((za, zb), (r[:100], r[100:])))
        errors.append([(found - truth).mean(), (found + rank_bias(r, za, zb, pairs) - truth).mean()])
    without, given_back = np.mean(errors, axis=0)
    assert without < -0.015 and abs(given_back) < 0.4 * abs(without)
    same = np.concatenate([r[:24], r[:24]])
    scores = normal_scores(same[:24], np.ones(24, int))
    assert (rank_bias(same, scores, scores, pairs_apart(24)) == 0).all()


def test_the_correction_is_the_digamma_one_for_independent_pairs():
    """Ince et al. 2017: psi((n - 2) / 2) / 2 less psi((n - 1) / 2) / 2, in bits; and nothing shared averages
    to zero."""
    n = 40
    rows = np.random.default_rng(3).standard_normal((2 * n, 3000)).astype(np.float32)
    _, units = bits_of_units(rows, n, n_boot=400)
    taken_off = (units["plug_in"] - units["value"]).mean()
    theirs = (digamma((n - 1) / 2) - digamma((n - 2) / 2)) / (2 * np.log(2))
    assert taken_off == pytest.approx(theirs, rel=0.15)
    assert abs(units["value"].mean()) < 0.1 * units["plug_in"].mean()


def test_gaussian_bits_are_those_of_the_unit_scores(tmp_path):
    def draw(views):
        rows = effects(1, units=6)(views) + 50
        rows[:, 2] = np.round(rows[:, 2])
        rows[:, 3] = 0.1
        rows[views["clip"] != "c0003", 5] = 0  # varies in one video
        return rows

    run = write_run(tmp_path / "run", draw, 15, clips_a_cluster=2)
    r = estimate_information(run, n_boot=60, seed=2, n_permutations=20)
    store = Store.open(run)
    rows, pairs = store.activations("stage1"), store.finished_pairs()
    names = sorted(set(pairs["cluster"]))
    weights = bootstrap_weights(len(names), 60, 2)
    scores = []
    for w in [np.ones(len(names)), *weights]:
        drawn = pd.concat([pairs[pairs["cluster"] == k] for k in np.repeat(names, w.astype(int))])
        scores.append(estimate_pairs(rows[drawn["a"]], rows[drawn["b"]], drawn["factor"]).unit_scores)
    for f, factor in enumerate(("dynamic", "static")):
        bits = -0.5 * np.log2(1 - np.array([s[f] for s in scores]) ** 2)
        units = r.units.query("factor == @factor and measure == 'gaussian'")
        bits[:, 5] = np.nan
        np.testing.assert_allclose(units["plug_in"], bits[0], rtol=1e-6)
        np.testing.assert_allclose(units["value"], 2 * bits[0] - bits[1:].mean(0), rtol=1e-5)
        assert np.isnan(units["value"].iloc[3]) and np.isnan(units["p"].iloc[3])
        layer = r.layers.query("factor == @factor and measure == 'gaussian'").iloc[0]
        assert layer["value"] == pytest.approx(np.nanmean(2 * bits[0] - bits[1:].mean(0)), rel=1e-6)
        # the same numbers stand in the tables of the main job
        main = estimate_run(run, n_boot=60, seed=2)
        assert main.layers.iloc[0][f"bits_{factor}"] == pytest.approx(layer["value"], rel=1e-6)
        assert main.layers.iloc[0][f"bits_{factor}_low"] == pytest.approx(layer["low"], rel=1e-5)
        np.testing.assert_allclose(main.units[f"bits_{factor}"], units["value"], rtol=1e-5)


def test_members_that_are_the_same_share_without_bound(tmp_path):
    run = write_run(tmp_path / "run", effects(1, style=0, order=0, noise=0, fixed=0), 24)
    layers = estimate_information(run, n_boot=30, n_permutations=20).layers.set_index(["factor", "measure"])
    assert np.isinf(layers.loc[("static", "gaussian"), ["value", "low", "high"]].astype(float)).all()
    assert np.isinf(layers.loc[("dynamic", "subspace"), "value"])
    assert layers.loc[("static", "cka"), "value"] == pytest.approx(1)
    subspace = layers.index.get_level_values("measure") == "subspace"
    assert (layers["p"][~subspace] == 1 / 21).all() and (layers["p"] <= 2 / 21).all()
    np.testing.assert_array_equal(gaussian_bits(np.array([1, -1, 0, np.nan])), [np.inf, np.inf, 0, np.nan])


@pytest.mark.parametrize("k", [1, 3])
def test_neighbours_are_counted_one_by_one(k):
    draw = np.random.default_rng(7)
    x, y = draw.standard_normal((2, 60))
    y += x
    slow = []
    for i in range(60):
        far = np.maximum(abs(x - x[i]), abs(y - y[i]))
        eps = np.sort(np.delete(far, i))[k - 1]
        nx, ny = (sum(abs(v[j] - v[i]) < eps for j in range(60) if j != i) for v in (x, y))
        slow.append(digamma(k) + digamma(60) - digamma(nx + 1) - digamma(ny + 1))
    np.testing.assert_allclose(local_bits(x, y, k), np.array(slow) / np.log(2))


def test_neighbours_find_planted_bits_and_what_no_correlation_shows(tmp_path):
    rows = correlated(2000, 8)[:, 0]
    assert local_bits(rows[:2000], rows[2000:]).mean() == pytest.approx(BITS, abs=0.05)
    x = np.random.default_rng(9).standard_normal(2000)
    assert local_bits(x, x**2 + 0.1 * np.random.default_rng(10).standard_normal(2000)).mean() > 1


def test_neighbours_have_the_interval_of_the_jackknife():
    n, rows = 12, correlated(12, 3)
    pairs = pairs_apart(n)
    found = neighbour_information(rows[:n, 0], rows[n:, 0], pairs, 0, 0, 0.95)
    x, y = (norm.ppf(rankdata(z[:, 0]) / (n + 1)) for z in (rows[:n], rows[n:]))
    left = [local_bits(np.delete(x, i), np.delete(y, i)).mean() for i in range(n)]
    error = np.sqrt((n - 1) / n * ((left - np.mean(left)) ** 2).sum())
    value = local_bits(x, y).mean()
    half = student_t.ppf(0.975, n - 1) * error
    assert [found[k] for k in ("value", "low", "high")] == pytest.approx(
        [value, value - half, value + half], abs=1e-6
    )


def test_p_values_tell_signal_from_nothing(tmp_path):
    def draw(views):
        rows = independent(11, units=8)(views)
        rows[:, 5] = 3 * effects(11, units=1, style=0, order=0, fixed=0)(views)[:, 0]
        return rows

    run = write_run(tmp_path / "run", draw, 60)
    r = estimate_information(run, n_boot=50, n_permutations=99, units={"stage1": [5, 6]})
    units = r.units.set_index(["factor", "measure", "unit"])
    for factor in ("dynamic", "static"):
        for measure in ("gaussian", "copula", "neighbours"):
            assert units.loc[(factor, measure, 5), "p"] == 0.01
            assert units.loc[(factor, measure, 6), "p"] > 0.01
    assert set(r.layers["measure"]) == {"gaussian", "copula", "subspace", "cka"}
    assert (r.layers["p"] == 0.01).all() and (r.layers["clusters"] == 60).all()
    assert (r.layers["low"] <= r.layers["value"]).all()


def test_one_video_has_point_estimates_alone(tmp_path):
    layers = estimate_information(
        write_run(tmp_path / "run", effects(1), 3, clips_a_cluster=3), n_boot=10, n_permutations=10
    ).layers.set_index("measure")
    assert np.isfinite(layers.loc["gaussian", "plug_in"]).all() and layers[["low", "p"]].isna().all(axis=None)


def test_what_cannot_be_estimated_is_refused(tmp_path):
    run = write_run(tmp_path / "run", effects(1), 6)
    with pytest.raises(UserError, match="units 0 to 11, not 12"):
        estimate_information(run, units={"stage1": [12]})
    with pytest.raises(UserError, match="has no stage 'stage9'"):
        estimate_information(run, units={"stage9": [1]})

    def broken(views):
        rows = effects(1)(views)
        rows[3, 2] = np.nan
        return rows

    with pytest.raises(UserError, match="activations of stage1 hold NaN"):
        estimate_information(write_run(tmp_path / "broken", broken, 6))
    store = Store.open(run)
    assert pairs_of_factor(store.finished_pairs(), 1, store.views).clusters == 6
