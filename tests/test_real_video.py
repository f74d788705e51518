"""Command lines that users have in their scripts, on stylized copies of real videos."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

import main
from static_dynamic.configs import row
from static_dynamic.datasets.frames import open_frames
from static_dynamic.models import build_model
from static_dynamic.stylize.exemplars import render
from tests.conftest import write_frames

VIDEOS = ("archery.avi", "cat.mp4", "yoga.mp4")
SMALL = ["model.input.size=64", "model.input.crop=64", "num_workers=0", "n_boot=20"]


@pytest.fixture(scope="module")
def stylized_clips(shared_data, tmp_path_factory):
    """Three real videos, 64 frames each, small, in the four built-in styles."""
    root = tmp_path_factory.mktemp("clips")
    for video in VIDEOS:
        frames = open_frames(shared_data / "clips" / video).read(range(64))
        small = [cv2.resize(frame, (96, 64), interpolation=cv2.INTER_AREA) for frame in frames]
        for k, style in row("style", "builtin").styles.items():
            write_frames(root / f"style_{k}" / Path(video).stem, np.stack([render(f, style) for f in small]))
    return root


@pytest.mark.parametrize(
    ("name", "flags", "stage"),
    [
        ("slowfast_r50_8x8", "--stg 5 --path fast --fuse True", "stage5/fuse1/fast"),
        ("i3d", "--stg 3 --joint_encoding True", "stage3"),
    ],
)
def test_a_zoo_checkpoint_on_a_data_set(stylized_clips, tmp_path, monkeypatch, capsys, name, flags, stage):
    torch.save({"model_state": build_model(name, seed=1).state_dict(), "epoch": 1}, tmp_path / "zoo.pyth")
    command = (
        f"--stylized_data_dir {stylized_clips} --dataset folder --model {name} --checkpoint zoo.pyth {flags}"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", *command.split(), *SMALL])
    assert main.main() == 0
    out = capsys.readouterr().out
    assert f"{stage}:\n >>> Estimated factor dimensionalities: [" in out
    (folder,) = (p.parent for p in tmp_path.rglob("manifest.json"))
    layers = pd.read_csv(folder / "layers.csv").set_index("stage")
    net = build_model(name)
    assert dict(layers["units"]) == {key: value.units for key, value in net.stages.items()}
    dims = (tmp_path / "dim_outputs" / f"{name}_dim_est.csv").read_text().splitlines()[0]
    assert [int(d) for d in dims.split(",")] == [
        int(layers.loc[stage, f"dims_{f}"]) for f in ("dynamic", "static", "residual")
    ]
