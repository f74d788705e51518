"""The test of faithfulness tells a map that marks what a prediction depends on from one that does not."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from static_dynamic.analysis.explain import faithfulness
from static_dynamic.analysis.explain.faithfulness import (
    AREA,
    BLUR,
    format_clips,
    format_faithfulness,
    largest,
    measure_faithfulness,
)

SIZE, CELLS = (4, 20, 20), (2, 4, 4)
PLACE = np.zeros(CELLS, np.float32)
PLACE[:, 2:, 2:] = 1 + np.arange(8).reshape(2, 2, 2)  # a quarter of the frame


@pytest.fixture
def video():
    """Noise: blurring takes nearly all of its contrast away."""
    return torch.from_numpy(np.random.default_rng(0).standard_normal((3, *SIZE)).astype(np.float32))


def contrast(video):
    """The "probability" of a network that sees the lower right quarter only: the contrast there."""
    return float(video[:, :, 10:, 10:].square().mean())


def measure(monkeypatch, video, *maps, masks=19, sees=contrast):
    """Measure the faithfulness of given maps of the levels of a pyramid."""
    monkeypatch.setattr(faithfulness, "level_map", lambda pyramid, level: pyramid.maps[level - 1])
    pyramid, blank = (
        SimpleNamespace(maps=own, steps=maps, clip=SimpleNamespace(size=SIZE))
        for own in (maps, [np.zeros_like(m) for m in maps])
    )
    return measure_faithfulness(sees, video, pyramid, blank, masks, seed=1)


def test_only_the_map_of_the_place_that_counts_is_faithful(monkeypatch, video):
    elsewhere = PLACE[:, ::-1, ::-1].copy()
    table = measure(monkeypatch, video, PLACE, elsewhere, np.zeros(CELLS, np.float32)).set_index("level")
    right, wrong, empty = (table.loc[level] for level in (1, 2, 3))
    assert right["blurred"] < 0.3 and right["kept"] > 0.7
    assert right["blurred_better"] == right["kept_better"] == 19
    assert wrong["blurred"] == pytest.approx(1) and wrong["kept"] < 0.1
    assert wrong["blurred_better"] == wrong["kept_better"] == 0
    assert np.isnan([empty["blurred"], empty["kept"]]).all() and empty["kept_better"] == 0
    # Random masks blur a fifth of the place on average.
    assert table["blurred_random"].tolist()[:2] == pytest.approx([1 - AREA] * 2, abs=0.15)
    text = format_faithfulness(table.reset_index())
    assert text.count("marks what the prediction depends on") == text.count("not told from random") == 1
    assert text.count("is 0 everywhere") == 1
    lines = format_clips(table.reset_index()).splitlines()
    assert [line.split() for line in lines[-3:]] == [[*"1111"], [*"2100"], [*"3000"]]


def test_what_is_left_equals_the_slow_oracle(monkeypatch, video):
    """Voxel by voxel: sort the heat of the zoomed map, and blur the fifth with the most heat, or the rest."""
    table = measure(monkeypatch, video, PLACE, masks=2)
    heat = ndimage.zoom(PLACE.astype(float), [2, 5, 5], order=1, mode="nearest", grid_mode=True)
    heat = np.minimum(heat / np.percentile(PLACE, 99.5), 1e9)
    voxels = sorted(np.ndindex(SIZE), key=lambda v: -heat[v])[: round(AREA * heat.size)]
    sigma = BLUR * 20
    smooth = np.stack([[ndimage.gaussian_filter(f, sigma, mode="nearest") for f in c] for c in video.numpy()])
    blurred, kept = video.numpy().copy(), smooth.copy()
    for t, y, x in voxels:
        blurred[:, t, y, x] = smooth[:, t, y, x]
        kept[:, t, y, x] = video.numpy()[:, t, y, x]
    for way, changed in (("blurred", blurred), ("kept", kept)):
        expected = contrast(torch.from_numpy(changed)) / contrast(video)
        assert table[way].item() == pytest.approx(expected, abs=0.02)  # ties at the edge of the area


@pytest.mark.parametrize("smooth", [False, True], ids=["noise", "blob"])
def test_by_chance_a_meaningless_map_beats_all_random_masks_in_one_of_twenty(monkeypatch, smooth):
    """The network looks at a random place, which the map does not know: ranks among 20 are uniform."""
    wins, runs = np.zeros(2), 300
    for k in range(runs):
        rng = np.random.default_rng(k)
        video = torch.from_numpy(rng.standard_normal((3, *SIZE)).astype(np.float32))
        heat = rng.random(CELLS).astype(np.float32)
        if smooth:  # a blob at a random place, nearly the same in all frames
            blob = ndimage.gaussian_filter(np.pad([[1.0]], ((0, 3), (0, 3))), 1.0, mode="wrap")
            heat = np.roll(np.stack([blob, 0.9 * blob]), rng.integers(0, 4, 2), axis=(1, 2)).astype(
                np.float32
            )
        top, left = rng.integers(0, 20, 2)

        def looks(changed, top=top, left=left):
            return float(changed.roll((-int(top), -int(left)), (2, 3))[:, :, :10, :10].square().mean())

        monkeypatch.setattr(faithfulness, "generator", lambda *_, rng=rng: rng)
        row = measure(monkeypatch, video, heat, sees=looks).iloc[0]
        wins += [row["blurred_better"] == 19, row["kept_better"] == 19]
    assert (np.abs(wins / runs - 0.05) < 0.04).all(), wins / runs  # three standard errors


def test_a_mask_has_the_area_of_the_frames_that_the_pyramid_covers():
    rng = np.random.default_rng(0)
    mask = largest(np.zeros((1, 1, 1)), (4, 20, 20), (4, 10, 10), rng)
    assert mask.sum() == round(AREA * 400) and not mask[:, 10:].any() and not mask[:, :, 10:].any()
