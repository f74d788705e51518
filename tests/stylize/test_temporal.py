"""Flow, filter and guides: against motion that is known, and against slow versions of the definitions."""

import colorsys
import math
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from static_dynamic.errors import UserError
from static_dynamic.stylize.bilateral import bilateral
from static_dynamic.stylize.flow import (
    colour_flow,
    colour_wheel,
    consistent,
    dense_flow,
    grid,
    warp,
    write_flo,
)
from static_dynamic.stylize.guides import draw_disks, poisson_disk, sample_points, track
from static_dynamic.stylize.temporal import DIRECTIONS, main
from tests.conftest import write_frames
from tests.stylize.moving import texture, translation

INNER = (slice(16, -16), slice(16, -16))


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """One value of an image whose border goes on outside, in float64."""
    height, width = image.shape[:2]
    x0, y0 = math.floor(x), math.floor(y)
    total = 0.0
    for i, j in ((0, 0), (1, 0), (0, 1), (1, 1)):
        weight = (x - x0 if i else 1 - x + x0) * (y - y0 if j else 1 - y + y0)
        total = total + weight * image[
            min(max(y0 + j, 0), height - 1), min(max(x0 + i, 0), width - 1)
        ].astype(float)
    return total


def middlebury(u: float, v: float, full: float) -> list[int]:
    """Colour of one vector, as the Middlebury evaluation's C program computes it."""
    wheel = []
    for i in range(15):
        wheel.append((255, 255 * i // 15, 0))
    for i in range(6):
        wheel.append((255 - 255 * i // 6, 255, 0))
    for i in range(4):
        wheel.append((0, 255, 255 * i // 4))
    for i in range(11):
        wheel.append((0, 255 - 255 * i // 11, 255))
    for i in range(13):
        wheel.append((255 * i // 13, 0, 255))
    for i in range(6):
        wheel.append((255, 0, 255 - 255 * i // 6))
    radius = math.hypot(u, v) / full
    position = (math.atan2(-v, -u) / math.pi + 1) / 2 * 54
    below = int(position)
    share = position - below
    pixel = []
    for first, second in zip(wheel[below], wheel[(below + 1) % 55], strict=True):
        value = ((1 - share) * first + share * second) / 255
        pixel.append(int(255 * (1 - radius * (1 - value) if radius <= 1 else 0.75 * value)))
    return pixel


def slow_bilateral(frames: np.ndarray, t: int, window: int, divisor: float) -> np.ndarray:
    """The filter, pixel by pixel."""
    out = np.zeros(frames.shape[1:], np.uint8)
    chains = {  # flows from t outwards
        step: [
            dense_flow(frames[i], frames[i + step])
            for i in range(t, len(frames) - 1 if step > 0 else 0, step)
        ]
        for step in (-1, 1)
    }
    for y, x in np.ndindex(frames.shape[1:3]):
        centre = frames[t, y, x].astype(float)
        total, weights = centre, 1.0
        for step, flows in chains.items():
            px, py = float(x), float(y)
            for k, flow in enumerate(flows[:window], start=1):
                dx, dy = bilinear(flow, px, py)
                px, py = px + dx, py + dy
                value = bilinear(frames[t + step * k], px, py)
                sigma_t, sigma_c = window / 3, math.sqrt(3 * 255**2) / divisor
                weight = math.exp(-(k**2) / (2 * sigma_t**2))
                weight *= math.exp(-((value - centre) ** 2).sum() / (2 * sigma_c**2))
                total, weights = total + weight * value, weights + weight
        out[y, x] = np.floor(total / weights + 0.5)
    return out


@pytest.mark.parametrize("step", [(2.0, -1.0), (0.5, 0.25), (-3.3, 1.7)])
def test_flow_finds_a_known_translation(step):
    first, second = translation(2, step)
    error = np.linalg.norm(dense_flow(first, second)[INNER] - step, axis=-1)
    assert np.median(error) < 0.1


def test_flow_refuses_frames_of_two_sizes_and_small_ones():
    frames = translation(2, (1, 0))
    with pytest.raises(UserError, match="one size, not 128x96 and 127x96"):
        dense_flow(frames[0], frames[1][:, 1:])
    with pytest.raises(UserError, match="frames have 12x12 pixels: optical flow needs at least 16x16"):
        dense_flow(frames[0][:12, :12], frames[1][:12, :12])


def test_warp_is_the_slow_one():
    image = texture(1, 20, 24)
    flow = np.random.default_rng(0).uniform(-4, 4, (20, 24, 2)).astype(np.float32)
    expected = [[bilinear(image, x + flow[y, x, 0], y + flow[y, x, 1]) for x in range(24)] for y in range(20)]
    np.testing.assert_allclose(warp(image, flow), expected, atol=1e-2)


def test_consistency_leaves_out_what_is_covered_and_what_leaves():
    flow = np.zeros((20, 30, 2), np.float32)
    flow[..., 0] = 3
    good = consistent(flow, -flow)
    assert good[:, :27].all() and not good[:, 27:].any()  # the last three columns leave
    back = -flow
    back[:, 10:20] = (4, 0)  # something else moves there
    assert not consistent(flow, back)[:, 8:16].any()


def test_flo_files_come_back(tmp_path):
    flow = np.random.default_rng(0).normal(size=(7, 11, 2)).astype(np.float32)
    write_flo(tmp_path / "a.flo", flow)
    data = (tmp_path / "a.flo").read_bytes()
    assert data[:4] == b"PIEH" and len(data) == 12 + 7 * 11 * 8
    np.testing.assert_array_equal(cv2.readOpticalFlow(str(tmp_path / "a.flo")), flow)
    np.testing.assert_array_equal(np.frombuffer(data, "<f4", offset=12)[:2], flow[0, 0])


@pytest.mark.parametrize("full", [None, 3.0])
def test_colours_are_those_of_middlebury(full):
    flow = np.random.default_rng(0).normal(scale=2, size=(9, 12, 2)).astype(np.float32)
    longest = math.sqrt(float(np.square(flow).sum(-1).max())) + 1e-5
    expected = [[middlebury(float(u), float(v), full or longest) for u, v in line] for line in flow]
    difference = np.abs(colour_flow(flow, full).astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # float32 beside a whole number


def test_colours_tell_directions():
    assert colour_wheel().shape == (55, 3)
    flow = np.array([[[1, 0], [-1, 0], [0, 1], [0, 0]]], np.float32)
    right, left, down, still = colour_flow(flow, 1.0)[0] / 255
    hues = [360 * colorsys.rgb_to_hsv(*colour)[0] for colour in (right, left, down)]
    assert min(hues[0], 360 - hues[0]) < 8 and 150 < hues[1] < 215 and 40 < hues[2] < 90
    np.testing.assert_array_equal(still, 1)  # white
    assert (colour_flow(np.zeros((3, 3, 2), np.float32)) == 255).all()


def test_poisson_disk_points_keep_their_distance_and_fill_the_picture():
    points = poisson_disk(99, 59, 10, np.random.default_rng(0))
    gaps = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(len(points))
    assert gaps.min() >= 10
    everywhere = grid(60, 100).reshape(-1, 1, 2)
    assert np.linalg.norm(everywhere - points, axis=-1).min(1).max() < 20  # no room for one more, nearly
    again = poisson_disk(99, 59, 10, np.random.default_rng(0))
    np.testing.assert_array_equal(points, again)


def test_points_lie_on_the_mask():
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 20:60], mask[:10] = 200, 64  # 64 does not count
    points = sample_points(mask, 5, np.random.default_rng(0))
    assert len(points) > 20
    assert (points >= (20, 10)).all() and (points < (60, 50)).all()


def test_carrying_is_the_slow_one():
    rng = np.random.default_rng(0)
    flow = rng.normal(size=(20, 30, 2)).astype(np.float32)
    points = rng.uniform((-5, -5), (35, 25), (50, 2))
    inside = points.clip(0, (29, 19))
    expected = [p + bilinear(flow, *q) for p, q in zip(points, inside, strict=True)]
    np.testing.assert_allclose(track(points, flow), expected, atol=1e-6)


def test_disks_are_the_slow_ones():
    points, sigma = np.array([[10.3, 8.0], [14.0, 9.5], [-2.0, 3.0]]), 2.0
    colours = np.float32([[1, 0, 0.5], [0, 1, 0], [1, 1, 1]])
    expected = np.zeros((20, 30, 3))
    for y, x in np.ndindex(20, 30):
        for p, colour in zip(points, colours, strict=True):
            dx, dy = x - p[0], y - p[1]
            if max(abs(dx), abs(dy)) <= 3 * sigma:
                weight = math.exp(-(dx**2 + dy**2) / sigma**2)
                expected[y, x] = (1 - weight) * expected[y, x] + weight * colour
    assert np.abs(draw_disks(points, colours, sigma, 20, 30) - 255 * expected).max() <= 0.51


def test_the_filter_is_the_slow_one():
    rng = np.random.default_rng(0)
    frames = translation(5, (1.5, 0.5), height=18, width=20).astype(float)
    frames = np.clip(frames + rng.normal(0, 12, frames.shape), 0, 255).astype(np.uint8)
    filtered = list(bilateral(iter(frames), window=2, divisor=16))
    assert len(filtered) == 5
    for t in (0, 2, 4):
        assert np.abs(filtered[t].astype(int) - slow_bilateral(frames, t, 2, 16)).max() <= 1


def test_the_filter_takes_noise_off_what_moves_and_keeps_edges():
    """A plain mean over time takes off more noise where nothing moves, and smears what does."""
    rng = np.random.default_rng(0)
    clean = np.where(translation(21, (2.0, 1.0)) > 127, 200, 50).astype(np.float32)  # hard edges, moving
    noisy = np.clip(clean + rng.normal(0, 10, clean.shape), 0, 255).astype(np.uint8)
    t = 10
    filtered = list(bilateral(iter(noisy)))[t].astype(float)
    mean = noisy[t - 5 : t + 6].mean(0)
    error = {
        k: np.abs(v - clean[t])[INNER] for k, v in (("none", noisy[t]), ("ours", filtered), ("mean", mean))
    }
    edges = cv2.Laplacian(clean[t].mean(-1), cv2.CV_32F)[INNER] != 0
    assert error["ours"][~edges].mean() < 0.5 * error["none"][~edges].mean()
    assert error["ours"][edges].mean() < 0.8 * error["none"][edges].mean() < 0.2 * error["mean"][edges].mean()


def test_memory_is_a_window(monkeypatch):
    """However long the video, no more than a window of it is asked for ahead."""
    frames = translation(12, (1, 0), height=32, width=32)
    asked = []

    def source():
        for i, frame in enumerate(frames):
            asked.append(i)
            yield frame

    for t, _ in enumerate(bilateral(source(), window=3)):
        assert asked[-1] == min(t + 3, 11)


def test_flow_command_writes_both_directions(tmp_path):
    frames = write_frames(tmp_path / "frames", translation(4, (2.0, 1.0)))
    assert main(["flow", "--input", str(frames), "--output", str(tmp_path / "out"), "--full", "4"]) == 0
    assert sorted(p.name for p in (tmp_path / "out" / "flow_fwd").iterdir()) == [
        f"00000{i}.flo" for i in (2, 3, 4)
    ]
    assert sorted(p.name for p in (tmp_path / "out" / "flow_bwd").iterdir()) == [
        f"00000{i}.flo" for i in (1, 2, 3)
    ]
    to_next, to_past = (
        cv2.readOpticalFlow(str(tmp_path / "out" / f / "000002.flo"))[INNER] for f in ("flow_bwd", "flow_fwd")
    )
    np.testing.assert_allclose(np.median(to_next, (0, 1)), (2, 1), atol=0.1)
    np.testing.assert_allclose(np.median(to_past, (0, 1)), (-2, -1), atol=0.1)
    for _, folders in DIRECTIONS.values():
        image = cv2.imread(str(tmp_path / "out" / folders["colour"] / "000002.png"))[..., ::-1]
        flow = cv2.readOpticalFlow(str(tmp_path / "out" / folders["flo"] / "000002.flo"))
        np.testing.assert_array_equal(image, colour_flow(flow, 4.0))


def test_the_original_command_line_runs_from_a_checkout(tmp_path):
    for module in ("stylize.temporal", "static_dynamic.stylize.temporal"):
        command = [sys.executable, "-m", module, "flow", "--input", "nowhere", "--output", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr == "error: nowhere does not exist\n"


@pytest.mark.parametrize("command", ["flow", "bilateral", "guide"])
def test_a_stopped_command_goes_on_and_ends_with_the_same_bytes(tmp_path, command):
    for k in range(2):  # a folder of videos
        write_frames(tmp_path / "in" / f"v{k}", translation(6, (1.0, k), height=40, width=48, seed=k))
        mask = np.full((1, 40, 48, 3), 255, np.uint8)
        write_frames(tmp_path / "masks" / f"v{k}", mask)
    extra = {"flow": [], "bilateral": ["--window", "2"], "guide": ["--masks", str(tmp_path / "masks")]}[
        command
    ]
    arguments = [command, "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *extra]
    assert main(arguments) == 0
    files = {p: p.read_bytes() for p in (tmp_path / "out").rglob("v*/*.*")}
    assert len(files) == {"flow": 2 * 2 * 2 * 5, "bilateral": 2 * 6, "guide": 2 * 2 * 6}[command]
    gone = sorted(files)[1::3]
    stamps = {p: p.stat().st_mtime_ns for p in files if p not in gone}
    for path in gone:
        path.unlink()
    assert main(arguments) == 0
    assert {p: p.read_bytes() for p in files} == files
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert not list((tmp_path / "out").rglob(".*"))


def test_the_guide_follows_what_moves(tmp_path):
    frames = write_frames(tmp_path / "frames", translation(6, (3.0, 2.0)))
    mask = np.zeros((96, 128, 3), np.uint8)
    mask[30:60, 40:80] = 255
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "003.png"), mask)  # the key frame is neither the first nor the last
    arguments = [
        "--input",
        frames,
        "--masks",
        tmp_path / "masks",
        "--output",
        tmp_path / "out",
        "--sigmas",
        "4",
    ]
    assert main(["guide", *map(str, arguments)]) == 0
    files = sorted((tmp_path / "out" / "input_gdisko_gauss_r10_s4").iterdir())
    guides = [cv2.imread(str(path)).astype(int) for path in files]
    assert len(guides) == 6 and guides[2][30:60, 40:80].mean() > 20
    for t, guide in enumerate(guides):
        there = np.roll(guides[2], (2 * (t - 2), 3 * (t - 2)), (0, 1))
        assert np.abs(guide - there).mean() < 0.15 * guides[2].mean()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["flow", "--input", "nowhere"], "nowhere does not exist"),
        (["flow", "--input", "empty"], "empty holds neither images nor videos"),
        (["flow", "--input", "one"], "one has 1 frames, but at least 2 are needed"),
        (["guide", "--input", "frames", "--masks", "empty"], "empty holds no images"),
        (["guide", "--input", "frames", "--masks", "stray"], "no frame has the number of mask .*000009.png"),
        (["guide", "--input", "frames", "--masks", "small"], "to the frame's size of 48x40 pixels"),
        (["bilateral", "--input", "frames", "--window", "3"], "made with .*'window': 15.*another --output"),
    ],
)
def test_what_a_user_can_mend_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_frames(tmp_path / "frames", translation(3, (1, 0), height=40, width=48))
    write_frames(tmp_path / "one", translation(1, (1, 0), height=40, width=48))
    write_frames(tmp_path / "small", np.full((1, 20, 24, 3), 255, np.uint8))
    write_frames(tmp_path / "stray", np.full((1, 40, 48, 3), 255, np.uint8))
    (tmp_path / "stray" / "000001.png").rename(tmp_path / "stray" / "000009.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bilateral.json").write_text('{"window": 15, "divisor": 16.0}\n')
    assert main([*arguments, "--output", "out"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0 and error.startswith("error:")
    assert re.search(message, error)
