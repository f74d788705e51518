"""Positions of frames: the original's rule, and the rules of every caller before they shared one function."""

import numpy as np
import pytest
import torch

from static_dynamic import configs
from static_dynamic.spacing import evenly_spaced, subsample_positions
from tests.paths import SHARED

CHECKS = SHARED / "parity" / "data_checks.pt"
LENGTHS = range(1, 401)


def network_counts() -> set[int]:
    """Return the numbers of frames that the networks of the table take, per pathway."""
    counts = set()
    for name in configs.rows("model"):
        spec = configs.row("model", name).input
        counts |= {spec.get("frames") or 1, *(spec.get("pathways") or {}).values()}
    return counts


def test_float32_is_the_rule_of_the_original():
    for length in LENGTHS:
        for count in range(1, 65):
            expected = torch.linspace(0, length - 1, count).long().tolist()
            assert subsample_positions(length, count).tolist() == expected
    if CHECKS.exists():
        for key, expected in torch.load(CHECKS, weights_only=True)["subsample"].items():
            assert subsample_positions(*map(int, key.split("->"))).tolist() == list(expected)


def test_float64_gives_views_the_positions_that_they_always_had():
    for length in LENGTHS:
        for count in range(1, 65):
            expected = np.linspace(0, length - 1, count).astype(np.int64)
            assert (subsample_positions(length, count, np.float64) == expected).all()


def test_the_precisions_agree_for_networks_of_the_table():
    counts = network_counts()
    assert {4, 8, 13, 16, 32, 64} <= counts
    for count in counts - {1, 2, 64}:
        for length in range(2, 2000):
            exact = [i * (length - 1) // (count - 1) for i in range(count)]
            assert subsample_positions(length, count).tolist() == exact
            assert subsample_positions(length, count, np.float64).tolist() == exact
    for length in (64, 128):  # windows of the networks that take 64 frames
        assert (subsample_positions(length, 64) == subsample_positions(length, 64, np.float64)).all()


@pytest.mark.parametrize("rounding", [np.round, np.trunc])
def test_evenly_spaced_positions_are_distinct_and_reach_both_ends(rounding):
    for length in range(1, 120):
        for count in range(2, 60):
            chosen = evenly_spaced(count, length, rounding)
            expected = np.unique(rounding(np.linspace(0, length - 1, min(count, length))).astype(int))
            assert (chosen == expected).all() and len(chosen) == min(count, length)
            assert chosen[0] == 0 and chosen[-1] == length - 1
    assert not len(evenly_spaced(5, 0))


def test_all_positions_are_chosen_where_there_are_fewer():
    """So that callers that took the distinct ones of too many positions get the same."""
    for length in range(1, 60):
        for count in range(length, 80):
            expected = np.unique(np.linspace(0, length - 1, count).round().astype(int))
            assert (evenly_spaced(count, length) == expected).all()
