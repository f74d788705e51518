"""Class counts, class probabilities and unit intervals: coverage on simulated runs, and hard units."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, t

from bench.coverage import coverage, differences
from bench.simulated import DESIGNS
from static_dynamic.analysis import estimate_run
from static_dynamic.analysis.estimate.unit_intervals import UnitIntervals, count_bounds, count_classes
from tests.analysis.simulated import effects, independent, write_run

NORMAL, MANY_UNITS = DESIGNS[0], replace(DESIGNS[0], units=300)


@pytest.mark.parametrize(
    ("design", "videos"), [(MANY_UNITS, 24), (replace(NORMAL, kind="rectified 70 %"), 24)]
)
def test_counts_and_probabilities_hold(design, videos):
    """Counts of plain replicates held the true number of joint units in 28 % of runs of many units."""
    held = coverage(design, videos, 25)
    assert held["counts"].min() >= 0.84
    assert 0.78 <= held["said .85"] <= 0.95
    assert held["unit static"] > 0.88 and held["layer static"] >= 0.84


def test_the_papers_count_is_biased_and_its_interval_is_not():
    """At 12 videos too few units are called joint, but the interval of the count holds the true number."""
    design = replace(NORMAL, units=300)
    true = (design.truth["class"] == 2).sum()
    held = coverage(design, 12, 12)
    assert held["paper counts"][2] < 0.95 * true
    assert held["counts"][2] >= 10 / 12


def test_intervals_of_one_loud_video_hold():
    """A fixed quantile held the layer score of a run with one loud video in 70 to 86 % of runs."""
    held = coverage(next(d for d in DESIGNS if d.kind == "one loud video"), 24, 40)
    assert min(held["layer dynamic"], held["layer static"]) >= 0.88
    assert min(held["unit dynamic"], held["unit static"]) >= 0.88


@pytest.mark.parametrize("videos", [(24, 24), (12, 60)])
def test_differences_of_sparse_units_hold(videos):
    design = next(d for d in DESIGNS if d.kind == "rectified 90 %")
    assert differences(design, videos, 40).min() >= 0.84


def test_units_of_one_or_two_clips_are_flagged_and_leave_the_stage_its_bits(tmp_path):
    def draw(views):
        rows = effects(3, units=6)(views) + 3
        rows[:, 2] = 5.0 * (views["clip"] == "c0004")
        rows[:, 3] = 5.0 * views["clip"].isin(["c0004", "c0009"])
        return rows

    run = write_run(tmp_path / "run", draw, 16)
    r = estimate_run(run, n_boot=100)
    layer = r.layers.iloc[0]
    assert 1 <= r.units["effective_videos"][2] < 1.2 and 2 <= r.units["effective_videos"][3] < 2.7
    for unit in (2, 3):
        unit = r.units.iloc[unit]
        assert unit["few_videos"] and unit["score_static"] == 1
        assert unit[["score_static_low", "score_dynamic_high", "probability_joint"]].isna().all()
    others = r.units.drop([2, 3])
    assert not others["few_videos"].any() and others["score_static_low"].notna().all()
    assert np.isfinite(layer["bits_static"]) and np.isfinite(layer["bits_static_high"])
    assert layer["bits_static"] == pytest.approx(others["bits_static"].mean())
    assert layer["units_few_videos"] == 2 and 1 < layer["effective_units"] < 6
    assert 4 < layer["effective_videos"] < 16


def test_members_that_are_identical_have_an_interval_of_one_point(tmp_path):
    run = write_run(tmp_path / "run", effects(9, style=0, order=0, noise=0, fixed=0), 12)
    r = estimate_run(run, n_boot=50)
    np.testing.assert_allclose(r.units[["score_static_low", "score_static_high"]], 1, atol=1e-8)
    assert (r.units["probability_joint"] == 1).all() and r.layers["units_joint_low"][0] == 12


def test_replicates_become_student_quantiles():
    """Calibrated replicates have the quantiles of Student's t about the corrected Fisher's z."""
    n, df = 20001, np.array([3.0, 8.0, 50.0])
    level = np.linspace(0.5 / n, 1 - 0.5 / n, n)
    z = norm.ppf(level)[:, None, None] * np.array([0.1, 0.3, 0.2])  # (replicates, 1 factor, units)
    wanted = np.array([[0.2, 0.4, -0.1]])
    error = np.array([[0.15, 0.3, 0.25]])
    intervals = UnitIntervals(wanted, error, df[None], np.full(3, 9.0), np.zeros(3, bool))
    found = np.arctanh(intervals.calibrate(np.tanh(z), slice(0, 3)))[:, 0]
    for k in range(3):
        for q in (0.025, 0.16, 0.5, 0.84, 0.975):
            expected = wanted[0, k] + error[0, k] * t.ppf(q, df[k])
            assert np.quantile(found[:, k], q) == pytest.approx(expected, abs=0.03 * error[0, k] * 3)


def test_count_bounds_hold_the_papers_count_and_stay_possible():
    replicates = np.random.default_rng(0).multinomial(40, [0.3, 0.3, 0.3, 0.1], size=200)
    paper, corrected = np.array([2, 12, 20, 6]), np.array([1, 11, 24, 4])
    low, high = count_bounds(paper, corrected, replicates, 40, 12, 0.95)
    assert ((low <= paper) & (paper <= high) & (low >= 0) & (high <= 40)).all()
    ends = np.stack([corrected, 2 * corrected - replicates.mean(0)])
    half = t.ppf(0.975, 11) * replicates.std(0)
    np.testing.assert_allclose(low, np.clip(np.floor(np.minimum(ends.min(0) - half, paper)), 0, 40))
    assert np.isnan(count_bounds(paper, corrected, replicates[:0], 40, 1, 0.95)).all()
    np.testing.assert_array_equal(count_classes(np.array([0, 2, 2, 4, 3])), [1, 0, 2, 1])


@pytest.mark.parametrize("clips", [2, 3])
def test_bounds_of_two_or_three_clips_are_possible(tmp_path, clips):
    for seed in range(5):
        layer = estimate_run(
            write_run(tmp_path / str(seed), independent(seed), clips), n_boot=100
        ).layers.iloc[0]
        for factor in ("dynamic", "static"):
            assert -1.5 < layer[f"score_{factor}_low"] <= layer[f"score_{factor}_high"] < 1.5
        for factor in ("dynamic", "static", "residual"):
            assert 0 < layer[f"share_{factor}_low"] <= layer[f"share_{factor}_high"] < 1
