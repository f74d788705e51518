"""Networks whose motion is known by construction, through the whole program."""

import sys

import numpy as np
import pandas as pd
import torch
from torch import nn

import main
from static_dynamic.analysis.estimate.decomposition import PARTS
from tests.conftest import moving_square, write_frames

CLIPS = 14


class FrameByFrame(nn.Module):
    """Two 2D convolutions, applied to each frame on its own, and a classifier of the mean over frames."""

    def __init__(self, temporal: bool):
        super().__init__()
        time = 3 if temporal else 1  # a kernel of three frames can see their order
        torch.manual_seed(0)
        self.first = nn.Conv3d(3, 12, (1, 5, 5), (1, 2, 2))
        self.second = nn.Conv3d(12, 16, (time, 3, 3), (1, 2, 2))
        self.head = nn.Linear(16, 5)

    def forward(self, video):
        x = torch.relu(self.second(torch.relu(self.first(video))))
        return self.head(x.mean((2, 3, 4)))


def build(temporal):
    return FrameByFrame(temporal)


def layers_of(temporal, tmp_path, monkeypatch):
    """Run the main job on moving squares in three styles; return the tables of layers and of units."""
    root = tmp_path / "data"
    for clip in range(CLIPS if not root.exists() else 0):
        contrast = np.random.default_rng(clip).uniform(0.2, 1, 3)  # of the colours
        frames = (moving_square(clip) * contrast).astype(np.uint8)
        for k, style in enumerate((frames, frames // 2 + 60, frames // 4 * 3), start=1):
            write_frames(root / f"style_{k}" / f"clip{clip}", style)
    options = [
        *("model=custom", f"model.target={__name__}.build", f"+model.options.temporal={temporal}"),
        *("model.init=random", "model.input.frames=8", "model.input.size=40", "model.input.crop=40"),
        *("dataset=folder", f"dataset.root={root}", "styles='1,2,3'", "num_workers=0", "n_boot=20"),
        *("n_permutations=199", f"run_dir={tmp_path / f'run{temporal}'}", f"save_dir={tmp_path / 'out'}"),
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", *options])
    assert main.main() == 0
    run = tmp_path / f"run{temporal}"
    return pd.read_csv(run / "layers.csv").set_index("stage"), pd.read_parquet(run / "units.parquet")


def test_a_network_that_sees_single_frames_has_no_motion(tmp_path, monkeypatch):
    layers, units = layers_of(False, tmp_path, monkeypatch)
    assert len(layers) == 2 and (layers["p_motion"] == 1).all() and (layers["carries_motion"] == 0).all()
    live = units[units["kind"] != "dead"]
    assert len(live) > 20 and live["motion"].abs().max() < 1e-6
    assert (units[["p_motion", "p_family_motion"]] == 1).all(axis=None)
    # The paper's score calls the same network dynamic.
    assert layers["score_dynamic"].iloc[0] > 0.2


def test_a_network_that_sees_three_frames_at_a_time_has_motion(tmp_path, monkeypatch):
    layers, _ = layers_of(True, tmp_path, monkeypatch)
    first, second = (layers.loc[stage] for stage in layers.index)
    assert abs(first["motion"]) < 1e-6 and first["p_motion"] == 1
    assert second["motion_low"] > 0 and second["p_motion"] < 0.01
    np.testing.assert_allclose(layers[list(PARTS)].sum(axis=1), 1)
