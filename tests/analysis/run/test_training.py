"""Training on rendered scenes: labels, shortcut, batches, StaticDropout, and networks that learn."""

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
import torch

from static_dynamic.analysis.run.training import Schedule, StaticDropout, train
from static_dynamic.datasets.calibrated import DIRECTIONS, STYLES, draw_scenes
from static_dynamic.datasets.scenes import PATTERNS, heading, path
from static_dynamic.datasets.training_scenes import (
    CLASSES,
    GRID,
    labels_of,
    mean_place,
    render_training,
    with_shortcut,
)
from static_dynamic.errors import UserError
from static_dynamic.models import build_model

CPU = torch.device("cpu")


def test_labels_name_direction_cell_and_wavelength():
    videos, truth = render_training(24, 16, 4, 2, seed=0)
    assert videos.shape == (24 * len(STYLES), 3, 2, 16, 16) and videos.dtype == np.uint8
    for _, scene in truth.iterrows():
        row = pd.DataFrame([scene])
        assert DIRECTIONS[labels_of("velocity", row, 4)[0]] == scene["direction"]
        down, across = divmod(labels_of("layout", row, 4)[0], GRID)
        # the slow way: follow the shape from frame to frame, as a point on two circles
        x, y, steps = scene["x"], scene["y"], [(0.0, 0.0)]
        for time in (0.5 / 3, 1.5 / 3, 2.5 / 3):
            step = scene["speed"] * PATTERNS[scene["pattern"]](np.array(time)) * heading(scene["direction"])
            steps.append((steps[-1][0] + step[0], steps[-1][1] + step[1]))
        for start, moved, cell in zip((x, y), np.transpose(steps), (across, down), strict=True):
            mean = (start + sum(moved) / 4) % 1
            assert cell / GRID <= mean <= (cell + 1) / GRID
    for target, classes in CLASSES.items():
        labels = labels_of(target, truth, 4)
        assert set(labels) <= set(range(classes))
    assert truth.groupby(labels_of("texture", truth, 4))["wavelength"].max().is_monotonic_increasing
    assert (pd.crosstab(labels_of("texture", truth, 4), truth["style"]) > 0).to_numpy().sum() > 4


def test_with_a_shortcut_the_mean_place_tells_the_direction():
    for scene in draw_scenes("sprites", 24, 0):
        moved = with_shortcut(scene, 24)
        cell = np.floor(GRID * mean_place(moved, 24)) - 1
        assert cell @ heading(scene.direction) / np.linalg.norm(cell) == pytest.approx(1)
        within = [GRID * mean_place(s, 24) % 1 for s in (scene, moved)]
        np.testing.assert_allclose(*within, atol=1e-9)
    _, free = render_training(24, 16, 4, 2, seed=0)
    _, short = render_training(24, 16, 4, 2, seed=0, shortcut=1.0)
    cells = pd.crosstab(labels_of("velocity", short, 4), labels_of("layout", short, 4))
    assert ((cells > 0).sum() <= 1).all() and ((cells > 0).sum(axis=1) == 1).all()
    same = [name for name in free if name not in ("x", "y")]
    pd.testing.assert_frame_equal(free[same], short[same])


@pytest.mark.parametrize("frame", [0, 12, 23, None])
def test_no_place_tells_the_direction(frame):
    """A table that was learnt from other scenes cannot read the direction from a place (None: the mean)."""

    def cells(seed):
        for scene in draw_scenes("sprites", 4000, seed):
            steps = path(scene, 24)
            moved = steps.mean(axis=0) if frame is None else steps[frame]
            place = (np.array([scene.x, scene.y]) + moved) % 1
            yield tuple((6 * place).astype(int)), scene.direction

    counts = defaultdict(Counter)
    for cell, direction in cells(0):
        counts[cell][direction] += 1
    right = np.mean([counts[cell].most_common(1)[0][0] == direction for cell, direction in cells(1)])
    assert abs(right - 1 / len(DIRECTIONS)) < 4 * np.sqrt(1 / 8 * 7 / 8 / 4000)


def test_static_units_are_dropped_as_often_as_they_are_static():
    static = np.array([0.0, 0.5, 1.0, 1.7, -0.2, np.nan])
    dropout = StaticDropout(0.8, seed=0)
    module = torch.nn.Identity()
    maps = torch.ones(4000, 6, 2, 1, 1)
    assert dropout(module, (), maps) is maps  # nothing has been measured
    dropout.update(static)
    dropped = dropout(module, (), maps)
    assert (dropped.std(dim=2) == 0).all()  # whole units
    share = (dropped == 0).float().mean(dim=(0, 2, 3, 4)).numpy()
    np.testing.assert_allclose(share, [0, 0.4, 0.8, 0.8, 0, 0], atol=0.03)
    np.testing.assert_allclose(dropped.mean(dim=(0, 2, 3, 4)), 1, atol=0.1)
    tokens = dropout(module, (), torch.ones(4000, 7, 6))
    np.testing.assert_allclose((tokens == 0).float().mean(dim=(0, 1)), share, atol=0.04)
    assert dropout(module.eval(), (), maps) is maps


@pytest.mark.parametrize("name", ["small_cnn", "small_transformer"])
def test_a_network_learns_and_the_same_seed_gives_the_same_weights(name):
    videos = np.zeros((8, 3, 8, 32, 32), np.uint8)
    labels = np.arange(8) % 2
    videos[labels == 1] = 255
    schedule = Schedule(steps=12, batch_size=4, learning_rate=0.01, checkpoints=2)
    assert schedule.measured == [0, 6, 12]
    nets = [build_model(name, num_classes=2) for _ in range(2)]
    for net in nets:
        seen = [(step, loss, net.training) for step, loss in train(net, videos, labels, schedule, 1, CPU)]
        steps, losses, training = zip(*seen, strict=True)
        assert steps == (0, 6, 12) and not any(training)
        assert losses[2] < losses[1] and losses[2] < 0.3
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_loss_that_is_not_finite_is_one_line():
    videos, labels = np.zeros((4, 3, 8, 32, 32), np.uint8), np.arange(4) % 2
    schedule = Schedule(steps=2, batch_size=2, learning_rate=0.01, checkpoints=1)
    net = build_model("small_cnn", num_classes=2)
    net.head.weight.fill_(np.nan)
    with pytest.raises(UserError, match="task.learning_rate"):
        list(train(net, videos, labels, schedule, 1, CPU))
