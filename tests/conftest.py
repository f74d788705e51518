"""Fixtures that make small videos and data sets, and that run commands in this process."""

import importlib
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.paths import ROOT, SHARED
from tests.slow import SECONDS, SLOW, unknown


def pytest_collection_modifyitems(items):
    """Mark the tests that tests/slow.py lists, and run the files that hold them first.

    Files are divided between processes: a slow file that begins last would keep one process busy alone.
    """
    if unknown():
        raise pytest.UsageError(f"tests/slow.py lists tests that do not exist: {', '.join(unknown())}")
    for item in items:
        file = item.path.relative_to(ROOT / "tests").as_posix()
        if file in SLOW or f"{file}::{item.originalname}" in SLOW:
            item.add_marker(pytest.mark.slow)
    slow = Counter(item.path for item in items if "slow" in item.keywords)
    whole = {ROOT / "tests" / entry for entry in SLOW}
    items.sort(key=lambda item: (item.path not in whole, -slow[item.path]))


def pytest_terminal_summary(terminalreporter):
    """Name the tests that took long and are not marked as slow."""
    reports = [report for report in terminalreporter.stats.get("passed", []) if report.duration > SECONDS]
    for report in reports:
        if "slow" not in report.keywords:
            terminalreporter.write_line(f"{report.duration:.0f} s, not in tests/slow.py: {report.nodeid}")


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real videos; tests that need it are skipped where it is absent."""
    if not (SHARED / "data" / "clips").is_dir():
        pytest.skip("no real videos (shared/data)")
    return SHARED / "data"


@pytest.fixture
def one_thread():
    """Use one thread: the last digits of activations depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def in_process(tmp_path, monkeypatch, capsys, caplog):
    """Run a command's ``main`` in this process and in an empty folder: (status, stdout, stderr)."""
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
        return status, captured.out, captured.err + caplog.text  # pytest captures log lines separately

    return call


@pytest.fixture
def call(monkeypatch, capsys):
    """Run ``main`` of a script in misc/ in this process, with arguments: (status, stdout, stderr)."""

    def run(script: str, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        status = importlib.import_module(f"misc.{script.removesuffix('.py')}").main()
        return status, *capsys.readouterr()

    return run


def write_frames(folder: Path, frames: np.ndarray) -> Path:
    """Write (n, H, W, 3) uint8 RGB as a lossless image folder."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames, start=1):
        cv2.imwrite(str(folder / f"{i:06d}.png"), frame[..., ::-1])
    return folder


def moving_square(seed: int, n: int = 12, side: int = 48) -> np.ndarray:
    """Draw a textured square that moves over a textured background: (n, side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    background = rng.integers(0, 160, (side, side, 3))
    patch = rng.integers(100, 255, (12, 12, 3))
    step = rng.integers(-3, 4, 2)
    frames = np.repeat(background[None], n, axis=0).astype(np.uint8)
    for t in range(n):
        y, x = (18 + step * (t - n // 2)).clip(0, side - 12)
        frames[t, y : y + 12, x : x + 12] = patch
    return frames


@pytest.fixture
def stylized(tmp_path):
    """A stylized folder of four short clips in two styles (the second with inverted colours)."""
    root = tmp_path / "stylized"
    for clip in range(4):
        frames = moving_square(clip)
        write_frames(root / "style_1" / f"clip{clip}", frames)
        write_frames(root / "style_2" / f"clip{clip}", 255 - frames[..., ::-1])
    return root
