"""The paper's estimator against a slow oracle written from its definition, and against the original's
outputs."""

from math import exp

import numpy as np
import pytest
import torch

from static_dynamic.analysis import estimate_pairs, estimate_run
from static_dynamic.analysis.estimate.comparison import compare_runs
from static_dynamic.errors import UserError
from tests.paths import GOLDEN, SHARED

CASES = torch.load(GOLDEN / "estimator_cases.pt", weights_only=True)["cases"]
WHOLE = SHARED / "parity" / "estimator_cases.pt"


def oracle(za, zb, factor, threshold):
    """Loops over pairs and units, in the order of the definition."""
    n, units = za.shape
    every = [*za, *zb]
    mean = [sum(row[u] for row in every) / len(every) for u in range(units)]
    total = sum(sum((row[u] - mean[u]) ** 2 for row in every) / len(every) for u in range(units))
    scores, unit_scores = [], []
    for f in (0, 1):
        pairs = [i for i in range(n) if factor[i] == f]
        score, of_units = 0.0, []
        for u in range(units):
            members = [za[i][u] for i in pairs] + [zb[i][u] for i in pairs]
            m = sum(members) / len(members)
            covariance = sum((za[i][u] - m) * (zb[i][u] - m) for i in pairs) / len(pairs)
            variance = sum((x - m) ** 2 for x in members) / len(members)
            constant = all(x == members[0] for x in members)
            score += covariance
            of_units.append(float("nan") if constant else covariance / variance)
        scores.append(score / total)
        unit_scores.append(of_units)
    weights = [exp(scores[0]), exp(scores[1]), exp(1.0)]
    shares = [w / sum(weights) for w in weights]
    dims = [int(shares[0] * units), int(shares[1] * units)]
    dims.append(units - dims[0] - dims[1])
    classes = []
    for d, s in zip(*unit_scores, strict=True):
        if d != d or s != s:
            classes.append("dead")
        elif d > threshold:
            classes.append("joint" if s > threshold else "dynamic")
        else:
            classes.append("static" if s > threshold else "residual")
    return scores, shares, dims, unit_scores, classes


def sample(seed, n=40, units=7, shared=0.6):
    draw = np.random.default_rng(seed)
    common = draw.standard_normal((n, units))
    za, zb = (shared * common + draw.standard_normal((n, units)) for _ in range(2))
    return za + 5, zb + 5, draw.integers(0, 2, n)


def agree(za, zb, factor, threshold=0.5):
    e = estimate_pairs(za, zb, factor, threshold)
    scores, shares, dims, unit_scores, classes = oracle(
        np.asarray(za, float), np.asarray(zb, float), factor, threshold
    )
    np.testing.assert_allclose(e.scores[:2], scores, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(e.shares, shares, rtol=1e-10)
    np.testing.assert_allclose(e.unit_scores, unit_scores, rtol=1e-8, atol=1e-10)
    assert e.dims == dims
    assert list(e.unit_class) == classes
    return e


@pytest.mark.parametrize("seed", range(5))
def test_equals_oracle_on_random_pairs(seed):
    agree(*sample(seed), threshold=0.3)


def test_equals_oracle_on_float32_far_from_zero():
    za, zb, factor = sample(1)
    agree((za + 1000).astype(np.float32), (zb + 1000).astype(np.float32), factor)


def test_a_score_equal_to_the_threshold_is_not_above_it():
    # static: identical members, correlation exactly 1; dynamic: 0 by construction
    za = np.array([[1.0], [-1.0], [1.0], [-1.0], [2.0], [-2.0]])
    zb = np.array([[1.0], [1.0], [-1.0], [-1.0], [2.0], [-2.0]])
    factor = np.array([0, 0, 0, 0, 1, 1])
    assert agree(za, zb, factor, threshold=1.0).unit_class[0] == "residual"
    assert agree(za, zb, factor, threshold=0.999).unit_class[0] == "static"
    assert agree(za, zb, factor, threshold=0.0).unit_class[0] == "static"


def test_dead_units_are_a_class_of_their_own():
    za, zb, factor = sample(2)
    za[:, 3] = zb[:, 3] = 0.1
    za[factor == 1, 5] = zb[factor == 1, 5] = 0.3  # constant within one factor is enough
    e = agree(za, zb, factor)
    assert list(np.flatnonzero(e.unit_class == "dead")) == [3, 5]


def test_one_pair_of_each_factor():
    agree(np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[2.0, 2.5], [0.5, 1.5]]), np.array([0, 1]))


def test_independent_pairs_score_nothing_and_identical_pairs_one():
    draw = np.random.default_rng(0)
    za = draw.standard_normal((4000, 3))
    e = estimate_pairs(np.r_[za, za], np.r_[draw.standard_normal((4000, 3)), za], np.repeat([0, 1], 4000))
    assert np.abs(e.unit_scores[0]).max() < 0.06
    np.testing.assert_allclose(e.unit_scores[1], 1, rtol=1e-12)


def test_known_shares_of_no_and_of_full_correlation():
    z = np.array([[1.0], [-1.0]] * 2)
    full = estimate_pairs(z, z, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(full.shares, 1 / 3)
    a, b = np.array([[1.0], [1], [-1], [-1]]), np.array([[1.0], [-1], [1], [-1]])
    none = estimate_pairs(np.r_[a, a], np.r_[b, b], np.repeat([0, 1], 4))
    np.testing.assert_allclose(100 * none.shares, [21.2, 21.2, 57.6], atol=0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_is_refused(bad):
    za, zb, factor = sample(3)
    zb[4, 2] = bad
    with pytest.raises(UserError, match="pair 4, unit 2"):
        estimate_pairs(za, zb, factor)


def test_what_cannot_be_estimated_is_refused():
    za, zb, factor = sample(4)
    with pytest.raises(UserError, match="no pairs of factor 1"):
        estimate_pairs(za, zb, np.zeros(len(za), int))
    with pytest.raises(UserError, match="no unit of this stage varies"):
        estimate_pairs(np.ones((4, 2)), np.ones((4, 2)), np.array([0, 0, 1, 1]))
    with pytest.raises(UserError, match=r"not \(40, 7\), \(39, 7\) and \(40,\)"):
        estimate_pairs(za, zb[:-1], factor)


@pytest.mark.parametrize("threshold", [np.nan, np.inf, 2, -1.5, True, "0.5", None])
def test_thresholds_that_are_no_correlation_are_refused(threshold):
    with pytest.raises(UserError, match=r"^threshold=.*: a finite number between -1 and 1 is expected$"):
        estimate_pairs(*sample(4), threshold)


def test_run_and_comparison_refuse_a_threshold_before_they_read_anything(tmp_path):
    for estimate in (estimate_run, lambda run, threshold: compare_runs([run, run], threshold=threshold)):
        with pytest.raises(UserError, match="threshold=2"):
            estimate(tmp_path / "no run", threshold=2)


@pytest.mark.parametrize("bad", [-1, 3, 0.5, np.nan])
def test_unknown_factors_are_refused(bad):
    za, zb, factor = sample(4)
    factor = factor.astype(float)
    factor[5] = bad
    with pytest.raises(UserError, match=rf"factor of pair 5 is {bad:g}.*: .* 0 \(dynamic\), 1 \(static\), 2"):
        estimate_pairs(za, zb, factor)


def test_factors_of_words_are_refused():
    za, zb, factor = sample(4)
    with pytest.raises(UserError, match="factor of pair 0 is static"):
        estimate_pairs(za, zb, np.where(np.arange(len(factor)) < 9, "static", "dynamic"))


@pytest.mark.parametrize("kind", [bool, np.int8, np.uint64, float, list])
def test_factors_of_any_kind_of_number_give_the_same_numbers(kind):
    za, zb, factor = sample(4)
    given = factor.tolist() if kind is list else factor.astype(kind)
    np.testing.assert_array_equal(estimate_pairs(za, zb, given).scores, estimate_pairs(za, zb, factor).scores)


def test_activations_too_large_to_square_are_named():
    za, zb, factor = sample(4)
    zb[7, 3] = -1e200
    with pytest.raises(UserError, match=r"pair 7, unit 3 in zb is -1e\+200: it must be below 1e\+150"):
        estimate_pairs(za, zb, factor)
    zb[7, 3] = 0  # large activations below the limit give the scores of small ones
    large = 1e148 * za, 1e148 * zb
    np.testing.assert_allclose(estimate_pairs(*large, factor).scores, estimate_pairs(za, zb, factor).scores)


def test_empty_activations_are_refused():
    with pytest.raises(UserError, match="no pairs of factor 0"):
        estimate_pairs(np.empty((0, 3)), np.empty((0, 3)), [])
    with pytest.raises(UserError, match=r"no units \(shape \(4, 0\)\)"):
        estimate_pairs(np.empty((4, 0)), np.empty((4, 0)), [0, 0, 1, 1])
    with pytest.raises(UserError, match="no pairs of factor 1"):
        estimate_pairs(np.ones((1, 3)), np.ones((1, 3)), [0])
    with pytest.raises(UserError, match="arrays of numbers"):
        estimate_pairs([["a"]], [["b"]], [0])


def golden_cases():
    return torch.load(WHOLE, weights_only=True)["cases"] if WHOLE.exists() else CASES


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case["name"])
def test_original(case):
    def run():
        return estimate_pairs(
            case["a"].numpy(),
            case["b"].numpy(),
            case["factors"].numpy(),
            case["threshold"],
            n_factors=case["n_factors"],
            residual_index=case["residual_index"],
        )

    if case["error"]:  # where the original crashes, one clear line
        with pytest.raises(UserError):
            run()
        return
    e = run()
    assert e.dims == case["dims"]
    assert e.dims_percent == case["dims_percent"]
    assert f"Stage: S , Dimensions: {e.dims} {e.dims_percent}\n" == case["line"]
    np.testing.assert_allclose(e.unit_shares, case["idv_softmax"], atol=1e-6)
    if "raw_idv" in case:
        np.testing.assert_allclose(e.unit_scores, case["raw_idv"][:2], atol=1e-6)
    if "joint" in case:
        # the original leaves ties in no class: they are told apart here
        named = {"0": "dynamic", "1": "static", "2": "joint", "3": "residual"}
        for bin_, units in case["joint"].items():
            assert all(e.unit_class[u] == named[bin_] for u in units)
