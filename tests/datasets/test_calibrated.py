"""The calibrated data set shows what its table of truth says."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from omegaconf import OmegaConf

from static_dynamic import configs
from static_dynamic.datasets import list_clips
from static_dynamic.datasets.calibrated import (
    DIRECTIONS,
    STYLES,
    draw_look,
    draw_scenes,
    prepare,
    read_scenes,
    write_all,
)
from static_dynamic.datasets.frames import open_frames
from static_dynamic.datasets.scenes import FAMILIES, PATTERNS, Look, Scene, path, render
from static_dynamic.errors import UserError

LOOK = Look(0.16, 0.18, (20, 30, 40), (220, 210, 200))
SIZE = 48


def scene_of(family, **changes):
    return replace(Scene(family, 45.0, 1 / 48, "steady", 1.0, "disc", 0.5, 0.5), **changes)


def displacement(first, second):
    """Find the displacement with the largest cross-correlation, to whole pixels: the slow, obvious way."""
    first, second = first - first.mean(), second - second.mean()
    found = max(
        ((dy, dx) for dy in range(-8, 9) for dx in range(-8, 9)),
        key=lambda step: (np.roll(first, step, (0, 1)) * second).sum(),
    )
    return found[::-1]


def render_grey(scene, frames=9, look=LOOK, seed=0):
    return render(scene, look, np.random.default_rng(seed), SIZE, frames)[0].astype(float)


@pytest.mark.parametrize("family", ["flow", "dots"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_textures_and_dots_move_as_the_truth_says(family, direction):
    scene = scene_of(family, direction=float(direction), speed=1.5 / SIZE)
    frames = render_grey(scene, 5)
    np.testing.assert_allclose(displacement(frames[0], frames[4]), path(scene, 5)[4] * SIZE, atol=1)


def test_figure_and_ground_move_in_opposite_directions():
    scene = scene_of("figures", direction=0.0, speed=1 / SIZE)
    frames = render_grey(scene, 5)
    middle = slice(SIZE // 2 - 6, SIZE // 2 + 6)
    change = displacement(frames[0], frames[4])
    assert change[0] < 0  # most of the frame is ground
    errors = [np.abs(np.roll(frames[0], d, 1) - frames[4])[middle, middle].mean() for d in (4, -4)]
    assert errors[0] < errors[1] / 2


def test_turning_scenes_come_back_and_other_patterns_travel_equally_far():
    ends = {
        name: path(scene_of("flow", pattern=name, direction=0.0), 33)[-1, 0] * 48 / 32 for name in PATTERNS
    }
    assert ends == pytest.approx({"steady": 1, "turning": 0, "speeding": 1, "slowing": 1})


def test_still_shapes_flicker_in_place():
    frames = render_grey(scene_of("layout", x=0.3, y=0.7), 40)
    contrast = frames.std(axis=0)
    rows, columns = np.nonzero(contrast > contrast.max() / 2)
    np.testing.assert_allclose([columns.mean() / SIZE, rows.mean() / SIZE], [0.3, 0.7], atol=0.03)
    correlation = np.corrcoef(frames[:-1].reshape(39, -1), frames[1:].reshape(39, -1))
    assert abs(np.diag(correlation[:39, 39:]).mean()) < 0.1  # each frame has a new texture


@pytest.mark.parametrize("family", FAMILIES)
def test_looks_share_no_texture(family):
    scene = scene_of(family, speed=0.0, coherence=1.0)
    first, second = (render_grey(scene, 1, seed=seed)[0].ravel() for seed in (1, 2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.25


def test_no_single_frame_shows_the_figure():
    inside, outside = [], []
    for seed in range(30):
        frame = render_grey(scene_of("figures"), 3, seed=seed)[1] - 31.5
        inside.append(frame[16:32, 16:32].std())
        outside.append(np.concatenate([frame[:10].ravel(), frame[-10:].ravel()]).std())
    difference = np.subtract(inside, outside)
    assert abs(difference.mean()) < 3 * difference.std() / np.sqrt(30)


def test_factors_are_balanced():
    scenes = list(draw_scenes("sprites", 24, 0))
    counts = {
        name: np.unique([getattr(s, name) for s in scenes], return_counts=True)[1]
        for name in ("direction", "speed", "pattern", "coherence", "shape")
    }
    assert all(len(set(n)) == 1 for n in counts.values()), counts
    for places in ([s.x for s in scenes], [s.y for s in scenes]):
        assert sorted((24 * np.array(places)).astype(int)) == list(range(24))
    assert len(set(scenes)) == 24 and scenes == list(draw_scenes("sprites", 24, 0))
    assert scenes != list(draw_scenes("sprites", 24, 1))


def digest(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [(f.relative_to(root), hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]


def test_the_same_seed_gives_the_same_bytes_and_the_loader_reads_all_styles(tmp_path):
    settings = {"families": ["flow", "layout"], "videos": 3, "size": 32, "frames": 5}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_all(tmp_path / name, **settings, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")
    dataset = OmegaConf.merge(configs.row("dataset", "calibrated"), {"root": str(tmp_path / "a")})
    assert len(list_clips(dataset, STYLES).clips) == 6
    frames = open_frames(tmp_path / "a" / "style_2" / "flow_001").read(range(5))
    look = draw_look("flow_001", 2, 0)
    assert frames.shape == (5, 32, 32, 3)
    # All colours lie between the two colours of the look.
    for channel, ends in enumerate(zip(look.dark, look.light, strict=True)):
        assert min(ends) <= frames[..., channel].min() and frames[..., channel].max() <= max(ends)
    scenes = read_scenes(tmp_path / "a").set_index("video")
    assert len(scenes) == 6 and (scenes.query("family == 'layout'")["speed"] == 0).all()


def test_prepare_makes_the_set_once_and_goes_on_after_an_interruption(tmp_path, monkeypatch):
    monkeypatch.setenv("SD_CACHE", str(tmp_path))
    dataset = configs.row("dataset", "calibrated")
    dataset.render = {"families": ["dots"], "videos": 2, "size": 32, "frames": 4, "seed": 0}
    root = prepare(dataset, OmegaConf.create())
    whole = digest(root)
    (root / "complete.json").unlink()
    left = root / "style_3" / ".dots_001.part"
    left.mkdir()
    (root / "style_3" / "dots_001").rename(left / "new")
    assert prepare(dataset, OmegaConf.create()) == root
    assert [entry for entry in digest(root) if ".part" not in str(entry[0])] == whole


def test_an_unknown_family_is_named(tmp_path):
    dataset = configs.row("dataset", "calibrated")
    dataset.render.families = ["dot"]
    with pytest.raises(UserError, match="unknown family 'dot'.*dots"):
        prepare(dataset, OmegaConf.create())
