"""``task=calibrate`` finds the truth of the calibrated data set, and notices estimates that are wrong."""

from pathlib import Path

import numpy as np
import pandas as pd

import main
from static_dynamic.analysis.estimate import calibration
from static_dynamic.analysis.estimate.calibration import Bound, check, motion_of, standardised
from static_dynamic.analysis.estimate.order_table import OrderTable
from static_dynamic.analysis.tasks import calibrate as task


def once(work):
    """Return a function that gives the result of its first call in all further calls."""
    kept = []

    def call(*arguments):
        if not kept:
            kept.append(work(*arguments))
        return kept[0]

    return call


def test_all_bounds_hold_and_a_broken_bound_ends_with_status_1(in_process, tmp_path, monkeypatch):
    monkeypatch.setenv("SD_CACHE", str(tmp_path / "cache"))
    for name in ("calibrate", "mixing_curves", "draw_calibration", "draw_scenes"):  # compute each once
        monkeypatch.setattr(task, name, once(getattr(task, name)))
    options = ("task=calibrate", f"save_dir={tmp_path / 'out'}", "num_workers=0", "n_permutations=99")
    status, out, err = in_process(main, *options)
    assert status == 0, out + err
    (folder,) = Path(tmp_path / "out").glob("yardstick/calibrated/*")
    bounds = pd.read_csv(folder / "bounds.csv")
    assert bounds["holds"].all() and len(bounds) == len(calibration.BOUNDS)
    assert f"{len(bounds)} of {len(bounds)} bounds hold" in out
    assert all((folder / name).stat().st_size > 10_000 for name in ("calibration.png", "scenes.png"))
    table = pd.read_csv(folder / "calibration.csv").set_index(["family", "stage"])
    # The paper's classes call layout, which sees single frames, joint.
    assert table.loc[("layout", "layout"), "units_joint"] == 16
    assert table.loc[("layout", "layout"), "kind_content"] == 16

    wrong = Bound("flow", "velocity", "motion", -np.inf, 0.1, "a wrong bound")
    monkeypatch.setattr(calibration, "BOUNDS", (*calibration.BOUNDS, wrong))
    status, out, _ = in_process(main, *options)
    assert status == 1 and "BROKEN: motion of velocity on flow is 1." in out


def test_an_estimator_that_counts_content_as_motion_breaks_a_bound(monkeypatch):
    curves = pd.DataFrame({"mixture": "planted", "weight": [0, 0.5, 1], "truth": [0, 0.5, 1]})
    numbers = dict.fromkeys(("largest_motion", "motion", "appearance", "content"), 0.5)
    table = pd.DataFrame([{"family": "flow", "stage": stage, **numbers} for stage in ("layout", "velocity")])
    right = check(table.assign(largest_motion=0.0), curves.assign(motion=[0, 0.52, 1])).set_index("number")
    assert right.loc[["largest_motion", "error", "smallest_step"], "holds"].all()
    wrong = check(table, curves.assign(motion=[0.3, 0.2, 1])).set_index("number")
    assert not wrong.loc[["largest_motion", "error", "smallest_step"], "holds"].any()


def test_mixed_units_of_known_motion():
    rng = np.random.default_rng(0)
    clips, styles = 400, 3
    views = pd.DataFrame(
        [
            {"cluster": f"v{k:03d}", "clip": f"v{k:03d}", "style": s, "order": order}
            for k in range(clips)
            for s in range(styles)
            for order in ("forward", "shuffled")
        ]
    )
    table = OrderTable.of_views(views, np.ones(len(views), bool), "shuffled")
    clip = views["cluster"].astype("category").cat.codes.to_numpy()
    forward = (views["order"] == "forward").to_numpy()[:, None]
    motion = standardised(rng.standard_normal((clips, 1))[clip] + 5, table) * forward * np.sqrt(2)
    place = standardised(rng.standard_normal((clips, 1))[clip] * 3, table)
    for weight in (0.0, 0.3, 1.0):
        mixed = np.sqrt(weight) * motion + np.sqrt(1 - weight) * place
        estimate, low, high = motion_of(table, mixed)
        assert abs(estimate - weight) < 0.04 and low <= estimate <= high
