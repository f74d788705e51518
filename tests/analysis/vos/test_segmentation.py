"""J and F against slow loops, on random and on hand-made masks; masks as files; the task on a small DAVIS."""

import json
import math
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from pycocotools import mask as coco

from static_dynamic.analysis.run.progress import progress_of
from static_dynamic.analysis.show.encoding import video_writer
from static_dynamic.analysis.tasks import evaluate_vos
from static_dynamic.analysis.vos.evaluation import foreground
from static_dynamic.analysis.vos.segmentation import (
    boundary,
    boundary_measure,
    coco_masks,
    object_mask,
    overlay,
    read_mask,
    region_similarity,
    resize_mask,
    summarize,
)
from static_dynamic.configs import CONFIG_DIR
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.errors import UserError
from static_dynamic.models.stages import InputSpec, VideoNetwork
from static_dynamic.models.twostream import TwoStreamNetwork


def slow_j(mask, truth):
    both = either = 0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            both += bool(mask[y, x] and truth[y, x])
            either += bool(mask[y, x] or truth[y, x])
    return both / either if either else 1.0


def slow_boundary(mask):
    """Pixels with a neighbour to the right, below or right below that is on the other side."""
    height, width = mask.shape
    found = []
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1)):
                # outside the picture the last row and column go on
                if mask[y, x] != mask[min(y + dy, height - 1), min(x + dx, width - 1)]:
                    found.append((y, x))
                    break
    return found


def slow_f(mask, truth):
    found, true = slow_boundary(mask), slow_boundary(truth)
    if not found and not true:
        return 1.0
    reach = math.ceil(0.008 * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))

    def share(lines, others):
        if not lines:
            return 1.0
        near = [any((y - v) ** 2 + (x - u) ** 2 <= reach**2 for v, u in others) for y, x in lines]
        return sum(near) / len(near)

    precision, recall = share(found, true), share(true, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def blob(seed, shape=(40, 61)):
    """A mask with several ragged parts, some of them at the border."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    return cv2.GaussianBlur(noise, (0, 0), 3) > 0.02


def square(top=10, left=12, side=15, shape=(40, 61)):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


EMPTY, FULL = np.zeros((40, 61), bool), np.ones((40, 61), bool)
SPECK = square(side=1)
LINE = square(side=40, top=0)  # from top to bottom
PAIRS = {
    "random": (blob(0), blob(1)),
    "one pixel off": (square(), square(top=11)),
    "far": (square(), square(left=40)),
    "inside": (square(), square(top=14, left=16, side=7)),
    "speck": (SPECK, square()),
    "whole picture": (FULL, square()),
    "to the border": (LINE, square()),
    "nothing found": (EMPTY, square()),
    "nothing there": (square(), EMPTY),
    "all found where nothing is": (FULL, EMPTY),
    "large": (blob(2, (150, 200)), blob(3, (150, 200))),  # a disk of two pixels
}


@pytest.mark.parametrize("name", PAIRS)
def test_measures_against_loops(name):
    for mask, truth in (PAIRS[name], PAIRS[name][::-1]):
        assert region_similarity(mask, truth) == pytest.approx(slow_j(mask, truth), abs=1e-12)
        if mask.size < 10_000:
            assert boundary_measure(mask, truth) == pytest.approx(slow_f(mask, truth), abs=1e-12)
        assert sorted(zip(*np.nonzero(boundary(mask)), strict=True)) == slow_boundary(mask)


def test_a_disk_of_two_pixels_against_loops():
    truth = square(30, 30, 40, (150, 200))  # the tolerance is ceil(0.008 * 250) = 2 pixels
    for shift, least, most in (((2, 0), 1, 1), ((2, 1), 0.98, 0.999), ((3, 0), 0.4, 0.9)):
        mask = square(30 + shift[0], 30 + shift[1], 40, (150, 200))
        measured = boundary_measure(mask, truth)
        assert least <= measured <= most and measured == pytest.approx(slow_f(mask, truth), abs=1e-12)


def test_what_the_numbers_mean():
    for mask in (square(), blob(4), FULL, EMPTY, SPECK):
        assert region_similarity(mask, mask) == boundary_measure(mask, mask) == 1
    # an object that is missed, or found where there is none
    for mask, truth in ((EMPTY, square()), (square(), EMPTY)):
        assert region_similarity(mask, truth) == boundary_measure(mask, truth) == 0
    # the whole picture has no boundary, as nothing has none
    assert region_similarity(FULL, EMPTY) == 0 and boundary_measure(FULL, EMPTY) == 1
    # shifted by one pixel: 14 of 15 columns shared, 16 seen; the boundary is within the tolerance
    assert region_similarity(square(), square(left=13)) == pytest.approx(14 / 16)
    assert boundary_measure(square(), square(left=13)) == 1
    assert boundary_measure(square(), square(left=30)) < 0.2
    for measure in (region_similarity, boundary_measure):
        with pytest.raises(UserError, match="40 x 61 and 61 x 40 pixels"):
            measure(square(), square().T)


def test_statistics_of_a_sequence():
    values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    statistics = summarize(values)
    # quarters end at frames 1, 3, 5, 7, 9 and share those
    assert statistics == pytest.approx((0.5, 4 / 9, 0.8 - 0.2))
    assert summarize([0.6] * 5) == pytest.approx((0.6, 1, 0))
    assert summarize([0.25]) == pytest.approx((0.25, 0, 0))
    # 1, 2.5, 4, 5.5, 7: halves are rounded up, to 3 and 6
    assert summarize([1, 1, 0.4, 0, 0, 0, 0.6]).decay == pytest.approx(2.4 / 3 - 0.3)


def test_masks_of_every_kind_of_picture(tmp_path):
    mask = square()
    plain = mask.astype(np.uint8)
    for name, picture in {
        "bool255": 255 * plain,
        "ones": plain,
        "colour": np.stack([np.zeros_like(plain), 128 * plain, np.zeros_like(plain)], axis=-1),
    }.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), mask)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(BadFrames, match="broken.png is not a readable image"):
        read_mask(tmp_path / "broken.png")
    np.testing.assert_array_equal(resize_mask(mask, (80, 122)), mask.repeat(2, 0).repeat(2, 1))


def test_masks_as_coco_file():
    masks = {"bear/00001.jpg": square(), "bear/00002.jpg": EMPTY}
    content = json.loads(json.dumps(coco_masks(masks)))
    for image, annotation, mask in zip(
        content["images"], content["annotations"], masks.values(), strict=True
    ):
        assert (image["height"], image["width"]) == mask.shape and annotation["image_id"] == image["id"]
        assert annotation["area"] == mask.sum()
        np.testing.assert_array_equal(coco.decode(annotation["segmentation"]), mask)
    assert content["annotations"][0]["bbox"] == [12, 10, 15, 15]


def test_overlay_video(tmp_path):
    image = np.full((41, 61, 3), 100, np.uint8)
    mask, truth = square(shape=(41, 61)), square(top=20, shape=(41, 61))
    picture = overlay(image, mask, truth)
    assert (picture[12, 14] != image[12, 14]).any(), "found"
    assert (picture[0, 0] == image[0, 0]).all() and (picture[30, 18] == image[30, 18]).all(), "neither"
    assert tuple(picture[34, 20]) == (240, 228, 66), "true outline"
    with video_writer(tmp_path / "overlay.mp4", 24, crf="20") as write:
        for _ in range(5):
            write(picture)
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 24
    assert len(frames) == 5 and frames[0].shape == (40, 60, 3)  # odd sides lose a row
    assert np.abs(frames[0].astype(int) - picture[:40, :60]).mean() < 6


class Bright(TwoStreamNetwork):
    """Finds what is bright in the image: right on the data set below."""

    def forward(self, inputs):
        image = inputs["Image"] if inputs["Image"].dim() == 4 else inputs["Image"].flatten(0, 1)
        return (image[:, :1] > 0.5).float()


class BrightPairs(Bright):
    channels = {"Image": 3, "Flow": 6}
    clip = (2,)


@pytest.fixture
def davis(tmp_path):
    """Two sequences of seven frames of a bright square that moves, with masks and flow pictures."""
    root = tmp_path / "davis"
    lines = []
    for sequence in ("bear", "swan"):
        for t in range(7):
            mask = 255 * square(left=5 + 3 * t, top=8).astype(np.uint8)
            for kind, ending, picture in (
                ("JPEGImages/480p", "jpg", mask // 2 + 60),
                ("Annotations/480p", "png", mask),
                ("FlowImages_gap1", "png", mask),
                ("FlowImages_gap-1", "png", mask),
            ):
                file = root / kind / sequence / f"{t:05d}.{ending}"
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(file), picture)
            lines.append(f"/JPEGImages/480p/{sequence}/{t:05d}.jpg /Annotations/480p/{sequence}/{t:05d}.png")
    (root / "ImageSets/480p").mkdir(parents=True)
    (root / "ImageSets/480p/val.txt").write_text("\n".join(lines))
    return root


def evaluate(monkeypatch, net_class, root, *options):
    """Run the task with a small network in place of the one of the row; the run folder."""

    def build(cfg):
        net = net_class()
        frames = 2 if net_class is BrightPairs else 1
        pathways = dict.fromkeys(("Image", "Flow"), frames)
        net.input_spec = InputSpec(frames, 1, (40, 61), (40, 61), (0.5,) * 3, (0.25,) * 3, pathways)
        return net, None

    monkeypatch.setattr(evaluate_vos, "build_network", build)
    words = [
        "task=evaluate_vos",
        "dataset=StylizedDAVIS",
        "model=fusionseg",
        "batch_size=3",
        "device=cpu",
        "num_workers=0",
        f"stylized_data_dir={root}",
        f"save_dir={root.parent / 'out'}",
        *options,
    ]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return evaluate_vos.run(compose("config", overrides=words))


@pytest.mark.parametrize("net_class", [Bright, BrightPairs])
def test_a_network_that_is_right(net_class, davis, monkeypatch, capsys):
    folder = evaluate(monkeypatch, net_class, davis)
    assert progress_of(folder)["state"] == "done"
    table = pd.read_csv(folder / "sequences.csv").set_index("sequence")
    assert list(table.index) == ["bear", "swan", "mean"]
    assert (table["frames"] == [5, 5, 10]).all()  # of seven, without the first and the last
    assert (table["J mean"] > 0.95).all() and (table["F mean"] > 0.99).all(), "but for what jpg did"
    assert (table["J recall"] == 1).all() and table["J decay"].abs().max() < 0.05
    # the first frame has a flow to the next alone
    stems = [f"{t:05d}" for t in range(1 if net_class is BrightPairs else 0, 6)]
    assert sorted(p.stem for p in (folder / "bear").glob("*.png")) == stems
    for t in (1, 5):
        np.testing.assert_array_equal(
            read_mask(folder / "bear" / f"{t:05d}.png"),
            read_mask(davis / "Annotations/480p/bear" / f"{t:05d}.png"),
        )
    written = json.loads((folder / "bear" / "masks.json").read_text())
    assert [image["file_name"] for image in written["images"]] == [f"bear/{stem}.jpg" for stem in stems]
    with av.open(str(folder / "bear" / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == len(stems)
    out = capsys.readouterr().out
    assert "fusionseg" in out and "2 sequences" in out and "bear" in out and "J mean" in out


def test_a_stopped_run_goes_on(davis, monkeypatch):
    folder = evaluate(monkeypatch, Bright, davis)
    before = (folder / "sequences.csv").read_bytes()
    (folder / "swan").rename(folder / "swan~")  # as when it is stopped in its midst
    kept = (folder / "bear" / "frames.csv").stat().st_mtime_ns
    seen = []
    forward = Bright.forward
    monkeypatch.setattr(Bright, "forward", lambda self, x: seen.append(len(x["Image"])) or forward(self, x))
    assert evaluate(monkeypatch, Bright, davis) == folder
    assert sum(seen) == 6, "the frames of one sequence"
    assert (folder / "sequences.csv").read_bytes() == before
    assert (folder / "bear" / "frames.csv").stat().st_mtime_ns == kept and not (folder / "swan~").exists()


def test_one_folder_is_one_run(davis, monkeypatch, tmp_path):
    folder = evaluate(monkeypatch, Bright, davis, f"run_dir={tmp_path / 'mine'}")
    assert folder == tmp_path / "mine"
    with pytest.raises(UserError, match="holds a run with other options .seed: 1 there, 2 now"):
        evaluate(monkeypatch, Bright, davis, f"run_dir={folder}", "seed=2")


def test_a_batch_that_does_not_fit(monkeypatch):
    net, seen = Bright(), []

    def tight(inputs):
        seen.append(len(inputs["Image"]))
        if len(inputs["Image"]) > 2:
            raise torch.OutOfMemoryError
        return Bright.forward(net, inputs)

    monkeypatch.setattr(net, "forward", tight)
    inputs = {name: torch.rand(5, 3, 8, 9) for name in ("Image", "Flow")}
    maps = foreground(net, inputs)
    np.testing.assert_array_equal(maps, (inputs["Image"][:, 0] > 0.5).float())
    assert seen == [5, 2, 3, 1, 2]
    monkeypatch.setattr(net, "forward", lambda x: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(UserError, match="one frame exceeds the device's memory"):
        foreground(net, inputs)


def test_what_is_missing_or_of_another_size(davis, monkeypatch):
    mask = davis / "Annotations/480p/swan/00003.png"
    cv2.imwrite(str(mask), np.zeros((20, 30), np.uint8))
    with pytest.raises(UserError, match="swan/00003.png has 30x20 pixels, the image 61x40"):
        evaluate(monkeypatch, Bright, davis)
    folder = evaluate(monkeypatch, Bright, davis, "on_error=skip")
    assert pd.read_csv(folder / "sequences.csv")["sequence"].tolist() == ["bear", "mean"]
    assert "00003.png" in json.loads((folder / "manifest.json").read_text())["skipped"]["swan"]
    mask.unlink()
    with pytest.raises(UserError, match="00003.png does not exist"):
        evaluate(monkeypatch, Bright, davis)
    with pytest.raises(UserError, match="has no masks"):
        evaluate(monkeypatch, Bright, davis, "dataset=StylizedDAVISCinematograms")


def test_a_network_that_segments_nothing(davis, monkeypatch):
    with pytest.raises(UserError, match="does not segment"):
        evaluate(monkeypatch, VideoNetwork, davis)


def test_probabilities_become_masks():
    probability = np.zeros((4, 6), np.float32)
    probability[:, 3:] = 1
    mask = object_mask(probability, (8, 12))
    assert mask.shape == (8, 12) and not mask[:, :5].any() and mask[:, 7:].all()


def test_masks_of_davis_itself(shared_data):
    files = sorted(Path(shared_data / "davis/Annotations/480p/blackswan").glob("*.png"))[:2]
    first, second = map(read_mask, files)
    assert region_similarity(first, first) == boundary_measure(first, first) == 1
    assert 0.5 < region_similarity(first, second) < 1 and 0.5 < boundary_measure(first, second) <= 1
