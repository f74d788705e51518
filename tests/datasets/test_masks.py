"""Masks of videos: every kind of file against labels that are known, and hard inputs in one line."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image
from pycocotools import mask as coco

from static_dynamic.datasets import list_clips
from static_dynamic.datasets.masks import VOID, open_masks
from static_dynamic.errors import UserError

HEIGHT, WIDTH, FRAMES = 12, 16, 5
VIDEOS = ("cats/a", "b")


def labels_of(video):
    """Labels (T, H, W) with two objects; the second appears in frame 2."""
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for t in range(FRAMES):
        labels[t, 2 : 6 + len(video), t : t + 4] = 1
        labels[t, 8:10, 9:12] = 2 * (t >= 2)
    return labels


@pytest.fixture
def clips(tmp_path):
    """Two videos with frames 000001.png ... in two styles."""
    for style, video in [(s, v) for s in (1, 2) for v in VIDEOS]:
        folder = tmp_path / "data" / f"style_{style}" / video
        folder.mkdir(parents=True)
        for t in range(FRAMES):
            Image.fromarray(np.full((HEIGHT, WIDTH, 3), 40 * t, np.uint8)).save(folder / f"{t + 1:06d}.png")
    row = OmegaConf.create(
        {"name": "folder", "root": str(tmp_path / "data"), "layout": "folder", "fps": 25, "annotations": {}}
    )
    return list_clips(row, (1, 2), 10, "error", None)


def write_images(root, first=1, mode=None, suffix="png"):
    for video in VIDEOS:
        (root / video).mkdir(parents=True)
        for t, labels in enumerate(labels_of(video)):
            image = Image.fromarray(labels)
            if mode == "palette":
                image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            elif mode == "binary":
                image = Image.fromarray((labels > 0).astype(np.uint8) * 255)
            elif mode is not None:
                image = image.convert(mode)
            image.save(root / video / f"{t + first:06d}.{suffix}")
    return root


def write_arrays(root, kind):
    for video in VIDEOS:
        (root / video).parent.mkdir(parents=True, exist_ok=True)
        if kind == "npz":
            np.savez(root / f"{video}.npz", labels_of(video))
        else:
            np.save(root / f"{video}.npy", labels_of(video) > 0 if kind == "bool" else labels_of(video))
    return root


def rle(mask, compressed):
    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compressed:
        return {"size": found["size"], "counts": found["counts"].decode()}
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat.astype(np.int8), [2]])))
    return {"size": found["size"], "counts": np.diff(np.concatenate([[0], edges])).tolist()}


def per_video(compressed):
    """YouTube-VIS: one annotation per object, with one mask or null per frame."""
    content = {"videos": [], "annotations": []}
    for number, video in enumerate(VIDEOS, start=1):
        names = [f"{video}/{t + 1:06d}.png" for t in range(FRAMES)]
        content["videos"].append({"id": number, "file_names": names, "height": HEIGHT, "width": WIDTH})
        for label in (1, 2):
            masks = [labels == label for labels in labels_of(video)]
            shapes = [rle(mask, compressed) if mask.any() else None for mask in masks]
            content["annotations"].append({"video_id": number, "segmentations": shapes, "category_id": 7})
    return content


def per_image(shape):
    """COCO: annotations per image, in a mixed order."""
    content = {"images": [], "annotations": []}
    for video in VIDEOS:
        for t in reversed(range(FRAMES)):
            number = len(content["images"])
            name = f"{video}/{t + 1:06d}.png"
            content["images"].append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
            for label in (1, 2):
                mask = labels_of(video)[t] == label
                if mask.any():
                    own = {"image_id": number, "track_id": label, "category_id": 3, **shape(mask)}
                    content["annotations"].append(own)
    return content


def box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]


def polygon(mask):
    x, y, w, h = box(mask)
    return {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}


SOURCES = {
    "grey images": lambda root: write_images(root),
    "images counted from 0": lambda root: write_images(root, first=0),
    "palette images": lambda root: write_images(root, mode="palette"),
    "npz": lambda root: write_arrays(root, "npz"),
    "npy": lambda root: write_arrays(root, "npy"),
    "run lengths per video": lambda root: write_json(root, per_video(False)),
    "compressed run lengths per video": lambda root: write_json(root, per_video(True)),
    "run lengths per image": lambda root: write_json(
        root, per_image(lambda m: {"segmentation": rle(m, True)})
    ),
    "boxes": lambda root: write_json(root, per_image(lambda m: {"bbox": box(m)})),
    "polygons": lambda root: write_json(root, per_image(polygon)),
}


def write_json(root, content):
    root.mkdir(exist_ok=True)
    (root / "masks.json").write_text(json.dumps(content))
    return root / "masks.json"


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_file_has_the_known_labels(kind, clips, tmp_path):
    source = str(SOURCES[kind](tmp_path / "masks"))
    for objects in (False, True):
        masks = open_masks(source, clips, objects)
        expected = ("background", "object 1", "object 2") if objects else ("background", "foreground")
        assert masks.regions == expected
        for video in VIDEOS:
            found = masks.read(video, [4, 0, 2], (HEIGHT, WIDTH))
            truth = labels_of(video)[[4, 0, 2]]
            assert np.array_equal(found, truth if objects else truth > 0), video
    again = open_masks(source, clips).identity
    assert again == open_masks(source, clips).identity and "/" not in str(again)


def test_binary_images_and_pixels_of_no_region(clips, tmp_path):
    for source in (write_images(tmp_path / "a", mode="binary"), write_arrays(tmp_path / "b", "bool")):
        found = open_masks(str(source), clips).read("b", range(FRAMES), (HEIGHT, WIDTH))
        assert np.array_equal(found, labels_of("b") > 0)
    root = write_images(tmp_path / "c")
    labels = labels_of("b")[3]
    labels[0] = VOID
    Image.fromarray(labels).save(root / "b" / "000004.png")
    found = open_masks(str(root), clips).read("b", [3], (HEIGHT, WIDTH))[0]
    assert (found[0] == VOID).all() and np.array_equal(found[1:], labels[1:] > 0)


def test_masks_of_another_resolution_are_scaled(clips, tmp_path):
    root = tmp_path / "masks"
    for video in VIDEOS:
        (root / video).parent.mkdir(parents=True, exist_ok=True)
        np.savez(root / f"{video}.npz", labels_of(video).repeat(2, axis=1).repeat(2, axis=2))
    found = open_masks(str(root), clips).read("b", [2], (HEIGHT, WIDTH))
    assert np.array_equal(found[0], labels_of("b")[2] > 0)


def views_of(positions):
    rows = [{"clip": video, "video": video, "frames_rgb": positions} for video in VIDEOS]
    return pd.DataFrame(rows)


def missing_frame(root):
    (write_images(root) / "b" / "000003.png").unlink()


def missing_video(root):
    shutil.rmtree(write_images(root) / "cats")


def wrong_shape(root):
    write_images(root)
    Image.new("L", (WIDTH, WIDTH), 1).save(root / "b" / "000001.png")


def every_mask(root, value):
    write_images(root)
    for file in root.rglob("*.png"):
        Image.new("L", (WIDTH, HEIGHT), value).save(file)


def damaged_image(root):
    write_images(root)
    (root / "b" / "000001.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")


def pickled(root):
    root.mkdir()
    (root / "cats").mkdir()
    for video in VIDEOS:
        np.savez(root / f"{video}.npz", np.array([{"a": 1}], object))


def too_few(root):
    write_arrays(root, "npz")
    np.savez(root / "b.npz", labels_of("b")[:3])


def large_labels(root):
    write_images(root)
    Image.new("L", (WIDTH, HEIGHT), 90).save(root / "b" / "000001.png")


FAULTS = {
    "has no mask for frame 2": missing_frame,
    "video cats/a has no masks": missing_video,
    "give masks with the aspect ratio": wrong_shape,
    "no mask has any foreground": lambda root: every_mask(root, 0),
    "no mask has any background": lambda root: every_mask(root, 1),
    "is not a readable image": damaged_image,
    "is not an array of masks": pickled,
    "has 5 frames but 3 masks": too_few,
    "is a colour image": lambda root: write_images(root, mode="RGB"),
    "labels are 0 to 64": large_labels,
    "is neither a folder, a json file nor davis": lambda root: None,
}


@pytest.mark.parametrize("message", FAULTS)
def test_bad_masks_are_one_line(message, clips, tmp_path):
    FAULTS[message](tmp_path / "masks")
    with pytest.raises(UserError) as caught:
        open_masks(str(tmp_path / "masks"), clips).check(clips, views_of(list(range(FRAMES))))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def change(path, value):
    def apply(content):
        target = content
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
        return content

    return apply


FIRST = ("annotations", 0, "segmentations", 0)
BROKEN = {
    "another size": change((*FIRST, "size"), [HEIGHT, WIDTH + 1]),
    "runs that are too long": change((*FIRST, "counts"), [3, 10**12]),
    "negative runs": change((*FIRST, "counts"), [-5, HEIGHT * WIDTH + 5]),
    "runs of text": change((*FIRST, "counts"), "~~~~"),
    "endless number": change((*FIRST, "counts"), "o" * 500),
    "no runs": change((*FIRST, "counts"), None),
    "huge frame": change(("videos", 0, "height"), 10**9),
    "height is text": change(("videos", 0, "height"), "tall"),
    "far polygon": change(FIRST, [[0, 0, 1e12, 0, 1e12, 1e12]]),
    "nan polygon": change(FIRST, [[0, 0, float("nan"), 0, 5, 5]]),
    "too few masks": change(FIRST[:-1], []),
    "unknown video": change(("annotations", 0, "video_id"), 99),
    "no videos": lambda content: {"annotations": []},
    "a list": lambda content: [content],
    "names that lead outside": change(("videos", 0, "file_names"), ["../../x/000001.png"]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_json_is_one_line(kind, clips, tmp_path):
    file = write_json(tmp_path / "masks", BROKEN[kind](per_video(True)))
    with pytest.raises(UserError) as caught:
        open_masks(str(file), clips).check(clips, views_of(list(range(FRAMES))))
    assert "masks" in str(caught.value) and "\n" not in str(caught.value)


def test_compressed_run_lengths_equal_pycocotools():
    from static_dynamic.datasets.coco_masks import shape_of

    rng = np.random.default_rng(0)
    for shape in [(1, 1), (7, 3), (40, 60), (300, 400)]:
        for share in (0, 0.001, 0.3, 0.999, 1):
            mask = np.asfortranarray((rng.random(shape) < share).astype(np.uint8))
            found = coco.encode(mask)
            counts = found["counts"].decode()
            ours = shape_of({"segmentation": {"size": list(shape), "counts": counts}}, *shape)
            assert np.array_equal(ours, coco.decode(found))


def test_video_names_stay_inside_the_folder(clips, tmp_path):
    masks = open_masks(str(write_images(tmp_path / "masks")), clips)
    for name in ("../data/style_1/b", "/etc", "a/../../b"):
        with pytest.raises(UserError, match="leads outside"):
            masks.read(name, [0], (HEIGHT, WIDTH))


def test_masks_of_davis(shared_data, tmp_path):
    davis = shared_data / "davis"
    for style in (1, 2):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"style_{style}").symlink_to(davis / "JPEGImages" / "480p")
    row = OmegaConf.create(
        {"name": "folder", "root": str(tmp_path / "data"), "layout": "folder", "fps": 24, "annotations": {}}
    )
    clips = list_clips(row, (1, 2), 10, "error", None)
    masks = open_masks(str(davis / "Annotations" / "480p"), clips)
    found = masks.read("blackswan", [7], (480, 854))[0]
    truth = np.asarray(Image.open(davis / "Annotations" / "480p" / "blackswan" / "00007.png"))
    assert np.array_equal(found, truth > 0) and 0.05 < found.mean() < 0.5
