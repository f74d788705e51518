"""The sign-flip test: against loops, its size where pairs share nothing, and its power."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from bench.coverage import sizes
from bench.simulated import DESIGNS, Design
from static_dynamic.analysis import estimate_run
from static_dynamic.analysis.estimate.moments import Moments
from static_dynamic.analysis.estimate.pairs import pairs_of_factor
from static_dynamic.analysis.estimate.sign_flips import (
    TIE,
    draw_signs,
    inflation,
    p_value,
    score_p_values,
)
from static_dynamic.analysis.run.store import Store
from tests.analysis.manifests import forget_checks
from tests.analysis.simulated import effects, independent, write_run


def oracle(rows, views, pairs, factor, signs_of):
    """Return the unit statistics of one factor, and the layer's, by a loop over pairs.

    `signs_of` are the signs of (cluster, strand).
    """
    own = pairs[pairs["factor"] == factor]
    group = list(zip(views["style"], views["order"], strict=True))
    z = {}
    for member in ("a", "b"):
        values = rows[own[member]].astype(float)
        groups = [group[row] for row in own[member]]
        for key in set(groups):
            same = np.array([g == key for g in groups])
            values[same] -= values[same].mean(0)
        z[member] = values
    q, w = defaultdict(float), defaultdict(float)
    for i, (_, pair) in enumerate(own.iterrows()):
        strands = (views["style"][pair["a"]], views["style"][pair["b"]]) if factor == 0 else (0, 1)
        sign = np.prod([signs_of[pair["cluster"], strand] for strand in strands])
        q[pair["cluster"]] += sign * z["a"][i] * z["b"][i]
        w[pair["cluster"]] += (z["a"][i] ** 2 + z["b"][i] ** 2) / 2
    total = sum(q.values())
    scale = np.sqrt(sum(half**2 for half in w.values()))
    return np.divide(total, scale, out=np.zeros_like(total), where=scale > 0), total.sum()


@pytest.mark.parametrize(("pairs", "clips_a_cluster"), [("factorial", 1), ("factorial", 3), ("both", 2)])
def test_p_values_are_those_of_loops(tmp_path, pairs, clips_a_cluster):
    def draw(views):
        rows = effects(2, units=5)(views) + 100
        rows[:, 3] = np.round(rows[:, 3])  # ties
        rows[:, 4] = 7.0  # dead
        return rows

    run = write_run(tmp_path / "run", draw, 12, pairs, clips_a_cluster=clips_a_cluster)
    store = Store.open(run)
    skipped = store.pairs.index[[1, 5]]
    forget_checks(run)
    store.pairs.drop(index=skipped).to_parquet(run / "pairs.parquet")
    r = estimate_run(run, n_boot=20, seed=4, n_permutations=30)
    store = Store.open(run)
    rows, table, views = store.activations("stage1"), store.finished_pairs(), store.views
    for f, name in enumerate(("dynamic", "static")):
        factor = pairs_of_factor(table, f, views)
        strands = list(dict.fromkeys(views["style"])) if f == 0 else [0, 1]
        shape = (30, factor.clusters, 1 + max(factor.strand_a.max(), factor.strand_b.max()))
        drawn = 2 * np.random.default_rng([4, f]).integers(0, 2, shape) - 1
        signs = [{(n, s): 1 for n in factor.names for s in strands}]
        for flip in drawn:
            named = zip(factor.names, flip, strict=True)
            signs.append({(n, s): own[k] for n, own in named for k, s in enumerate(strands) if k < len(own)})
        statistics = [oracle(rows, views, table, f, by_strand) for by_strand in signs]
        units, layer = (np.array(part) for part in zip(*statistics, strict=True))
        units[1:] *= inflation(factor)
        layer[1:] *= inflation(factor)
        tie = TIE / 10
        np.testing.assert_allclose(
            r.units[f"p_{name}"][:4], (1 + (units[1:] >= units[0] - tie).sum(0))[:4] / 31
        )
        family = (1 + (units[1:, :4].max(1)[:, None] >= units[0] - tie).sum(0)) / 31
        np.testing.assert_allclose(r.units[f"p_family_{name}"][:4], family[:4])
        assert r.layers[f"p_{name}"][0] == (1 + (layer[1:] >= layer[0] - tie).sum()) / 31
    assert r.units[["p_dynamic", "p_family_static"]].iloc[4].isna().all()
    assert r.layers["permutations"][0] == 30


def test_flips_lack_the_correlation_that_subtracted_means_make(tmp_path):
    """The variance of a sum of products of n centred rows is n / (n - 1) times that of flipped products."""
    n, rng = 6, np.random.default_rng(0)
    a, b = rng.standard_normal((2, 20000, n))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    flips = rng.choice([-1, 1], (20000, n))
    ratio = (a * b).sum(1).var() / (flips * a * b).sum(1).var()
    store = Store.open(write_run(tmp_path / "run", independent(0), n))
    factor = pairs_of_factor(store.finished_pairs(), 1, store.views)
    assert ratio == pytest.approx(inflation(factor) ** 2, rel=0.04) == pytest.approx(n / (n - 1), rel=0.04)


def test_p_values_count_themselves():
    null = np.array([0.1, 0.2, 0.3])
    assert p_value(0.25, null) == 0.5 and p_value(9, null) == 0.25 and p_value(-1, null) == 1
    assert p_value(0.3, null) == 0.5  # a tie is no smaller
    assert np.isnan(p_value(0.25, np.empty(0))) and np.isnan(p_value(np.nan, null))
    np.testing.assert_array_equal(p_value(np.array([0.0, 0.25, np.nan]), null[:, None]), [1, 0.5, np.nan])


# Style shifts, but nothing shared: before sign flips, one skipped view made p_static <= 0.05 in 65 % of runs,
# four skipped views or pairs of two drawn styles in all runs.
@pytest.mark.parametrize(
    "design",
    [
        Design("1 view skipped", skipped=1),
        Design("4 views skipped", skipped=4),
        Design("pairs=both", pairs="both"),
        Design("pairs=paper", pairs="paper"),
        Design("several clips per video", clips_per_video=3),
        Design("loudness varies", "loudness varies"),
    ],
    ids=lambda design: design.name,
)
def test_without_shared_information_small_p_values_are_rare(design):
    for name, found in sizes(design, 24, 100).items():
        assert found <= 0.12, name  # 0.05 + 3.2 standard errors of 100 runs


def test_the_family_wise_error_holds_with_many_units():
    found = sizes(replace(DESIGNS[0], units=500), 24, 60, bits=False)
    assert found["family dynamic"] <= 0.12 and found["family static"] <= 0.12


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
    factors = [pairs_of_factor(pairs, f, store.views) for f in (0, 1)]
    signs = [draw_signs(factor, 20, (1,)) for factor in factors]
    rows, cluster = store.activations("stage1"), np.unique(pairs["cluster"], return_inverse=True)[1]
    whole = Moments.per_cluster(rows, pairs, cluster, 8).over_clusters()
    p_layer, p_unit, p_family = score_p_values(rows, factors, signs, whole)
    assert np.isfinite([p_layer[0], *p_unit[0], *p_family[0]]).all()
    assert np.isnan([p_layer[1], *p_unit[1], *p_family[1]]).all()


def test_one_video_has_no_p_value(tmp_path):
    run = write_run(tmp_path / "run", effects(1), 3, clips_a_cluster=3)
    r = estimate_run(run, n_boot=20, n_permutations=20)
    assert np.isnan(r.layers.iloc[0]["p_dynamic"]) and r.units["p_family_static"].isna().all()
    assert "p_dynamic" not in estimate_run(run, n_boot=20).layers
