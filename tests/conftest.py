"""Small videos and data sets that tests make themselves; a cache of their own where nothing real is
needed."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real videos; tests that need it skip where it is absent."""
    if not (SHARED / "data" / "clips").is_dir():
        pytest.skip("real videos are not here (shared/data)")
    return SHARED / "data"


@pytest.fixture
def one_thread():
    """Last digits of activations depend on the number of threads, here and in processes that tests start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def in_process(tmp_path, monkeypatch, capsys, caplog):
    """Run a command's ``main`` in this process, in a folder of its own: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")

    def call(program, *arguments):
        caplog.clear()
        monkeypatch.setattr(sys, "argv", [program.__file__, *map(str, arguments)])
        try:
            status = program.main()
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err + caplog.text  # pytest takes log lines for itself

    return call


def write_frames(folder: Path, frames: np.ndarray) -> Path:
    """Write (n, H, W, 3) uint8 RGB as a lossless image folder."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames, start=1):
        cv2.imwrite(str(folder / f"{i:06d}.png"), frame[..., ::-1])
    return folder


def moving_square(seed: int, n: int = 12, side: int = 48) -> np.ndarray:
    """A textured square that moves over a textured ground: (n, side, side, 3) uint8."""
    draw = np.random.default_rng(seed)
    ground = draw.integers(0, 160, (side, side, 3))
    patch = draw.integers(100, 255, (12, 12, 3))
    step = draw.integers(-3, 4, 2)
    frames = np.repeat(ground[None], n, axis=0).astype(np.uint8)
    for t in range(n):
        y, x = (18 + step * (t - n // 2)).clip(0, side - 12)
        frames[t, y : y + 12, x : x + 12] = patch
    return frames


@pytest.fixture
def stylized(tmp_path):
    """A stylized folder of four short clips in two styles (the second with colours turned round)."""
    root = tmp_path / "stylized"
    for clip in range(4):
        frames = moving_square(clip)
        write_frames(root / "style_1" / f"clip{clip}", frames)
        write_frames(root / "style_2" / f"clip{clip}", 255 - frames[..., ::-1])
    return root
