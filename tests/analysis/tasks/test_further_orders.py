"""Main job with all frame orders: shards, motion columns, and networks that cannot see the order."""

import sys

import numpy as np
import pandas as pd
import pytest

import main
from static_dynamic.analysis.run.manifest import read_manifest, write_manifest
from static_dynamic.analysis.run.store import Store
from tests.conftest import moving_square, write_frames

COLUMNS = ["motion", "motion_reshuffled", "motion_direction", "motion_any"]
ORDERS = "orders=[forward,shuffled,reshuffled,reversed,frozen]"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight short clips in two styles."""
    root = tmp_path_factory.mktemp("data")
    for clip in range(8):
        frames = (moving_square(clip, n=8, side=24) * np.random.default_rng(clip).uniform(0.2, 1, 3)).astype(
            "u1"
        )
        for k, style in enumerate((frames, frames // 2 + 60), start=1):
            write_frames(root / f"style_{k}" / f"clip{clip}", style)
    return root


@pytest.fixture
def job(data, tmp_path, monkeypatch):
    """Run the main job, or another task, on the clips; return the run folder."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *options: str, temporal: bool = True, status: int = 0):
        arguments = [
            *("model=custom", "model.target=tests.test_motion_truth.build", "model.init=random"),
            *(f"+model.options.temporal={temporal}", "model.input.frames=8", "model.input.size=24"),
            *("model.input.crop=24", "dataset=folder", f"dataset.root={data}", "styles='1,2'", ORDERS),
            *("num_workers=0", "n_boot=20", "n_permutations=39", "batch_size=6", f"save_dir={tmp_path}"),
        ]
        monkeypatch.setattr(sys, "argv", ["main.py", *arguments, f"run_dir={tmp_path / name}", *options])
        assert main.main() == status
        return tmp_path / name

    return run


def test_shards_with_all_orders_are_the_run(job, tmp_path, monkeypatch, capsys):
    whole = job("whole")
    views = pd.read_parquet(whole / "views.parquet")
    assert views.groupby(["clip", "style"])["order"].nunique().eq(5).all()
    job("parts", "shards=2", "shard=0")
    job("parts", "shards=2", "shard=1")
    shards = f"runs=[{tmp_path}/parts.0-of-2,{tmp_path}/parts.1-of-2]"
    job("parts", "task=merge", shards)
    for name in ("views.parquet", "pairs.parquet", "status.npy", "layers.csv", "units.parquet"):
        assert (whole / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    for file in (whole / "activations").iterdir():
        assert file.read_bytes() == (tmp_path / "parts" / "activations" / file.name).read_bytes()
    layers = pd.read_csv(whole / "layers.csv")
    for column in COLUMNS:
        assert layers[[column, f"{column}_low", f"{column}_high", f"p_{column}"]].notna().all(axis=None)
    assert len(Store.open(whole).finished_pairs()) == 8 * (1 + 2)
    assert "motion_direction %" in capsys.readouterr().out
    assert "motion_any" in (whole / "report.html").read_text()


@pytest.mark.filterwarnings("error::pandas.errors.PerformanceWarning")
def test_a_killed_run_with_all_orders_goes_on_to_the_same_bytes(job, tmp_path, monkeypatch, capsys):
    whole = job("whole")
    write, calls = Store.write, []

    def killed(self, rows, *values):
        calls.append(rows)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(self, rows, *values)

    monkeypatch.setattr(Store, "write", killed)
    parts = job("parts", status=130)
    capsys.readouterr()
    job("any", "task=status")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("parts"))
    assert line.split() == ["parts", "stopped", "80", "10", "0", "70"]  # batches of five orders
    job("parts", "orders=[frozen,reversed,reshuffled,shuffled,forward]")
    assert len(calls) == 3 + 14  # the two batches of before are not computed again
    for name in ("views.parquet", "pairs.parquet", "layers.csv", "units.parquet", "report.html"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    for file in (whole / "activations").iterdir():
        assert file.read_bytes() == (parts / "activations" / file.name).read_bytes()


def test_a_merged_run_is_data(job, tmp_path, monkeypatch, capsys):
    """A manifest names code, a secret and an output folder; task=merge uses none of the three."""
    monkeypatch.setenv("SD_TEST_SECRET", "hunter2")
    for shard in (0, 1):
        folder = job("parts", "shards=2", f"shard={shard}").parent / f"parts.{shard}-of-2"
        manifest = read_manifest(folder)
        manifest["identity"]["model"] = {
            "name": "../${oc.env:SD_TEST_SECRET}",
            "family": "custom",
            "target": "os.system",
            "options": {"command": f"touch {tmp_path}/canary"},
            "init": "${oc.env:SD_TEST_SECRET}",
        }
        manifest["identity"] |= {
            "save_dir": str(tmp_path / "elsewhere"),
            "pairs": "${oc.env:SD_TEST_SECRET}",
            "n_boot": 10**9,
        }
        manifest |= {"original_name": "..", "shown_stages": ["no such stage"], "deepest_stage": "second"}
        write_manifest(folder, manifest)
    capsys.readouterr()
    merged = job("parts", "task=merge", f"runs=[{tmp_path}/parts.0-of-2,{tmp_path}/parts.1-of-2]")
    captured = capsys.readouterr()
    written = [path for path in tmp_path.rglob("*") if path.suffix in (".csv", ".html", ".txt", ".json")]
    texts = [captured.out, captured.err, *(path.read_text() for path in written)]
    assert not any("hunter2" in text for text in texts)
    assert not (tmp_path / "canary").exists() and not (tmp_path / "elsewhere").exists()
    assert (merged / "report.html").exists() and "${oc.env:SD_TEST_SECRET}" in captured.out


def test_a_network_of_single_frames_sees_no_order_but_frozen_frames(job):
    layers = pd.read_csv(job("blind", temporal=False) / "layers.csv")
    for column in COLUMNS[:3]:
        assert layers[column].abs().max() < 1e-6 and (layers[f"p_{column}"] == 1).all()
    # The mean over frames of a moving square differs from one frame, so motion_any may be above 0.
    assert layers["motion_any"].notna().all()
