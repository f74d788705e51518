"""The styles that are shipped: small, there, unlike each other and unlike the input."""

from itertools import combinations

import numpy as np
import pytest

from static_dynamic.configs import CONFIG_DIR, row
from static_dynamic.stylize import load_generator, train_shipped
from static_dynamic.stylize.pictures import run_once, to_tensor
from static_dynamic.stylize.train_shipped import STYLES, key_frames
from tests.conftest import moving_square
from tests.datasets.test_frames import write_video

ROWS = row("style", "shipped").styles


def test_the_table_names_what_the_script_trains():
    names = [ROWS[k].checkpoint for k in sorted(ROWS)]
    assert names == [f"stylize/styles/{name}.safetensors" for name in STYLES]
    assert sorted(STYLES.values()) == sorted(row("style", "builtin").styles)


def test_they_are_small_and_differ():
    image = np.kron(np.random.default_rng(0).integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    pictures = [image]
    for k in sorted(ROWS):
        path = CONFIG_DIR.parent / ROWS[k].checkpoint
        assert path.stat().st_size < 3_000_000
        pictures.append(run_once(load_generator(path), to_tensor(image)))
    for a, b in combinations(pictures, 2):
        assert np.abs(a.astype(float) - b).mean() > 20


@pytest.mark.parametrize("count", [1, 2, 3])
def test_key_frames_are_spread_over_shots(tmp_path, monkeypatch, count):
    shots = [moving_square(seed, n=20) // 2 + 60 * seed for seed in range(2)]
    video = write_video(tmp_path / "cuts.mkv", np.concatenate(shots))
    monkeypatch.setattr(train_shipped, "fetch", lambda asset: video)
    frames = key_frames({"bikes": count})
    assert len(frames) == count and all(min(frame.shape[:2]) == 256 for frame in frames)
    assert len({frame.tobytes() for frame in frames}) >= min(count, 2)  # of both shots
