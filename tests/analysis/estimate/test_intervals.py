"""The studentised interval of layer scores against replicates of drawn rows and jackknives by loops."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from static_dynamic.analysis import estimate_pairs, estimate_run
from static_dynamic.analysis.estimate.bits import bits_influence, bits_standard_errors, gaussian_bits
from static_dynamic.analysis.estimate.bootstrap import estimate_stage
from static_dynamic.analysis.estimate.intervals import (
    FEWEST_CLUSTERS,
    bootstrap_weights,
    cluster_scalars,
    standard_errors,
)
from static_dynamic.analysis.estimate.moments import Moments
from static_dynamic.analysis.run.store import Store
from tests.analysis.simulated import effects, jackknife_half, write_run

NAMES = ("score_dynamic", "score_static", "share_dynamic", "share_static", "share_residual")


def sums_of(run):
    store = Store.open(run)
    pairs = store.finished_pairs()
    names, cluster = np.unique(pairs["cluster"].to_numpy(), return_inverse=True)
    return Moments.per_cluster(store.activations("stage1"), pairs, cluster, len(names)), store, pairs


def statistics(rows, pairs):
    e = estimate_pairs(rows[pairs["a"]], rows[pairs["b"]], pairs["factor"])
    return np.array([*e.scores[:2], *e.shares])


def influences(x, weights):
    """What each cluster does to scores and shares, by numeric derivatives to its weight."""

    def value(w):
        n_d, c_d, n_s, c_s, q, c = w @ x
        scores = np.array([n_d / c_d, n_s / c_s, q / c])[:2] / (q / c)
        e = np.exp([*scores, 1])
        return np.array([*scores, *(e / e.sum())])

    step = 1e-5
    return np.stack(
        [(value(weights + step * k) - value(weights - step * k)) / (2 * step) for k in np.eye(len(x))]
    )


def test_the_interval_is_that_of_loops(tmp_path):
    run = write_run(tmp_path / "run", lambda v: effects(5, units=4)(v) + 30, 22, clips_a_cluster=2)
    layer = estimate_run(run, n_boot=40, seed=6).layers.iloc[0]
    sums, store, pairs = sums_of(run)
    rows, k = store.activations("stage1"), len(sums.count)
    x = cluster_scalars(sums, sums.over_clusters())
    whole = statistics(rows, pairs)
    np.testing.assert_allclose(
        (x[:, [0, 2]].sum(0) / x[:, [1, 3]].sum(0)) / (x[:, 4].sum() / x[:, 5].sum()), whole[:2]
    )
    drawn, distances = [], []
    names = sorted(set(pairs["cluster"]))
    for weights in bootstrap_weights(k, 40, 6):
        parts = [
            pairs[pairs["cluster"] == n] for n, w in zip(names, weights, strict=True) for _ in range(int(w))
        ]
        drawn.append(statistics(rows, pd.concat(parts)))
        distances.append(np.sqrt((weights[:, None] * influences(x, weights) ** 2).sum(0) * k / (k - 1)))
    drawn = np.array(drawn)
    distances = abs(drawn - drawn.mean(0)) / np.array(distances)
    q = np.maximum(np.quantile(distances, 0.95, axis=0), t.ppf(0.975, k - 1))
    error = np.sqrt((influences(x, np.ones(k)) ** 2).sum(0) * k / (k - 1))
    half = np.maximum(q * error, jackknife_half(lambda chosen: statistics(rows, chosen), pairs))
    assert (half > q * error).any() and (half == q * error).any()
    for j, name in enumerate(NAMES):
        centre = 2 * whole[j] - drawn[:, j].mean()
        assert layer[f"{name}_low"] == pytest.approx(centre - half[j], rel=1e-5)
        assert layer[f"{name}_high"] == pytest.approx(centre + half[j], rel=1e-5)


def test_a_standard_error_is_that_of_the_jackknife(tmp_path):
    sums, store, pairs = sums_of(write_run(tmp_path / "run", effects(7), 60))
    error = standard_errors(cluster_scalars(sums, sums.over_clusters()), np.ones((1, 60)))[0]
    rows = store.activations("stage1")
    left_out = np.array([statistics(rows, pairs[pairs["clip"] != c]) for c in pairs["clip"].unique()])
    jackknife = np.sqrt(59 / 60 * ((left_out - left_out.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(error, jackknife, rtol=0.05)


def test_few_clusters_and_scores_without_error_have_finite_intervals(tmp_path):
    few = estimate_run(write_run(tmp_path / "few", effects(8), FEWEST_CLUSTERS - 4), n_boot=200).layers.iloc[
        0
    ]
    assert few["score_static_high"] - few["score_static_low"] < 1
    exact = write_run(tmp_path / "exact", effects(9, style=0, order=0, noise=0, fixed=0), 12)
    layer = estimate_run(exact, n_boot=50).layers.iloc[0]
    assert layer["score_static_low"] == pytest.approx(1) and layer["score_static_high"] == pytest.approx(1)


def hard_sums(kind, clusters):
    """Sums of runs with three views per clip and two clips per cluster; `kind` names the difficulty."""
    draw = np.random.default_rng(1)
    clips, units = 2 * clusters, 6
    shared = np.repeat(draw.standard_normal((clips, units)), 3, axis=0)
    rows = draw.standard_normal((3 * clips, units)) + shared + 3
    if kind == "ties":
        rows = np.round(rows)
    if kind == "constant":
        rows[:, 1:3] = 0.1, 0
        rows[6:9, 2] = 5  # in all but one clip
    if kind == "the same":
        rows[:, 3] = np.repeat(rows[::3, 3], 3)
    pairs = [(f, 3 * c, 3 * c + b, c // 2) for c in range(clips) for f, b in ((0, 2), (1, 1))]
    pairs = pd.DataFrame(pairs, columns=["factor", "a", "b", "cluster"])
    return Moments.per_cluster(rows.astype(np.float32), pairs, pairs["cluster"].to_numpy(), clusters)


@pytest.mark.parametrize("kind", ["plain", "ties", "constant", "the same"])
@pytest.mark.parametrize("clusters", [12, 2, 1])
def test_standard_errors_of_bits_are_those_of_numeric_derivatives(kind, clusters):
    sums = hard_sums(kind, clusters)
    weights = np.vstack([np.ones(clusters), bootstrap_weights(clusters, 20, 0)])

    def replicate(w):
        replicates = sums.resample(np.atleast_2d(w))
        return replicates, replicates.unit_scores()

    replicates, r = replicate(weights)
    influence = bits_influence(sums, replicates, r)
    for f in (0, 1):
        fast = bits_standard_errors(influence[:, f], sums.count[:, f], weights[1:])
        for i, w in enumerate(weights):
            if (w > 0).sum() == 1 < clusters:
                continue  # of one cluster nothing is known, and r may be anything
            used = np.isfinite(gaussian_bits(r[i, f]))
            bits = [
                gaussian_bits(replicate(w + s * k)[1])[0, f][used].sum()
                for k in np.eye(clusters)
                for s in (1e-5, -1e-5)
            ]
            derivative = np.diff(np.reshape(bits, (-1, 2)), axis=1)[:, 0] / -2e-5
            slow = np.sqrt((w * derivative**2).sum() * clusters / max(1, clusters - 1))
            assert fast[i] == pytest.approx(slow, rel=1e-5, abs=1e-8)


def test_the_interval_of_mean_bits_is_that_of_loops():
    sums, clusters = hard_sums("ties", 12), 12
    drawn_weights = bootstrap_weights(clusters, 60, 3)
    layer, _ = estimate_stage(sums, drawn_weights, 0.5, 0.95)
    weights = np.vstack([np.ones(clusters), drawn_weights])
    replicates = sums.resample(weights)
    r = replicates.unit_scores()
    influence = bits_influence(sums, replicates, r)
    for f, name in enumerate(("dynamic", "static")):
        live = ~np.isnan(r[0, f])
        bits = np.nansum(gaussian_bits(r[:, f]), axis=1) / live.sum()
        error = bits_standard_errors(influence[:, f], sums.count[:, f], drawn_weights) / live.sum()
        far = np.quantile(abs(bits[1:] - bits[1:].mean()) / error[1:], 0.95)
        half = max(far, t.ppf(0.975, clusters - 1)) * error[0]
        centre = 2 * bits[0] - bits[1:].mean()
        assert layer[f"bits_{name}_low"] == pytest.approx(centre - half, rel=1e-6)
        assert layer[f"bits_{name}_high"] == pytest.approx(centre + half, rel=1e-6)
