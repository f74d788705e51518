"""Masks of videos: every kind of file against labels that are known, and hard inputs in one line."""

import io
import json
import logging
import pickle
import shutil
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from pycocotools import mask as coco

from static_dynamic.datasets import list_clips
from static_dynamic.datasets.coco_masks import CocoMasks, shape_of
from static_dynamic.datasets.davis import DavisClips, FrameClip
from static_dynamic.datasets.detect_masks import mask_rcnn
from static_dynamic.datasets.mask_files import VOID, read_labels
from static_dynamic.datasets.masks import open_masks
from static_dynamic.datasets.pixels import BadFrames
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
    return listed(tmp_path / "data")


def listed(root):
    row = {"name": "folder", "root": str(root), "layout": "folder", "fps": 25, "annotations": {}}
    return list_clips(OmegaConf.create(row), (1, 2), 10, "error", None)


def write_images(root, first=1, mode=None, suffix="png"):
    for video in VIDEOS:
        (root / video).mkdir(parents=True)
        for t, labels in enumerate(labels_of(video)):
            image = Image.fromarray(labels)
            if mode == "palette":
                image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            elif mode == "davis":
                image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
                image = image.convert("RGB")
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


def tracked():
    """CocoVID: images without folders, and videos that own them; tracks are numbered across videos."""
    content = per_image(lambda mask: {"segmentation": rle(mask, True)})
    content["videos"] = [{"id": k, "name": video} for k, video in enumerate(VIDEOS)]
    for image in content["images"]:
        video, name = image.pop("file_name").rsplit("/", 1)
        image |= {"video_id": VIDEOS.index(video), "frame_id": int(name[:6]) - 1}
    for annotation in content["annotations"]:
        own = content["images"][annotation["image_id"]]["video_id"]
        annotation["instance_id"] = annotation.pop("track_id") + 300 + 10 * own
    return content


SOURCES = {
    "images in DAVIS' colours": lambda root: write_images(root, mode="davis"),
    "images and videos": lambda root: write_json(root, tracked()),
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


def damaged_archive(root):
    write_arrays(root, "npz")
    for file in root.rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:-30])


def no_frames(root):
    write_arrays(root, "npz")
    np.savez(root / "b.npz", np.zeros((0, HEIGHT, WIDTH), np.uint8))


def truncated_array(root):
    """An archive whose array claims 8 GB and holds 5 kB."""
    write_arrays(root, "npz")
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (5, 40_000, 40_000)}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(root / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("arr_0.npy", "w") as member:
            member.write(header.getvalue() + bytes(5000))


def huge_array(root):
    """An archive that claims 4 GiB."""
    truncated_array(root)
    with zipfile.ZipFile(root / "b.npz") as archive:
        size = archive.infolist()[0].file_size.to_bytes(4, "little")
    content = (root / "b.npz").read_bytes()
    (root / "b.npz").write_bytes(content.replace(size, b"\xfe\xff\xff\xff"))


def two_arrays(root):
    write_arrays(root, "npz")
    np.savez(root / "b.npz", labels_of("b"), labels_of("b"))


def same_number(root):
    shutil.copy(write_images(root) / "b" / "000003.png", root / "b" / "3.png")


def other_numbers(root):
    """Masks are counted from 0, frames from 1, and the last mask is missing."""
    (write_images(root, first=0) / "b" / "000004.png").unlink()


def every_second(root):
    write_images(root)
    for video in VIDEOS:
        for t in (2, 4):
            (root / video / f"{t:06d}.png").unlink()


def jpegs(root):
    write_images(root)
    for file in root.rglob("*.png"):
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()


def soft_edges(root):
    write_images(root)
    soft = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH))
    soft.save(root / "b" / "000001.png")


def too_few(root):
    write_arrays(root, "npz")
    np.savez(root / "b.npz", labels_of("b")[:3])


def large_labels(root):
    write_images(root)
    Image.new("L", (WIDTH, HEIGHT), 90).save(root / "b" / "000001.png")


FAULTS = {
    "has no mask for frame 2 (counted from 0); 1 of its 5 frames have none": missing_frame,
    "2 of its 5 frames have none, and masks are not interpolated (and 1 more videos": every_second,
    "has two masks for the frame number 3": same_number,
    "has frames 1 to 5, but masks 0 to 3, and 2 frames have no mask of their number": other_numbers,
    "b.npz is not an array of masks (EOF": truncated_array,
    "b.npz claims 4 GiB": huge_array,
    "a.npz is not an array of masks (File is not a zip file": damaged_archive,
    "holds uint8 (0, 12, 16), but labels": no_frames,
    "holds 2 arrays": two_arrays,
    "is a JPEG, which changes labels": jpegs,
    "images with soft edges": soft_edges,
    "video cats/a has no masks": missing_video,
    "give masks with the aspect ratio": wrong_shape,
    "no mask has any foreground": lambda root: every_mask(root, 0),
    "no mask has any background": lambda root: every_mask(root, 1),
    "is not a readable image": damaged_image,
    "is not an array of masks (Object arrays cannot be loaded": pickled,
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
    "allocates": change((*FIRST, "counts"), 10**10),
    "polygon of one point": change(FIRST, [[5, 5]]),
    "polygon with an odd number": change(FIRST, [[0, 0, 5, 0, 5, 5, 3]]),
    "long outlines": change(FIRST, [[0, 0, 250, 250] * 3000]),
    "endless height": change(("videos", 0, "height"), float("inf")),
    "no names": change(("videos", 0, "file_names"), []),
    "one name twice": change(("videos", 1, "file_names"), [f"cats/a/{t + 1:06d}.png" for t in range(FRAMES)]),
    "a list as identifier": change(("videos", 0, "id"), [1]),
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


def test_polygons_and_boxes_equal_pycocotools_and_pillow():
    rng = np.random.default_rng(1)
    for _ in range(20):
        polygons = rng.uniform(0, 40, (2, 8)).tolist()
        truth = coco.decode(coco.frPyObjects(polygons, 40, 50)).any(axis=2)
        assert np.array_equal(shape_of({"segmentation": polygons}, 40, 50), truth)
    truth = np.zeros((40, 50), bool)
    truth[3:10, 44:] = True
    assert np.array_equal(shape_of({"bbox": [44.2, 3, 90, 7]}, 40, 50), truth)


def test_images_are_read_as_pillow_reads_them(tmp_path):
    labels = np.arange(22, dtype=np.uint8).reshape(2, 11)
    # the palette of DAVIS 2017, as published
    colours = (
        "000 800 080 880 008 808 088 888 400 c00 480 c80 408 c08 488 c88 040 840 0c0 8c0 048 848".split()
    )
    levels = {"0": 0, "4": 64, "8": 128, "c": 191}
    image = Image.fromarray(labels)
    image.putpalette([levels[digit] for colour in colours for digit in colour])
    for mode in ("P", "L", "I;16", "RGB"):
        changed = image.convert("RGB") if mode == "RGB" else image if mode == "P" else Image.fromarray(labels)
        if mode == "I;16":
            changed = Image.fromarray(labels.astype(np.uint16))
        changed.save(tmp_path / "mask.png")
        assert np.array_equal(read_labels(tmp_path / "mask.png"), labels), mode
    white = Image.fromarray(np.repeat((labels > 9)[..., None], 3, axis=2).astype(np.uint8) * 255)
    white.save(tmp_path / "mask.png")
    assert np.array_equal(read_labels(tmp_path / "mask.png"), (labels > 9) * VOID)


def test_damaged_files_are_one_line_whatever_the_damage(clips, tmp_path):
    """Bytes are changed and cut at random: the masks are read, or refused in one line."""
    rng = np.random.default_rng(2)
    written = {
        "b/000001.png": write_images(tmp_path / "png", mode="palette"),
        "b.npz": write_arrays(tmp_path / "npz", "npz"),
        "b.npy": write_arrays(tmp_path / "npy", "npy"),
        "masks.json": write_json(tmp_path / "json", per_video(True)).parent,
    }
    for name, root in written.items():
        sound, refused = (root / name).read_bytes(), 0
        for k in range(100):
            damaged = bytearray(sound)
            for place in rng.integers(len(sound), size=3):
                damaged[place] = rng.integers(256)
            # each damage has a name of its own, because opened arrays are kept in memory
            copy = tmp_path / f"copy {name.replace('/', ' ')} {k}"
            file = copy / name
            file.parent.mkdir(parents=True)
            file.write_bytes(damaged[: None if k % 2 else rng.integers(len(sound))])
            try:
                masks = open_masks(str(file if name == "masks.json" else copy), clips)
                masks.read("b", [0], (HEIGHT, WIDTH))
            except UserError as error:
                refused += 1
                assert "\n" not in str(error)
        assert refused > 40, name


def test_videos_with_one_name_are_told_apart(clips, tmp_path):
    content = per_video(True)
    content["videos"][0]["file_names"] = [f"train/a/{t + 1:06d}.png" for t in range(FRAMES)]
    masks = CocoMasks(write_json(tmp_path / "masks", content))
    with pytest.raises(BadFrames, match="has no masks of video cats/a; nearest known"):
        masks.key("cats/a")
    content["videos"][0]["file_names"] = [f"a/{t + 1:06d}.png" for t in range(FRAMES)]
    masks = CocoMasks(write_json(tmp_path / "masks", content))
    assert masks.key("cats/a") == masks.key("dogs/a") == "a"
    shutil.copytree(tmp_path / "data" / "style_1" / "cats", tmp_path / "data" / "style_1" / "dogs")
    shutil.copytree(tmp_path / "data" / "style_2" / "cats", tmp_path / "data" / "style_2" / "dogs")
    with pytest.raises(UserError, match="the masks of a fit the videos cats/a and dogs/a"):
        open_masks(str(masks.file), listed(tmp_path / "data"))


def test_names_in_any_order(clips, tmp_path):
    content = per_video(True)
    for about in content["videos"]:
        about["file_names"] = about["file_names"][::-1]
    for annotation in content["annotations"]:
        annotation["segmentations"] = annotation["segmentations"][::-1]
    masks = open_masks(str(write_json(tmp_path / "masks", content)), clips)
    assert np.array_equal(masks.read("b", range(FRAMES), (HEIGHT, WIDTH)), labels_of("b") > 0)


def test_boxes_are_told_once(clips, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    open_masks(str(write_json(tmp_path / "masks", per_image(lambda m: {"bbox": box(m)}))), clips)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message == "masks: 16 annotations are boxes, which are used as filled rectangles"


def test_clips_with_unusable_masks_are_left_out(clips, tmp_path, caplog):
    missing_frame(tmp_path / "masks")
    masks = open_masks(str(tmp_path / "masks"), clips)
    found = masks.check(clips, views_of([0, 1, 2]), on_error="skip")
    assert [clip for clip, _ in found] == ["b"] and "has no mask for frame 2" in found[0][1]
    assert "masks of 1 clips cannot be used, the first: b" in caplog.text
    # no view of the clip shows the missing frame
    assert masks.check(clips, views_of([0, 1, 4])) == []
    # the views of a clip show different frames
    with pytest.raises(UserError, match="has no mask for frame 2"):
        masks.check(clips, pd.concat([views_of([0, 1]), views_of([1, 2])]))


def test_a_rare_foreground_is_found(clips, tmp_path):
    """The foreground is in one frame of many, which is not among the masks that are read first."""
    for video in VIDEOS:
        (tmp_path / "masks" / video).parent.mkdir(parents=True, exist_ok=True)
        rare = np.zeros((30, HEIGHT, WIDTH), np.uint8)
        rare[13, 2:4] = 3
        np.savez(tmp_path / "masks" / f"{video}.npz", rare)
        for style in (1, 2):
            for t in range(FRAMES, 30):
                folder = tmp_path / "data" / f"style_{style}" / video
                shutil.copy(folder / "000001.png", folder / f"{t + 1:06d}.png")
    clips = listed(tmp_path / "data")
    masks = open_masks(str(tmp_path / "masks"), clips, objects=True)
    assert masks.check(clips, views_of(list(range(30)))) == []
    assert masks.regions[1:] == ("object 1", "object 2", "object 3")


def test_clips_without_readable_frames_are_not_faults_of_masks(clips, tmp_path):
    masks = open_masks(str(write_images(tmp_path / "masks")), clips)
    for file in (tmp_path / "data").rglob("b/*.png"):
        file.write_bytes(b"no image")
    assert masks.check(clips, views_of([0, 1])) == []


def test_masks_are_sent_to_other_processes(clips, tmp_path):
    masks = pickle.loads(pickle.dumps(open_masks(str(write_images(tmp_path / "masks")), clips)))
    assert np.array_equal(masks.read("b", [1], (HEIGHT, WIDTH))[0], labels_of("b")[1] > 0)


def test_the_identity_follows_the_content(clips, tmp_path):
    for kind in ("npz", "npy"):
        root = write_arrays(tmp_path / kind, kind)
        before = open_masks(str(root), clips).identity
        assert before["kind"] == "folder" and before["name"] == kind
        write = np.savez if kind == "npz" else np.save
        changed = labels_of("b")
        changed[3, 5, 5] = 7
        write(root / f"b.{kind}", changed)
        assert open_masks(str(root), clips).identity != before


calls = []


def bright(frames):
    """A detector: pixels that are brighter than 60."""
    calls.append(len(frames))
    return (frames.mean(axis=-1) > 60).astype(np.int64)


def refuse(frames):
    raise RuntimeError("out of\nluck")


def test_a_function_of_the_user_detects_objects_once(clips, tmp_path):
    calls.clear()
    name, folder = f"{__name__}.bright", tmp_path / "masks"
    masks = open_masks(name, clips, folder=folder)
    assert calls == [FRAMES, FRAMES] and masks.identity["kind"] == name
    found = masks.read("cats/a", [4, 1, 2], (HEIGHT, WIDTH))
    assert found.min(axis=(1, 2)).tolist() == found.max(axis=(1, 2)).tolist() == [1, 0, 1]
    next(folder.rglob("b/000003.png")).unlink()
    again = open_masks(name, clips, folder=folder)
    assert calls == [FRAMES, FRAMES, 1] and again.identity == masks.identity


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("refuse", "failed (RuntimeError: out of)"),
        ("nothing", "is neither a folder, a json file nor a function"),
        ("calls", "is no function"),
        ("box", "a detector returns integers (frames, height, width)"),
        ("np.array", "is neither a folder"),
        ("coco.encode", "is neither a folder"),
    ],
)
def test_detectors_that_fail_are_one_line(clips, tmp_path, name, message):
    with pytest.raises(UserError) as caught:
        open_masks(f"{__name__}.{name}", clips, folder=tmp_path / "masks")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_mask_rcnn_of_torchvision(clips, tmp_path, monkeypatch):
    """A module in the place of torchvision returns two objects with low and high scores."""

    class Network(torch.nn.Module):
        def forward(self, images):
            (image,) = images
            assert image.shape == (3, HEIGHT, WIDTH) and 0 <= image.min() and image.max() <= 1
            masks = torch.zeros(3, 1, HEIGHT, WIDTH)
            masks[0, 0, :2], masks[1, 0, 2:5], masks[2, 0, 9:] = 0.4, 0.6, 0.9
            return [{"masks": masks, "scores": torch.tensor([0.9, 0.7, 0.3])}]

    fake = SimpleNamespace(maskrcnn_resnet50_fpn_v2=lambda weights: Network())
    monkeypatch.setitem(sys.modules, "torchvision.models.detection", fake)
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__path__=[]))
    truth = np.zeros((HEIGHT, WIDTH))
    truth[2:5] = 1
    masks = open_masks("detector", clips, folder=tmp_path / "masks", device="cpu")
    assert (masks.read("b", [0, 4], (HEIGHT, WIDTH)) == truth).all()

    def no_network(weights):
        raise OSError("no network")

    monkeypatch.setattr(fake, "maskrcnn_resnet50_fpn_v2", no_network)
    with pytest.raises(UserError, match="no weights of Mask R-CNN"):
        open_masks("detector", clips, folder=tmp_path / "other", device="cpu")
    monkeypatch.setitem(sys.modules, "torchvision.models.detection", None)
    with pytest.raises(UserError, match="needs torchvision .* or give masks=DIR"):
        open_masks("detector", clips, folder=tmp_path / "other", device="cpu")
    frames = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    assert mask_rcnn(Network(), torch.device("cpu"), frames).sum() == 3 * WIDTH


def test_masks_of_video_files(tmp_path):
    """The frames of a video file have no numbers, so there must be one mask per frame."""
    for style in (1, 2):
        file = tmp_path / "data" / f"style_{style}" / "b.gif"
        file.parent.mkdir(parents=True)
        first, *others = (Image.fromarray(np.full((HEIGHT, WIDTH), 50 * t, np.uint8)) for t in range(FRAMES))
        first.save(file, save_all=True, append_images=others, duration=40)
    clips = listed(tmp_path / "data")
    root = write_images(tmp_path / "masks")
    found = open_masks(str(root), clips).read("b", [3, 0], (HEIGHT, WIDTH))
    assert np.array_equal(found, labels_of("b")[[3, 0]] > 0)
    (root / "b" / "000002.png").unlink()
    with pytest.raises(UserError, match="has 5 frames but 4 masks"):
        open_masks(str(root), clips).check(clips, views_of([0, 1]).query("video == 'b'"))


def davis_clips(root, names, size):
    """Frames of DAVIS that have flow: not all frames that have masks."""
    clips = [FrameClip(f"{v}/{n}", v, k, 1, cluster=v) for v in names for k, n in enumerate(names[v])]
    return DavisClips(
        "davis", root, (0,), tuple(clips), original_root=root, names=names, sizes=dict.fromkeys(names, size)
    )


def test_frames_of_davis_have_the_masks_of_their_numbers(tmp_path):
    """The frames with flow are frames 1 to 3 of 0 to 4."""
    root = tmp_path / "Annotations" / "480p"
    root.mkdir(parents=True)
    write_images(root, first=0)
    clips = davis_clips(tmp_path, {"b": ("000001", "000002", "000003")}, (WIDTH, HEIGHT))
    masks = open_masks("davis", clips, objects=True)
    assert np.array_equal(masks.read("b", [2, 0], (HEIGHT, WIDTH)), labels_of("b")[[3, 1]])
    assert masks.identity["kind"] == "davis"
    assert masks.check(clips, views_of([0, 1, 2]).query("video == 'b'")) == []
    (root / "b" / "000002.png").unlink()
    with pytest.raises(UserError, match="no mask for frame 1 .counted from 0.; 1 of its 3 frames have none"):
        open_masks("davis", clips).check(clips, views_of([1]).query("video == 'b'"))
    with pytest.raises(UserError, match="copy the annotations"):
        open_masks("davis", davis_clips(tmp_path / "b", {"b": ("000001",)}, (WIDTH, HEIGHT)))


def test_real_masks_of_davis(shared_data):
    root = shared_data / "davis"
    folder = root / "Annotations" / "480p"
    names = {v.name: tuple(sorted(f.stem for f in v.glob("*.png")))[:-1] for v in sorted(folder.iterdir())}
    clips = davis_clips(root, names, (854, 480))
    masks = open_masks("davis", clips)
    for video, stems in names.items():
        chosen = [0, len(stems) // 2, len(stems) - 1]
        found = masks.read(video, chosen, (480, 854))
        for k, regions in zip(chosen, found, strict=True):
            assert np.array_equal(regions, np.asarray(Image.open(folder / video / f"{stems[k]}.png")) > 0)
    views = pd.DataFrame(
        {"clip": c.id, "video": c.video, "frames_Image": [c.first]} for c in clips.clips[::7]
    )
    assert masks.check(clips, views) == []


def test_masks_of_davis(shared_data, tmp_path):
    davis = shared_data / "davis"
    for style in (1, 2):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"style_{style}").symlink_to(davis / "JPEGImages" / "480p")
    clips = listed(tmp_path / "data")
    masks = open_masks(str(davis / "Annotations" / "480p"), clips)
    found = masks.read("blackswan", [7], (480, 854))[0]
    truth = np.asarray(Image.open(davis / "Annotations" / "480p" / "blackswan" / "00007.png"))
    assert np.array_equal(found, truth > 0) and 0.05 < found.mean() < 0.5
