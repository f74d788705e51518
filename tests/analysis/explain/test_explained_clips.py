"""The network's input under the rules of Stergiou et al.'s code equals what that code makes of the frames."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from static_dynamic import configs
from static_dynamic.analysis.explain.explained_clips import ShownClip, make_clip
from static_dynamic.datasets.frames import open_frames
from static_dynamic.models import InputSpec
from tests.conftest import write_frames

ROW = configs.row("model", "cfp_mfnet").input
SPEC = InputSpec(
    **{key: ROW[key] for key in ("frames", "sampling_rate", "size", "crop", "fps")}
    | {"mean": tuple(ROW.mean), "std": tuple(ROW.std)}
)
MEAN, STD = np.array([124, 117, 104]) / 255, np.array([0.229, 0.224, 0.225])


def of_the_original(folder: Path, size: int) -> np.ndarray:
    """Read, squash, cut and normalise as the original does; (3, T, 224, 224)."""
    frames = [cv2.resize(cv2.imread(str(file)), (size, size)) for file in sorted(folder.iterdir())]
    cut = (size - 224) // 2
    frames = [frame[cut : cut + 224, cut : cut + 224, ::-1] / 255 for frame in frames]
    return np.transpose((np.stack(frames) - MEAN) / STD, (3, 0, 1, 2))


def clip(path: Path) -> ShownClip:
    return make_clip("v", open_frames(path), 0, None)


@pytest.mark.parametrize("shape", [(120, 200), (300, 100), (256, 256), (64, 64)])
def test_frames_are_squashed_under_the_original_rules(tmp_path, shape):
    frames = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    write_frames(tmp_path / "v", frames)
    shown, positions = clip(tmp_path / "v"), np.arange(3)
    expected = torch.from_numpy(of_the_original(tmp_path / "v", 256)).float()
    torch.testing.assert_close(shown.read(positions, SPEC, "original"), expected, rtol=0, atol=2e-6)
    corrected = shown.read(positions, SPEC)
    assert torch.equal(corrected, shown.read(positions, SPEC, "corrected"))
    if shape[0] != shape[1]:
        assert (corrected - expected).abs().mean() > 0.1


def test_frames_of_a_frames_db_are_squashed_to_the_size_of_the_input(tmp_path, call):
    frames = np.random.default_rng(0).integers(0, 256, (3, 120, 200, 3), dtype=np.uint8)
    write_frames(tmp_path / "in" / "v", frames)
    assert call("make_frames_db.py", tmp_path / "in", tmp_path / "out")[0] == 0
    shown = clip(tmp_path / "out" / "v")
    stored = shown.frames.read([0, 1, 2])
    expected = np.stack([cv2.resize(frame, (224, 224)) for frame in stored]) / 255
    expected = torch.from_numpy(np.transpose((expected - MEAN) / STD, (3, 0, 1, 2))).float()
    torch.testing.assert_close(shown.read(np.arange(3), SPEC, "original"), expected, rtol=0, atol=2e-6)
