"""Simulations in bench/ run, and the statements about the decomposition hold (fixed seeds, few runs)."""

import importlib

import numpy as np
import pytest

from bench import decomposition, information, sequential, simulated
from tests.paths import ROOT

DESIGNS = {design.name: design for design in decomposition.DESIGNS}
BENCHES = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if path.stem != "__main__")


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_imports(name):
    importlib.import_module(f"bench.{name}")


@pytest.mark.parametrize(("design", "videos"), [("normal", 12), ("normal", 24), ("4 views skipped", 24)])
def test_intervals_of_the_parts_hold(design, videos):
    held = decomposition.coverage(DESIGNS[design], videos, 250)
    assert (held["layer"] > 0.91).all() and (held["layer"] < 0.99).all()  # standard error .014
    assert 0.91 < held["difference"][0] < 0.99
    assert (held["units"] > 0.87).all()
    assert (held["counts"] > 0.9).all()


@pytest.mark.parametrize(("design", "videos"), [("normal", 12), ("several clips per video", 24)])
def test_intervals_of_differences_between_networks_hold(design, videos):
    for held in decomposition.difference_coverage(DESIGNS[design], videos, 200):
        assert (held > 0.9).all() and (held < 0.995).all()  # standard error .015


def test_numbers_of_kinds_hold_with_many_units():
    """Point estimates alone count far too many units of a pure kind."""
    held = decomposition.coverage(DESIGNS["1000 units"], 12, 8)
    assert (held["counts"] >= 0.75).all()


@pytest.mark.parametrize(("design", "videos", "runs"), [("normal", 24, 400), ("1000 units", 24, 60)])
def test_p_values_of_motion_hold(design, videos, runs):
    layer, unit, family = decomposition.small_p_values(DESIGNS[design], videos, runs, 0.0)
    reach = 2.6 * np.sqrt(0.05 * 0.95 / runs)
    assert abs(layer - 0.05) < reach and 0.03 < unit < 0.07 and abs(family - 0.05) < reach + 0.01


def test_motion_of_a_fifth_is_found_in_twelve_videos():
    layer, unit, family = decomposition.small_p_values(DESIGNS["normal"], 12, 40, 0.2)
    assert layer == 1 and unit > 0.7 and family > 0.95


def test_stopped_runs_are_narrow_and_hold():
    found = [sequential.stopped(DESIGNS["normal"], 0.05, run) for run in range(60)]
    videos, narrow, held = zip(*found, strict=True)
    assert all(narrow) and 24 < np.mean(videos) < 100 and (np.mean(held, axis=0) > 0.85).all()


def test_information_of_small_runs_is_simulated(monkeypatch):
    monkeypatch.setattr(information, "LARGE_RUNS", 1)
    rows = list(information.simulated(simulated.DESIGNS[0], 24, 1))
    assert {name for name, *_ in rows} >= {"gaussian", "copula", "cka", "neighbours", "subspace"}
    assert np.isfinite([numbers for _, _, *numbers in rows]).all()
