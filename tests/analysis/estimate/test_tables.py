"""Result tables of finished runs: averages over seeds, and tables that do not fit together."""

import numpy as np
import pytest

from static_dynamic.analysis import average_runs
from static_dynamic.analysis.estimate.tables import read_layers, read_units, seed_half_widths
from static_dynamic.errors import DamagedRun, UserError
from tests.analysis.finished import finished_run


@pytest.mark.parametrize(("runs", "original"), [(2, 0.60), (3, 0.75), (4, 0.81), (5, 0.85)])
def test_coverage_of_both_ranges_about_a_mean_over_seeds(runs, original):
    """The documented coverages; the standard error of the simulated fractions is at most 0.004."""
    values = np.random.default_rng(runs).normal(0.4, 0.1, (runs, 20_000))
    off = np.abs(values.mean(0) - 0.4)
    half = seed_half_widths(values)
    assert np.mean(off <= half.original) == pytest.approx(original, abs=0.013)
    assert np.mean(off <= half.student) == pytest.approx(0.95, abs=0.008)


def test_one_run_has_no_range():
    assert all(np.isnan(half).all() for half in seed_half_widths(np.ones((1, 3))))


def test_both_ranges_of_an_average(tmp_path):
    folders = [finished_run(tmp_path / str(seed), seed=seed, n_boot=10) for seed in (1, 2, 3)]
    table = average_runs(folders).set_index("stage")
    row = table.loc["stage2"]
    # sqrt(3 / 2): ratio of the two standard deviations; 4.30265: Student's t with 2 degrees of freedom
    ratio = row["share_static_ci_student"] / row["share_static_ci"]
    assert ratio == pytest.approx(4.30265 / 1.96 * np.sqrt(3 / 2), rel=1e-5) and row["runs"] == 3
    motion = [read_layers(folder).loc["stage2", "motion"] for folder in folders]
    assert row["motion"] == pytest.approx(np.mean(motion))
    assert row["motion_ci_student"] == pytest.approx(4.30265 * np.std(motion, ddof=1) / np.sqrt(3), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "other"}, "differ in model: average runs that differ only in the seed"),
        ({"dataset": ("ssv2", "x")}, "differ in dataset"),
        ({"pairs": "both"}, "differ in pairs"),
        ({"styles": (1, 2, 3), "model": "other"}, "differ in model, styles"),
        ({"seed": 1}, "have the same seed: give one run per seed"),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(tmp_path, options, says):
    a = finished_run(tmp_path / "a", n_boot=10)
    b = finished_run(tmp_path / "b", **{"seed": 2, "n_boot": 10, **options})
    with pytest.raises(UserError, match=f"^{b} and {a} {says}"):
        average_runs([a, b])


@pytest.mark.parametrize(
    "change",
    [lambda units: units.iloc[1:], lambda units: units.assign(stage="stage9")],
    ids=["unit", "stage"],
)
def test_units_that_do_not_fit_the_layers_are_refused(tmp_path, change):
    """Runs of earlier versions have no list of hashes that would tell that a table was exchanged."""
    folder = finished_run(tmp_path / "a", n_boot=10)
    change(read_units(folder)).to_parquet(folder / "units.parquet")
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    with pytest.raises(DamagedRun, match="differ in their stages or numbers of units"):
        read_units(folder)
