"""``task=train_calibrated`` trains, profiles and compares; a second call trains only what is missing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

import main
from static_dynamic.analysis.estimate.trained import compare, folder_of, summarise

TINY = (
    "task=train_calibrated",
    "task.steps=2",
    "task.checkpoints=1",
    "task.batch_size=2",
    "task.train_videos=2",
    "task.test_videos=4",
    "num_workers=0",
    "n_boot=20",
    "styles='1,2'",
    "task.networks=[small_cnn]",
    "task.conditions=[layout,shortcut,static_dropout]",
)


def test_the_task_writes_its_results_and_resumes(in_process, tmp_path, monkeypatch):
    monkeypatch.setenv("SD_CACHE", str(tmp_path / "cache"))
    options = (*TINY, f"save_dir={tmp_path / 'out'}")
    status, out, err = in_process(main, *options, "task.seeds=1")
    assert status == 0, out + err
    (folder,) = (tmp_path / "out" / "train_calibrated").iterdir()
    table = pd.read_csv(folder / "training.csv")
    assert len(table) == 3 * 2 * 4  # conditions, checkpoints, stages
    parts = table[["content", "motion", "appearance", "residual"]]
    np.testing.assert_allclose(parts.dropna().sum(axis=1), 1, atol=1e-6)
    assert "static_dropout - shortcut" in out and (folder / "training.png").stat().st_size > 10_000

    # The second call trains what is missing, and leaves what is finished as it is.
    ends = sorted(folder.glob("small_cnn/*/*/training.csv"))
    before = {file: file.stat().st_mtime_ns for file in ends}
    ends[0].unlink()
    kept = ends[0].with_name("step_000099")
    kept.mkdir()  # left by a training that was stopped
    status, out, err = in_process(main, *options, "task.seeds=2")
    assert status == 0, out + err
    assert not kept.exists() and len(list(folder.glob("small_cnn/*/*/training.csv"))) == 6
    assert all(file.stat().st_mtime_ns == before[file] for file in ends[1:])
    again = pd.read_csv(folder / "training.csv")
    pd.testing.assert_frame_equal(again[again["seed"] == 1].reset_index(drop=True), table)


def test_differences_are_paired_by_seed():
    rng = np.random.default_rng(0)
    rows = [
        {"network": "n", "condition": condition, "seed": seed, "step": step, "stage": stage}
        | {"accuracy": seed / 10, "motion": seed + effect + 0.1 * rng.standard_normal()}
        | {"content": 0.0, "appearance": 0.0, "residual": 0.0}
        for condition, effect in (("velocity", 0.5), ("layout", 0.0))
        for seed in range(5)
        for step in (0, 10)
        for stage in ("a", "b")
    ]
    table = pd.DataFrame(rows)
    found = compare(table)
    assert found["stage"].tolist() == ["a", "b"] and (found["seeds"] == 5).all()
    last = table[(table["step"] == 10) & (table["stage"] == "b")].set_index(["condition", "seed"])["motion"]
    each = (last["velocity"] - last["layout"]).to_numpy()
    half = 2.776445 * each.std(ddof=1) / np.sqrt(5)  # Student's t, 4 degrees of freedom
    row = found.iloc[1]
    assert row["difference"] == pytest.approx(each.mean())
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(
        (each.mean() - half, each.mean() + half)
    )
    mean = summarise(table).set_index(["condition", "step", "stage"]).loc[("velocity", 10, "b")]
    assert mean["motion"] == pytest.approx(last["velocity"].mean()) and mean["seeds"] == 5
    assert mean["motion_high"] - mean["motion"] > 1  # seeds differ much more than the differences do


def test_the_folder_depends_on_what_changes_a_training(tmp_path):
    task = {"steps": 2, "seeds": 1, "outdir": None, "networks": ["small_cnn"]}
    cfg = {"task": task, "dataset": {"render": {"seed": 0}}, "styles": "1,2", "orders": ["forward"]}
    cfg = OmegaConf.create({**cfg, "seed": 1, "save_dir": str(tmp_path)})
    folder = folder_of(cfg)
    cfg.task.seeds = 5
    assert folder_of(cfg) == folder
    cfg.task.steps = 3
    assert folder_of(cfg) != folder
    cfg.task.outdir = str(tmp_path / "mine")
    assert folder_of(cfg) == Path(tmp_path / "mine")
