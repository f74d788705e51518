"""The main job on data sets in the layout of the paper's, run by users' command lines."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import main
from static_dynamic.datasets.write import write_store
from tests.conftest import moving_square, write_frames

SMALL = (
    "model.init=random model.input.size=40 model.input.crop=32 num_workers=0 n_boot=20 --styles 1,2".split()
)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, caplog):
    """Run main.py in an empty folder: (status, stderr), and the manifest of the latest run."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")

    def call(*arguments):
        caplog.clear()
        shutil.rmtree(tmp_path / "dim_outputs", ignore_errors=True)
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, arguments), *SMALL])
        try:
            status = main.main()
        except SystemExit as stop:
            status = stop.code
        message = capsys.readouterr().err + caplog.text
        manifest = next(Path("dim_outputs").rglob("manifest.json"), None)
        return status, message, manifest and json.loads(manifest.read_text())

    return call


def make_frames(root: Path, names, styles=(0, 1, 2), count=40) -> Path:
    for i, name in enumerate(names):
        frames = moving_square(i, n=count)
        for style in styles:
            write_frames(root / f"style_{style}" / name, frames ^ np.uint8(37 * style))
    return root


@pytest.fixture
def ssv2(tmp_path):
    """Six clips of two classes with a style 0; the annotations list a seventh clip."""
    root = make_frames(tmp_path / "ssv2", [str(i) for i in range(6)])
    templates = ["Closing [something]", "Opening [something]"]
    lines = [{"id": str(i), "template": templates[i % 2]} for i in range(7)]
    (root / "something-something-v2-validation.json").write_text(json.dumps(lines))
    labels = {"Closing something": "0", "Opening something": "1"}
    (root / "something-something-v2-labels.json").write_text(json.dumps(labels))
    return root


def test_ssv2(run, ssv2):
    status, message, manifest = run(
        "--stylized_data_dir", ssv2, "--dataset", "ssv2", "--model", "x3d_xs", "--stg", 5
    )
    assert status == 0, message
    assert manifest["identity"]["model"]["num_classes"] == 174
    assert manifest["filtered_clips"] == {"not on disk": ["6"]} and manifest["skipped_clips"] == []
    assert (
        manifest["frame_rates"] == {"12": 6}
        and "6 clips are at 12" in message
        and "resample_fps=30 corrects it" in message
    )
    assert "1 clips were left out, not on disk: 6" in message


def test_resampling_changes_what_is_seen(run, ssv2):
    arguments = ("dataset=ssv2", f"stylized_data_dir={ssv2}", "model=x3d_xs", "n_sample_frames=40")
    shown = {}
    for fps in ("null", 30):
        status, message, manifest = run(*arguments, f"resample_fps={fps}")
        assert status == 0 and ("corrects it" in message) == (fps != 30), message
        views = pd.read_parquet(next(Path("dim_outputs").rglob("views.parquet")))
        shown[fps] = np.stack(views[views["order"] == "forward"]["frames_rgb"])
    assert np.ptp(shown["null"], axis=1).min() == 39 and np.ptp(shown[30], axis=1).max() <= 16


@pytest.mark.parametrize(
    ("scheme", "flags"),
    [
        ("factorial", "--app_shuffle False"),
        ("paper", "--m_same False"),
        ("factorial", "--use_normal_app True"),
    ],
)
def test_flags_of_the_original(run, ssv2, scheme, flags):
    arguments = ("--stylized_data_dir", ssv2, "--dataset", "ssv2", "--model", "x3d_xs", f"pairs={scheme}")
    status, message, manifest = run(*arguments, *flags.split())
    assert status == 0, message
    flag, value = flags.removeprefix("--").split()
    assert manifest["identity"][flag] == (value == "True")
    assert manifest["identity"]["window"] == {"factorial": "drawn", "paper": "drawn_short"}[scheme]


def test_unstylized_videos_may_lie_elsewhere(run, ssv2, tmp_path):
    (ssv2 / "style_0").rename(tmp_path / "normal")
    arguments = ("dataset=ssv2", f"stylized_data_dir={ssv2}", "model=x3d_xs", "--use_normal_app", "True")
    status, message, _ = run(*arguments)
    assert status == 2 and "has no style_0" in message
    assert run(*arguments, "--normal_data_root", tmp_path / "normal")[0] == 0
    status, message, _ = run(*arguments, "--normal_data_root", tmp_path / "nowhere")
    assert status == 2 and "normal_data_root=" in message


def test_activitynet_keeps_the_models_head(run, tmp_path):
    root = make_frames(tmp_path / "a", ["v_one", "v_two"], (1, 2))
    video = {"subset": "validation", "duration": 8.0, "annotations": [{"label": "x", "segment": [1, 7.7]}]}
    database = {"one": video, "two": {**video, "num_frames": 40}, "three": {**video, "duration": 6}}
    (root / "activitynet_v13.json").write_text(json.dumps({"database": database}))
    arguments = ("--stylized_data_dir", root, "--dataset", "StylizedActivityNet", "--model", "x3d_xs")
    status, message, manifest = run(*arguments, "pairs=paper")
    assert status == 0, message
    assert manifest["identity"]["model"]["num_classes"] == 400 and manifest["identity"]["window"] == "first"
    views = pd.read_parquet(next(Path("dim_outputs").rglob("views.parquet")))
    assert {f.min() for f in views["frames_rgb"]} == {5} and max(f.max() for f in views["frames_rgb"]) <= 37


def test_diving48_from_frame_stores(run, tmp_path):
    frames = make_frames(tmp_path / "frames", ["a_00001", "b_00002"], (1, 2), count=24)
    root = tmp_path / "d"
    for video in frames.glob("style_*/*"):
        write_store(video, root / video.parent.name / video.name, first=0)
    lines = [{"vid_name": n, "label": 1, "start_frame": 0, "end_frame": 24} for n in ("a_00001", "b_00002")]
    (root / "Diving48_V2_test.json").write_text(json.dumps(lines))
    (root / "Diving48_vocab.json").write_text(json.dumps([["Back"]] * 48))
    status, message, manifest = run("--stylized_data_dir", root, "--dataset", "Diving48", "--model", "x3d_xs")
    assert status == 0, message
    assert manifest["identity"]["model"]["num_classes"] == 48 and "frame rate: unknown for 2 clips" in message


def test_a_zero_byte_jpg_stops_the_run_or_is_skipped(run, ssv2):
    for file in (ssv2 / "style_2" / "3").iterdir():
        file.write_bytes(b"")
    arguments = ("--stylized_data_dir", ssv2, "--dataset", "ssv2", "--model", "x3d_xs")
    status, message, _ = run(*arguments)
    assert status == 2 and "style_2/3/" in message and "is not a readable image" in message
    status, message, manifest = run(*arguments, "on_error=skip")
    assert status == 0 and {v["clip"] for v in manifest["skipped_views"]} == {"3"}


def test_rectangular_inputs_run_to_the_end(run, tmp_path, monkeypatch):
    root = make_frames(tmp_path / "data", ["a", "b", "c"], styles=(1, 2), count=12)
    small = [word for word in SMALL if "input" not in word]
    monkeypatch.setitem(globals(), "SMALL", small)
    data = ("--dataset", "folder", "--stylized_data_dir", root, "model=x3d_xs")
    status, _, manifest = run(*data, "model.input.size=[40,71]", "model.input.crop=[32,64]")
    assert status == 0 and manifest["identity"]["model"]["input"]["size"] == [40, 71]
