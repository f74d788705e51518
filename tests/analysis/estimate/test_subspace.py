"""Subspace bits: against covariances and loops, and cross-fitting that shares nothing where nothing is."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from static_dynamic.analysis.estimate.information.subspace import (
    canonical_bits,
    n_directions,
    project,
    split_folds,
    subspace_information,
)
from static_dynamic.analysis.estimate.intervals import bootstrap_weights, interval
from static_dynamic.analysis.estimate.sign_flips import draw_signs
from tests.analysis.simulated import effects, independent, pairs_and_rows


def test_the_subspace_holds_what_its_covariance_says():
    draw = np.random.default_rng(4)
    mix = draw.standard_normal((6, 6))
    covariance = mix @ mix.T
    z = multivariate_normal(np.arange(6), covariance).rvs(200000, random_state=5)
    second = np.cov(z.T, bias=True)
    det = np.linalg.det
    bits = 0.5 * np.log2(det(second[:3, :3]) * det(second[3:, 3:]) / det(second))
    ones = np.column_stack([np.ones(len(z)), z])
    assert canonical_bits(ones.T @ ones) == pytest.approx(bits, rel=1e-6)


def test_each_half_is_seen_in_what_varies_most_in_the_other():
    draw = np.random.default_rng(6)
    rows = draw.standard_normal((400, 30)) * np.linspace(5, 0.1, 30) + 7
    group = np.arange(400) % 3
    rows += 20 * draw.standard_normal((3, 30))[group]  # what styles do to every clip is not looked at
    folds = [np.arange(0, 200), np.arange(201, 400, 2)]
    found = project(rows.astype(np.float32), folds, group, 4)
    centred = [
        rows[h] - np.stack([rows[h][group[h] == g].mean(0) for g in range(3)])[group[h]] for h in folds
    ]
    for own, other, half in zip(centred, reversed(centred), folds, strict=True):
        vectors = np.linalg.svd(other, full_matrices=False)[2][:4]
        np.testing.assert_allclose(abs(found[half][:, ::-1]), abs(own @ vectors.T), rtol=1e-3, atol=1e-3)
    assert (found[200::2] == 0).all()
    assert n_directions(24, 100) == 2 and n_directions(9, 100) == 0 and n_directions(1000, 100) == 16


def test_the_subspace_of_a_stage_is_that_of_loops(tmp_path):
    """Halves by themselves, bits by determinants, replicates pair by pair."""
    weak = effects(3, units=6, clip=0.2, style=0.2, order=0.2, noise=1)
    pairs, rows = pairs_and_rows(tmp_path, weak, 24)
    folds = split_folds([pairs], 1)
    assert sorted(np.concatenate([fold.pairs[0] for fold in folds])) == list(range(len(pairs.a)))
    assert not set(folds[0].views) & set(folds[1].views)
    projected = project(rows, [fold.views for fold in folds], np.tile(np.arange(8), 24), 2)
    weights, signs = bootstrap_weights(24, 30, 0), draw_signs(pairs, 19, (2,))

    def bits(a, b, flip=None):
        covariance, det = np.cov(projected[a].T, projected[b].T, bias=True), np.linalg.det
        if flip is not None:  # group means are subtracted, so the mean of each direction is 0
            products = [s * np.outer(projected[i], projected[j]) for s, i, j in zip(flip, a, b, strict=True)]
            covariance[:2, 2:] = np.sqrt(12 / 11) * np.mean(products, axis=0)  # a fold has 12 videos
            covariance[2:, :2] = covariance[:2, 2:].T
        return 0.5 * np.log2(det(covariance[:2, :2]) * det(covariance[2:, 2:]) / det(covariance))

    value = np.mean([bits(pairs.a[h.pairs[0]], pairs.b[h.pairs[0]]) for h in folds])
    drawn = []
    for w in weights:
        own = [np.repeat(h.pairs[0], w[pairs.cluster[h.pairs[0]]].astype(int)) for h in folds]
        drawn.append(np.mean([bits(pairs.a[o], pairs.b[o]) for o in own]))
    own = [fold.pairs[0] for fold in folds]
    null = [np.mean([bits(pairs.a[o], pairs.b[o], flip[o]) for o in own]) for flip in signs]
    found = subspace_information(projected, pairs, weights, signs, own, 0.95)
    assert found["plug_in"] == pytest.approx(value)
    assert found["value"] == pytest.approx(2 * value - np.mean(drawn))
    assert [found["low"], found["high"]] == pytest.approx(interval(value, np.array(drawn), 12, 0.95))
    assert found["p"] == (1 + sum(null >= value)) / 20


def test_directions_know_nothing_of_the_pairs_they_are_used_on(tmp_path):
    """Noise alone: in its own directions it would seem to share something with itself."""
    values = []
    for seed in range(12):
        pairs, rows = pairs_and_rows(tmp_path / str(seed), independent(seed, units=60), 40)
        folds = split_folds([pairs], 0)
        projected = project(rows, [fold.views for fold in folds], np.tile(np.arange(8), 40), 2)
        weights, no_signs = bootstrap_weights(40, 100, 0), np.empty((0, len(pairs.a)))
        own = [fold.pairs[0] for fold in folds]
        values.append(subspace_information(projected, pairs, weights, no_signs, own, 0.95)["value"])
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values)) + 0.02
