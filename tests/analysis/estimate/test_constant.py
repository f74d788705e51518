"""Units that differ by rounding only are constant in every estimator."""

import numpy as np
import pytest

from static_dynamic.analysis import estimate_information, estimate_pairs, estimate_run, estimate_variance
from static_dynamic.errors import UserError
from tests.analysis.simulated import effects, write_run

VALUES = np.array([0.1, 1000.0, -3.7, 1e-5, 6e4, -1e-20], np.float32)


def rounded(count, rng):
    """Constants that differ by up to four units in the last place of float32."""
    steps = rng.integers(-4, 5, (count, len(VALUES)))
    return (VALUES + steps * np.spacing(VALUES)).astype(np.float32)


def draw(views):
    """Three units with an effect, then the constant units."""
    return np.hstack([effects(0, units=3)(views), rounded(len(views), np.random.default_rng(1))])


def test_scores_of_pairs():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((200, 1))
    za, zb = (np.hstack([signal, rounded(200, rng)]) for _ in range(2))
    found = estimate_pairs(za, zb, np.repeat([0, 1], 100))
    assert list(found.unit_class) == ["joint", *["dead"] * len(VALUES)]
    assert np.isnan(found.unit_scores[:, 1:]).all() and found.unit_scores[:, 0] == pytest.approx([1, 1])
    with pytest.raises(UserError, match="no unit of this stage varies"):
        estimate_pairs(za[:, 1:], zb[:, 1:], np.repeat([0, 1], 100))


def test_a_small_signal_on_a_large_mean_is_no_rounding():
    rng = np.random.default_rng(0)
    z = 1000 + 0.01 * rng.standard_normal((200, 1)).astype(np.float32)
    assert estimate_pairs(z, z, np.repeat([0, 1], 100)).unit_class[0] == "joint"


def test_every_table_of_a_run(tmp_path):
    run = write_run(tmp_path / "run", draw, clips=12)
    units = estimate_run(run, n_boot=20, n_permutations=9).units.set_index("unit")
    assert (units.loc[3:, "class"] == "dead").all() and (units.loc[3:, "kind"] == "dead").all()
    assert units.loc[:2, "content"].notna().all() and units.loc[3:, ["content", "motion"]].isna().all(
        axis=None
    )
    variance = estimate_variance(run).units.set_index("unit")
    assert (variance.loc[3:, "variance"] == 0).all() and variance.loc[3:, "share"].isna().all()
    bits = estimate_information(run, n_boot=20, n_permutations=9).units
    of_pairs = bits[bits["measure"].isin(["gaussian", "copula"])]
    assert of_pairs.loc[of_pairs["unit"] < 3, "value"].notna().all()
    assert of_pairs.loc[of_pairs["unit"] >= 3, "value"].isna().all()


def test_one_rule_decides_in_every_table_what_is_constant(tmp_path):
    # standard deviations relative to the mean; single activations deviate by more than three times as much
    spreads = np.array([0.4e-6, 0.7e-6, 2e-6, 1e-3])

    def near_constant(views):
        noise = np.random.default_rng(2).standard_normal((len(views), len(spreads)))
        noise[::7] *= 2.5
        noise /= noise.std(0)
        return np.hstack([effects(0, units=1)(views), 3 * (1 + spreads * noise)])

    run = write_run(tmp_path / "run", near_constant, clips=12)
    rows = np.load(run / "activations" / "stage1.npy").astype(np.float64)
    oracle = rows.var(axis=0) <= 1e-12 * (rows**2).mean(axis=0)
    assert list(oracle) == [False, True, True, False, False]
    units = estimate_run(run, n_boot=20, n_permutations=9).units.set_index("unit")
    assert list(units["class"] == "dead") == list(oracle) and list(units["kind"] == "dead") == list(oracle)
    assert list(estimate_variance(run).units.groupby("unit")["variance"].max() == 0) == list(oracle)


def test_constant_units_change_no_layer(tmp_path):
    with_noise = estimate_run(write_run(tmp_path / "a", draw, clips=12), n_boot=20).layers
    alone = estimate_run(write_run(tmp_path / "b", effects(0, units=3), clips=12), n_boot=20).layers
    for column in ("score_dynamic", "score_static", "content", "motion", "appearance"):
        assert with_noise[column][0] == pytest.approx(alone[column][0], rel=1e-6)
