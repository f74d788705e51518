"""The built-in styles: each changes the picture, none moves it, and all are the same for every frame."""

from itertools import combinations

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from static_dynamic.configs import row
from static_dynamic.errors import UserError
from static_dynamic.stylize.exemplars import render
from tests.conftest import moving_square

STYLES = OmegaConf.to_container(row("style", "builtin").styles)


@pytest.fixture(scope="module")
def frame():
    small = moving_square(0, n=1, side=60)[0]
    return cv2.GaussianBlur(cv2.resize(small, (240, 240), interpolation=cv2.INTER_CUBIC), (0, 0), 2)


@pytest.mark.parametrize("style", STYLES.values(), ids=lambda s: s["rendering"])
def test_a_shifted_frame_gives_a_shifted_rendering(frame, style):
    """What sticks to the screen would add order-blind structure; local filters commute with translation."""
    shift, border = 8, 40
    whole, shifted = render(frame, style), render(np.roll(frame, (shift, shift), axis=(0, 1)), style)
    moved = np.roll(whole, (shift, shift), axis=(0, 1))
    inner = (slice(border, -border),) * 2
    assert np.abs(moved[inner].astype(int) - shifted[inner]).max() <= 2


@pytest.mark.parametrize("style", STYLES.values(), ids=lambda s: s["rendering"])
def test_a_rendering_is_a_function_of_the_frame(frame, style):
    original = frame.copy()
    out = render(frame, style)
    assert out.shape == frame.shape and out.dtype == np.uint8
    np.testing.assert_array_equal(out, render(frame, style))
    np.testing.assert_array_equal(frame, original)


def test_styles_differ_from_each_other_and_from_the_original(frame):
    pictures = [frame, *(render(frame, style) for style in STYLES.values())]
    for a, b in combinations(pictures, 2):
        assert np.abs(a.astype(int) - b).mean() > 20


def test_motion_is_kept():
    """Dense flow between two renderings is that between the two frames."""
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (200, 200, 3)).astype(np.uint8), (0, 0), 4)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    first, second = texture[20:180, 20:180], texture[17:177, 15:175]  # content moves by (5, 3)
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for style in STYLES.values():
        a, b = (
            cv2.cvtColor(render(np.ascontiguousarray(f), style), cv2.COLOR_RGB2GRAY) for f in (first, second)
        )
        flow = dis.calc(a, b, None)[30:-30, 30:-30]
        assert np.median(np.linalg.norm(flow - (5, 3), axis=-1)) < 0.3, style["rendering"]


def test_an_unknown_rendering_is_named(frame):
    with pytest.raises(UserError, match="nearest known: charcoal"):
        render(frame, {"rendering": "charcole"})
