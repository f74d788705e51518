"""The yardsticks see what their names say."""

import numpy as np
import pytest
import torch

from static_dynamic.datasets.scenes import Look, Scene, heading, render
from static_dynamic.models import build_model
from static_dynamic.models.yardstick import DIRECTIONS, SPEEDS, gradients, grey

SIZE, FRAMES = 64, 16
LOOK = Look(0.16, 0.18, (10, 20, 30), (230, 220, 210))


@pytest.fixture(scope="module")
def net():
    return build_model("yardstick")


def video_of(scene, look=LOOK, seed=0):
    brightness, palette = render(scene, look, np.random.default_rng(seed), SIZE, FRAMES)
    return torch.from_numpy(palette[brightness].transpose(3, 0, 1, 2)[None] / 255).float()


def angle_between(first, second):
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    return np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))


def read(net, video):
    return {name: rows[0].numpy() for name, rows in net.read(net.prepare(video)).items()}


@pytest.mark.parametrize("direction", range(0, 360, 45))
@pytest.mark.parametrize("family", ["flow", "dots"])
def test_velocity_and_motion_energy_tell_the_direction(net, family, direction):
    scene = Scene(family, float(direction), 1 / SIZE, "steady", 1.0, "disc", 0.5, 0.5)
    rows = [read(net, video_of(scene, seed=seed)) for seed in range(4)]
    velocity = np.mean([row["velocity"].reshape(2, -1).mean(axis=1) for row in rows], axis=0)
    assert angle_between(velocity, heading(direction)) < 10
    if family == "flow":  # dots appear and vanish, which no velocity explains
        np.testing.assert_allclose(np.linalg.norm(velocity), 1, atol=0.2)
    energy = np.mean([row["motion_energy"] for row in rows], axis=0).reshape(DIRECTIONS, len(SPEEDS))
    preferred = heading(np.arange(DIRECTIONS) * 360 / DIRECTIONS)
    assert angle_between(energy.sum(axis=1) @ preferred, heading(direction)) < 20


def test_still_scenes_have_no_velocity_and_no_drift(net):
    rows = read(net, video_of(Scene("flow", 0.0, 0.0, "steady", 1.0, "disc", 0.5, 0.5)))
    assert np.abs(rows["velocity"]).max() < 1e-5 and np.abs(rows["drift"]).max() < 1e-4


def test_drift_changes_its_sign_when_the_video_is_reversed(net):
    video = video_of(Scene("sprites", 0.0, 1 / SIZE, "steady", 1.0, "disc", 0.3, 0.5))
    forward, backward = read(net, video)["drift"], read(net, video.flip(2))["drift"]
    assert np.abs(forward).max() > 0.1
    np.testing.assert_allclose(forward, -backward, atol=1e-5)


@pytest.mark.parametrize("stage", ["colour", "layout", "edges"])
def test_stages_of_single_frames_do_not_see_the_order(net, stage):
    video = video_of(Scene("sprites", 0.0, 1 / SIZE, "steady", 1.0, "disc", 0.3, 0.5))
    shuffled = video[:, :, torch.randperm(FRAMES, generator=torch.Generator().manual_seed(0))]
    np.testing.assert_allclose(read(net, video)[stage], read(net, shuffled)[stage], rtol=1e-6)


def test_layout_finds_the_shape_in_any_look(net):
    scene = Scene("layout", 0.0, 0.0, "steady", 1.0, "disc", 0.375, 0.625)  # centre of cell (2, 1)
    inverted = Look(0.22, 0.12, (230, 200, 180), (40, 60, 10))
    for look, seed in ((LOOK, 0), (inverted, 1)):
        share = read(net, video_of(scene, look, seed))["layout"].reshape(4, 4)
        assert share.mean() == pytest.approx(1, abs=0.01)
        assert np.unravel_index(share.argmax(), share.shape) == (2, 1)


def test_edges_and_colour_equal_slow_oracles(net):
    video = video_of(Scene("flow", 30.0, 1 / SIZE, "steady", 1.0, "disc", 0.5, 0.5))
    rows = read(net, video)
    across, down = (gradient[0].double().numpy() for gradient in gradients(grey(video)))
    histogram = np.zeros((FRAMES, 8))
    for t in range(FRAMES):
        for x, y in zip(across[t].ravel(), down[t].ravel(), strict=True):
            position = (np.arctan2(y, x) % np.pi) / np.pi * 8
            low, rest = int(position) % 8, position - int(position)
            histogram[t, low] += np.hypot(x, y) * (1 - rest)
            histogram[t, (low + 1) % 8] += np.hypot(x, y) * rest
    histogram /= histogram.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rows["edges"], histogram.mean(axis=0), rtol=1e-3)
    red, green, blue = video[0].double().numpy()
    opponent = (red - green) / 2**0.5, (red + green - 2 * blue) / 6**0.5, (red + green + blue) / 3**0.5
    moments = [o.mean() for o in opponent] + [(o**2).mean() for o in opponent]
    np.testing.assert_allclose(rows["colour"], moments, rtol=1e-5, atol=1e-7)
