"""Option ``until``: reading stops once the intervals are narrow enough, and a killed run stops there too."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, t

import main
from static_dynamic.analysis import estimate_run
from static_dynamic.analysis.estimate import sequential
from static_dynamic.analysis.estimate.decomposition import PARTS, decompose
from static_dynamic.analysis.estimate.motion_test import draw_pair_signs
from static_dynamic.analysis.estimate.order_table import OrderTable
from static_dynamic.analysis.estimate.sequential import check_sizes
from static_dynamic.analysis.run.store import DONE, NOT_NEEDED, Store
from static_dynamic.rng import digest
from tests.analysis.simulated import effects, write_run
from tests.conftest import moving_square, write_frames

CLIPS = 70


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Seventy short clips in two styles."""
    root = tmp_path_factory.mktemp("data")
    for clip in range(CLIPS):
        contrast = np.random.default_rng(clip).uniform(0.2, 1, 3)
        frames = (moving_square(clip, n=4, side=24) * contrast).astype(np.uint8)
        for k, style in enumerate((frames, frames // 2 + 60), start=1):
            write_frames(root / f"style_{k}" / f"clip{clip:02d}", style)
    return root


@pytest.fixture
def job(data, tmp_path, monkeypatch):
    """Run the main job on the clips, with further options; return the status and the run folder."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *options: str) -> tuple[int, Path]:
        arguments = [
            *("model=custom", "model.target=tests.test_motion_truth.build", "+model.options.temporal=True"),
            *("model.init=random", "model.input.frames=4", "model.input.size=24", "model.input.crop=24"),
            *("dataset=folder", f"dataset.root={data}", "styles='1,2'", "num_workers=0", "n_boot=20"),
            *("n_permutations=0", f"run_dir={tmp_path / name}", f"save_dir={tmp_path}", "batch_size=6"),
        ]
        monkeypatch.setattr(sys, "argv", ["main.py", *arguments, *options])
        try:
            return main.main(), tmp_path / name
        except SystemExit as stop:
            return stop.code, tmp_path / name

    return run


def test_sizes_grow_by_half():
    assert check_sizes(200) == [24, 36, 54, 81, 121, 182] and check_sizes(24) == []


def test_reading_stops_once_intervals_are_narrow(job):
    status, whole = job("whole")
    assert status == 0
    wide, narrow = widths(whole, 24), widths(whole, 54)
    until = (wide + narrow) / 2
    assert narrow < until < wide, "the intervals of this simulation must shrink"
    status, run = job("run", f"until={until}")
    store = Store.open(run)
    checks = store.manifest["until"]["checks"]
    read = checks[-1]["clips"]
    assert status == 0 and read in (36, 54) and [check["clips"] for check in checks] == check_sizes(read + 1)
    assert checks[-1]["half_width"] <= until < checks[-2]["half_width"]
    done = store.status == DONE
    first = store.views["clip"].unique()[:read]
    assert done[store.views["clip"].isin(first)].all() and (store.status[~done] == NOT_NEEDED).all()
    assert read * 4 <= done.sum() < read * 4 + 6  # whole batches of six views
    order = store.views["clip"].unique().tolist()
    assert order != sorted(order) and sorted(order) == sorted(Store.open(whole).views["clip"].unique())
    layers = pd.read_csv(run / "layers.csv")
    half = (
        layers[[f"{p}_high" for p in PARTS]].to_numpy() - layers[[f"{p}_low" for p in PARTS]].to_numpy()
    ) / 2
    assert (half <= until).all()


def widths(run: Path, clips: int) -> float:
    """Half-width of the widest interval of the first clips of the random order."""
    store = Store.open(run)
    order = sorted(store.views["clip"].unique(), key=lambda clip: digest(1, clip, "until"))
    half = sequential.widest_half_width(store, set(order[:clips]))
    assert half is not None
    return half


def test_a_killed_run_stops_at_the_same_check(job, monkeypatch):
    until = "until=0.0001"  # never reached: all checks are made
    status, whole = job("whole", until)
    assert status == 0 and (Store.open(whole).status == DONE).all()
    checked = sequential.widest_half_width
    left = [2]

    def die(store, clips):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return checked(store, clips)

    monkeypatch.setattr("static_dynamic.analysis.estimate.sequential.widest_half_width", die)
    status, run = job("run", until)
    assert status != 0 and len(Store.open(run).to_do()) > 0
    monkeypatch.setattr("static_dynamic.analysis.estimate.sequential.widest_half_width", checked)
    status, run = job("run", until)
    assert status == 0
    for file in ("activations", "status.npy", "layers.csv", "units.parquet", "views.parquet"):
        for one in sorted((whole / file).glob("*")) if file == "activations" else [whole / file]:
            assert one.read_bytes() == (run / one.relative_to(whole)).read_bytes()
    assert Store.open(run).manifest["until"] == Store.open(whole).manifest["until"]


def test_the_upper_limit_of_the_half_width_is_that_of_a_slow_formula(tmp_path):
    run = write_run(tmp_path / "run", effects(0), 30)
    store = Store.open(run)
    table = OrderTable.of_views(store.views, np.ones(len(store.views), bool), "shuffled")
    assert table is not None
    found = decompose(store.activations("stage1"), table, np.empty((0, 30)), draw_pair_signs(table, 0, (0,)))
    layer = estimate_run(run, n_boot=0).layers.iloc[0]
    widest = 0.0
    for k, part in enumerate(PARTS):
        e = found.layer.deviation[:, k]
        df = min(29, max(1, 3 * (e**2).sum() ** 2 / (e**4).sum() - 1))
        half = (layer[f"{part}_high"] - layer[f"{part}_low"]) / 2
        assert half == pytest.approx(t.ppf(0.975, 29) * np.sqrt((e**2).sum()))
        widest = max(widest, half * np.sqrt(df / chi2.ppf(0.2, df)))
    assert sequential.widest_half_width(store, set(store.views["clip"])) == pytest.approx(widest)
    few = set(store.views["clip"].unique()[:23])
    assert sequential.widest_half_width(store, few) is None  # too few videos to stop


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["pairs=paper"], "pairs to factorial or both"),
        (["app_shuffle=false"], "pairs to factorial or both"),
        (["shards=2"], "omit shards"),
        (["until=-1"], "until=-1"),
    ],
)
def test_options_that_do_not_fit_are_refused(job, capsys, options, message):
    status, run = job("run", "until=0.1", *options)
    error = capsys.readouterr().err
    assert status == 2 and message in error and not run.exists()
