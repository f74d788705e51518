"""DAVIS with flow: choice of frames, views and pairs; network inputs; flow jitter; preparing a download."""

import colorsys
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from static_dynamic import configs
from static_dynamic.datasets import FlowBatches, flow_inputs, list_clips, list_davis, make_views
from static_dynamic.datasets.jitter import HUE_RANGE, SATURATION_RANGE, Jitter, apply_jitter, draw_jitter
from static_dynamic.errors import UserError
from static_dynamic.stylize.flow import colour_flow, dense_flow
from tests.datasets.davis_trees import SEQUENCES, SIZE, write_davis, write_picture

ONE, TWO = {"Image": 1, "Flow": 1}, {"Image": 2, "Flow": 2}
SPEC = SimpleNamespace(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture
def davis(tmp_path):
    return write_davis(tmp_path / "davis")


def row_of(root, name="StylizedDAVIS", **options):
    row = configs.row("dataset", name)
    row.root, row.original_data_root = str(root), None
    row.update(options)
    return row


def listed(root, styles=(1, 2), **options):
    keys = ("both_flows", "reversed_flow", "frames_at_once", "limit", "on_error")
    own = {key: options.pop(key) for key in keys if key in options}
    return list_davis(row_of(root, **options), styles, **own)


def views_of(clips, pathways=ONE, scheme="factorial", seed=1, **options):
    return make_views(
        clips.clips, clips.styles, pathways, n_sample_frames=1, pairs=scheme, seed=seed, **options
    )


def test_frames_without_flow_are_left_out(davis):
    clips = listed(davis)
    assert [c.id for c in clips.clips if c.cluster == "goat"] == [f"goat/{t:05d}" for t in range(5)]
    assert len(clips.clips) == 5 + 4 and {c.video_length for c in clips.clips} == {5, 4}
    both = listed(davis, both_flows=True, frames_at_once=2)
    assert [c.id for c in both.clips if c.cluster == "goat"] == [f"goat/{t:05d}" for t in range(1, 5)]
    assert both.flow_file("goat", "FlowImages_gap-1", 0).name == "00001.png"
    assert len({clips.listing_sha256, both.listing_sha256, listed(davis, sequences=1).listing_sha256}) == 3
    for kite in (["kite"], "kite"):
        assert {c.cluster for c in listed(davis, sequences=kite).clips} == {"kite"}
    assert len(listed(davis, limit=3).clips) == 3
    assert listed(davis, styles=(0, 1)).image_file("goat", 0, 0) == davis / "JPEGImages/480p/goat/00000.jpg"


def test_sequences_that_were_not_fetched_are_named(davis):
    with (davis / "ImageSets/480p/val.txt").open("a") as file:
        file.write("/JPEGImages/480p/zebra/00000.jpg\n/JPEGImages/480p/zebra/00001.jpg\n")
    (remark,) = listed(davis).remarks(24, None)
    assert "1 clips were left out, not on disk: zebra" in remark


def test_cinematograms(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for frame in ("00000", "00003"):
        lines.append(f"/JPEGImages/480p/goat/{frame}.jpg")
        for t in range(4):
            for style in ("Lynx", "Maruska640"):
                write_picture(tmp_path / "JPEGImages" / style / "goat" / frame / f"{t:05d}.jpg", rng, SIZE)
            if t < 3 or frame == "00003":
                write_picture(tmp_path / "FlowImages_gap1/goat" / frame / f"{t:05d}.png", rng, SIZE)
            if t > 0:
                write_picture(tmp_path / "FlowImages_gap-1/goat" / frame / f"{t:05d}.png", rng, SIZE)
    (tmp_path / "ImageSets/480p").mkdir(parents=True)
    (tmp_path / "ImageSets/480p/val.txt").write_text("\n".join(lines))
    clips = list_davis(row_of(tmp_path, "StylizedDAVISCinematograms"), (1, 2)).clips
    assert [c.id for c in clips] == [
        *(f"goat/00000/{t:05d}" for t in range(3)),
        *(f"goat/00003/{t:05d}" for t in range(4)),
    ]
    assert {c.cluster for c in clips} == {"goat"} and {c.video for c in clips} == {"goat/00000", "goat/00003"}
    row = row_of(tmp_path, "StylizedDAVISCinematograms")
    assert [c.id for c in list_davis(row, (1, 2), reversed_flow=True).clips] == [
        *(f"goat/00000/{t:05d}" for t in (1, 2)),
        *(f"goat/00003/{t:05d}" for t in (1, 2, 3)),
    ]


def test_factorial_pairs_share_what_they_should(davis):
    clips = listed(davis)
    views, pairs = views_of(clips)
    assert len(views) == 9 * 2 * 2 and len(pairs) == 9 * (1 + 2)
    a, b = (views.iloc[pairs[m]].reset_index(drop=True) for m in "ab")
    dynamic = (pairs["factor"] == 0).to_numpy()
    assert (a["clip"] == b["clip"]).all() and (pairs["cluster"] == a["cluster"]).all()
    assert (a["style"] != b["style"])[dynamic].all() and not (a["flow"] | b["flow"])[dynamic].any()
    assert (a["style"] == b["style"])[~dynamic].all()
    assert (a["flow"] == 0)[~dynamic].all() and (b["flow"] == 1)[~dynamic].all()
    assert [len(j) for j in views["jitter"]] == [6 * f for f in views["flow"]]


def test_two_frames_are_two_rows_and_pairs_join_the_same_frame(davis):
    clips = listed(davis, both_flows=True, frames_at_once=2)
    views, pairs = views_of(clips, TWO)
    looks = 7 * 2 * 2
    assert len(views) == 2 * looks and len(pairs) == 2 * 7 * (1 + 2)
    first, second = views.iloc[::2], views.iloc[1::2]
    for column in ("clip", "style", "flow"):
        assert (first[column].to_numpy() == second[column].to_numpy()).all()
    for one, two in zip(first.itertuples(), second.itertuples(), strict=True):
        assert list(one.frames_Image) == list(two.frames_Image) == [one.frame, two.frame]
        assert 0 <= two.frame < clips.clips[0].video_length
    a, b = (views.iloc[pairs[m]] for m in "ab")
    assert (a["frame"].to_numpy() == b["frame"].to_numpy()).all()
    assert (pairs["a"] % 2 == pairs["b"] % 2).all()
    # one second frame per clip, in all styles and with any flow
    assert views.groupby("clip")["frames_Image"].apply(lambda f: len({tuple(x) for x in f})).eq(1).all()
    assert len(set(second["frame"] - first["frame"].to_numpy())) > 2


def test_views_are_a_function_of_seed_and_clip(davis):
    clips = listed(davis)
    views, pairs = views_of(clips, scheme="both")
    again, pairs_again = views_of(clips, scheme="both")
    assert views.to_json() == again.to_json() and pairs.equals(pairs_again)
    assert views_of(clips, scheme="both", seed=2)[0].to_json() != views.to_json()
    part, _ = views_of(listed(davis, sequences=["kite"]), scheme="both")
    mine = views[views["video"] == "kite"].reset_index(drop=True)
    assert mine.to_json() == part.to_json()


def test_repeats_draw_again(davis):
    clips = listed(davis)
    views, pairs = views_of(clips, scheme="paper", repeats=4)
    counts = pairs[pairs["factor"] == 1].groupby("clip").size()
    assert counts.eq(2).all()  # factors take turns
    jitters = views[views["flow"] > 0]
    assert set(jitters["flow"]) == {1, 2, 3, 4}
    assert len({tuple(j) for j in jitters["jitter"]}) == len(jitters)
    for repeats in (0, "many"):
        with pytest.raises(UserError, match=f"dataset.nreps={repeats} is not a positive integer"):
            views_of(clips, scheme="paper", repeats=repeats)


def test_jitter_is_drawn_as_the_original_does():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_jitter(rng) for _ in range(4000)])
    hue, saturation, first = drawn.T
    # E|U(-h, h)| = h / 2 over h ~ U(.1, .5); the factor's range is cut off at zero for none of its reaches
    assert abs(np.abs(hue).mean() - np.mean(HUE_RANGE) / 2) < 0.005 and np.abs(hue).max() <= HUE_RANGE[1]
    assert abs(np.abs(saturation - 1).mean() - np.mean(SATURATION_RANGE) / 2) < 0.01
    assert saturation.min() >= 0 and saturation.max() <= 2 and 0.45 < first.mean() < 0.55
    assert (np.abs((hue * 255).astype(int)) > 0).all()


def slow_jitter(pixel, jitter):
    """One pixel, in floating point: hue by colorsys, saturation as a mixture with the pixel's grey."""

    def saturate(rgb):
        grey = round(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2])
        return [min(255, max(0, grey + jitter.saturation * (c - grey))) for c in rgb]

    def turn(rgb):
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in rgb))
        return [255 * c for c in colorsys.hsv_to_rgb((h + jitter.hue) % 1, s, v)]

    for step in (turn, saturate) if jitter.hue_first else (saturate, turn):
        pixel = step(pixel)
    return pixel


@pytest.mark.parametrize("jitter", [(0.3, 1.7, 0.0), (-0.45, 0.2, 1.0), (0.12, 0.0, 1.0), (-0.1, 1.0, 0.0)])
def test_jitter_equals_a_slow_oracle(jitter):
    jitter = Jitter(*jitter)
    pixels = np.random.default_rng(1).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    pixels[0, :4] = [[255, 255, 255], [0, 0, 0], [128, 128, 128], [255, 0, 0]]
    ours = np.asarray(apply_jitter(Image.fromarray(pixels), jitter), float)
    expected = np.array([[slow_jitter(p, jitter) for p in row] for row in pixels.astype(float)])
    # 8 bits of hue: a step moves a channel by six at most; they wrap at 256 steps, not at 255
    assert np.abs(ours - expected).max() <= 15 and np.abs(ours - expected).mean() < 2.5
    if jitter.saturation == 1:
        assert (ours[0, :3] == pixels[0, :3]).all()  # grey has no hue


def batches_of(clips, views, shape=(20, 32), rows=None):
    rows = np.arange(len(views)) if rows is None else rows
    return FlowBatches(clips, views, rows, len(rows), shape)


def test_what_the_network_sees_equals_a_slow_oracle(davis):
    clips = listed(davis, both_flows=True, frames_at_once=2)
    views, _ = views_of(clips, TWO)
    (batch,) = (batches_of(clips, views)[0],)
    assert [list(d.rows) for d in batch] == [[2 * k, 2 * k + 1] for k in range(len(views) // 2)]
    inputs = flow_inputs(batch, SPEC, torch.device("cpu"))
    assert inputs["Image"].shape == (28, 2, 3, 20, 32) and inputs["Flow"].shape == (28, 2, 6, 20, 32)

    def seen(path, jitter=None):
        with Image.open(path) as image:
            image = image.convert("RGB").resize((32, 20), Image.Resampling.BILINEAR)
        image = apply_jitter(image, Jitter(*jitter)) if jitter is not None else image
        return ((np.asarray(image) / 255 - SPEC.mean) / SPEC.std).transpose(2, 0, 1)

    names = [f"{t:05d}" for t in range(6)][1:5], [f"{t:05d}" for t in range(5)][1:4]
    for k, view in enumerate(views.iloc[::2].itertuples()):
        stems = names[0] if view.video == "goat" else names[1]
        style = {1: "Lynx", 2: "Maruska640"}[view.style]
        jitter = np.reshape(view.jitter, (-1, 2, 3))
        for t, position in enumerate(view.frames_Image):
            image = seen(davis / "JPEGImages" / style / view.video / f"{stems[position]}.jpg")
            np.testing.assert_allclose(inputs["Image"][k, t], image, atol=1e-5)
            for d, folder in enumerate(("FlowImages_gap1", "FlowImages_gap-1")):
                change = jitter[t, d] if len(jitter) else None
                flow = seen(davis / folder / view.video / f"{stems[position]}.png", change)
                np.testing.assert_allclose(inputs["Flow"][k, t, 3 * d : 3 * d + 3], flow, atol=1e-5)


def test_members_share_one_input_bit_for_bit_and_differ_in_the_other(davis):
    clips = listed(davis)
    views, pairs = views_of(clips)
    inputs = flow_inputs(batches_of(clips, views)[0], SPEC, torch.device("cpu"))
    again = flow_inputs(batches_of(clips, views_of(clips)[0])[0], SPEC, torch.device("cpu"))
    other = flow_inputs(batches_of(clips, views_of(clips, seed=2)[0])[0], SPEC, torch.device("cpu"))
    jittered = torch.tensor((views["flow"] > 0).tolist())
    for a, b, factor in pairs[["a", "b", "factor"]].itertuples(index=False):
        shared, differs = ("Flow", "Image") if factor == 0 else ("Image", "Flow")
        assert torch.equal(inputs[shared][a], inputs[shared][b])
        assert (inputs[differs][a] - inputs[differs][b]).abs().mean() > 0.05
    assert torch.equal(inputs["Flow"], again["Flow"]) and torch.equal(inputs["Image"], other["Image"])
    changed = (inputs["Flow"] != other["Flow"]).flatten(1).any(1)
    assert torch.equal(changed, jittered)


def test_flow_of_another_size_goes_through_the_size_of_the_image(davis):
    file = davis / "FlowImages_gap1/goat/00000.png"
    write_picture(file, np.random.default_rng(9), (128, 80))
    clips = listed(davis)
    views, _ = views_of(clips)
    (decoded,) = batches_of(clips, views, rows=np.array([0]))[0]
    with Image.open(file) as image:
        expected = image.resize(SIZE, Image.Resampling.BICUBIC).resize((32, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decoded.frames[0, ..., 3:], np.asarray(expected))


def break_style(root):
    shutil.rmtree(root / "JPEGImages/Maruska640")


def break_size(root):
    write_picture(root / "JPEGImages/Maruska640/goat/00000.jpg", np.random.default_rng(0), (30, 40))


def break_flow_shape(root):
    write_picture(root / "FlowImages_gap1/goat/00000.png", np.random.default_rng(0), (40, 40))


def break_image(root):
    (root / "JPEGImages/Maruska640/goat/00000.jpg").write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "options", "says"),
    [
        (break_style, {}, "Maruska640 does not exist .*prepare_davis.py"),
        (break_size, {}, "Maruska640/goat/00000.jpg has 30x40 pixels, .* 64x40.*prepare_davis.py"),
        (break_flow_shape, {}, "goat/00000.png has 40x40 pixels, but its frame has 64x40.*prepare_davis.py"),
        (break_image, {}, "Maruska640/goat/00000.jpg is not a readable image"),
        (
            lambda root: (root / "FlowImages_gap1/kite/00002.png").unlink(),
            {},
            "FlowImages_gap1/kite/00002.png does not exist: create it with .*prepare_davis.py.*on_error=skip",
        ),
        (
            lambda root: shutil.rmtree(root / "FlowImages_gap-1"),
            {"both_flows": True},
            "FlowImages_gap-1 does not exist: create it with python misc/prepare_davis.py",
        ),
        (
            lambda root: shutil.rmtree(root / "FlowImages_gap-1"),
            {"reversed_flow": True},
            "orders=reversed needs .*FlowImages_gap-1, which does not exist: .*prepare_davis.py",
        ),
        (lambda root: shutil.rmtree(root / "FlowImages_gap1/goat"), {}, "gap1/goat/00000.png does not exist"),
        (lambda root: None, {"split": "vall"}, "no split 'vall'; nearest known: val .lists in "),
        (lambda root: None, {"styles": (1, 7)}, "dataset.style_folders has no entry for this style"),
        (lambda root: None, {"sequences": ["gaot"]}, "has no sequence 'gaot'"),
        (lambda root: shutil.rmtree(root), {}, "stylized_data_dir=.* does not exist"),
        (
            lambda root: (root / "ImageSets/480p/val.txt").write_text("/JPEGImages/480p/../../etc/passwd\n"),
            {},
            "val.txt, line 1: .* does not begin with JPEGImages",
        ),
    ],
)
def test_what_is_missing_is_one_clear_line(davis, damage, options, says):
    damage(davis)
    with pytest.raises(UserError, match=says) as error:
        listed(davis, **options)
    assert "\n" not in str(error.value)


def test_a_broken_sequence_can_be_left_out(davis):
    (davis / "FlowImages_gap1/kite/00002.png").unlink()
    clips = listed(davis, on_error="skip")
    assert {c.cluster for c in clips.clips} == {"goat"} and clips.skipped[0][0] == "kite"


def test_a_picture_of_another_size_behind_the_first_is_named_when_it_is_read(davis):
    write_picture(davis / "JPEGImages/Lynx/goat/00003.jpg", np.random.default_rng(0), (30, 40))
    clips = listed(davis)
    batch = batches_of(clips, views_of(clips)[0])[0]
    faults = {d.error for d in batch if d.frames is None}
    assert len(faults) == 1 and "goat/00003.jpg has 30x40 pixels" in faults.pop()


def test_networks_without_flow_do_not_read_it(davis):
    with pytest.raises(UserError, match="is for networks that take images and flow"):
        list_clips(row_of(davis), (1, 2))


def moving(root, count=4):
    """DAVIS as downloaded: an image that moves by two pixels per frame."""
    rng = np.random.default_rng(5)
    ground = cv2.GaussianBlur(rng.integers(0, 256, (72, 120, 3)).astype(np.uint8), (0, 0), 1.5)
    lines = []
    for t in range(count):
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            path = root / kind / "480p/goat" / f"{t:05d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = ground[:64, 2 * t : 2 * t + 96]
            Image.fromarray(picture if kind == "JPEGImages" else picture[..., 0] // 128 * 255).save(path)
        lines.append(f"/JPEGImages/480p/goat/{t:05d}.jpg /Annotations/480p/goat/{t:05d}.png")
    (root / "ImageSets/480p").mkdir(parents=True)
    (root / "ImageSets/480p/val.txt").write_text("\n".join(lines))
    return root


def pictures(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*.*") if p.suffix in (".png", ".jpg")}


def test_davis_as_downloaded_becomes_all_that_is_needed(call, tmp_path):
    source, out = moving(tmp_path / "davis"), tmp_path / "out"
    (source / "JPEGImages/480p/goat/.DS_Store").write_bytes(b"no frame")
    arguments = (source, "--out", out, "--short_side", 48, "--workers", 1)
    status, message, err = call("prepare_davis.py", *arguments)
    assert status == 0, err
    assert "1 sequences with flow and styles" in message
    both = list_davis(row_of(out), (0, 1, 2, 3, 4), both_flows=True)
    assert [c.id for c in both.clips] == ["goat/00001", "goat/00002"] and both.sizes == {"goat": (72, 48)}
    frames = [np.asarray(Image.open(out / f"JPEGImages/480p/goat/{t:05d}.jpg")) for t in range(4)]
    for folder, t, other in (("FlowImages_gap1", 0, 1), ("FlowImages_gap-1", 3, 2)):
        with Image.open(out / folder / f"goat/{t:05d}.png") as flow:
            np.testing.assert_array_equal(flow, colour_flow(dense_flow(frames[t], frames[other])))
    assert not (out / "FlowImages_gap1/goat/00003.png").exists()
    with Image.open(out / "Annotations/480p/goat/00000.png") as mask:
        assert mask.size == (72, 48) and set(np.unique(mask)) == {0, 255}
    # what is missing is made again, to the same bytes, and nothing else is touched
    made = pictures(out)
    (out / "FlowImages_gap1/goat/00001.png").unlink()
    shutil.rmtree(out / "JPEGImages/Zuzka1")
    assert call("prepare_davis.py", *arguments)[0] == 0
    assert pictures(out) == made
    status, _, err = call("prepare_davis.py", source, "--out", out, "--short_side", 32)
    assert status == 2 and "was made with --short_side 48" in err
    status, _, err = call("prepare_davis.py", source, "--sequences", "goal")
    assert status == 2 and "nearest known: goat" in err
    assert call("prepare_davis.py", tmp_path)[0] == 2
    status, _, err = call("prepare_davis.py", source, "--workers", 0)
    assert status == 2 and "--workers: a number from 1 on is expected, not 0" in err


def test_check_dataset_checks_frames_masks_and_flow(davis, call):
    arguments = ("check_dataset.py", davis, "--dataset", "StylizedDAVIS", "--workers", 1)
    status, out, _ = call(*arguments)
    assert status == 0 and "2 videos in 3 styles, 51 images, 0 faults" in out
    assert "note: " in out and "Annotations/480p does not exist" in out
    for name, count in SEQUENCES.items():
        for t in range(count):
            write_picture(davis / f"Annotations/480p/{name}/{t:05d}.png", np.random.default_rng(t), SIZE)
    (davis / "Annotations/480p/goat/00003.png").unlink()
    (davis / "JPEGImages/Lynx/goat/00001.jpg").unlink()
    write_picture(davis / "JPEGImages/Maruska640/goat/00002.jpg", np.random.default_rng(0), (40, 40))
    write_picture(davis / "FlowImages_gap1/kite/00001.png", np.random.default_rng(0), (40, 40))
    (davis / "FlowImages_gap-1/kite/00004.png").write_bytes(b"no picture")
    status, out, _ = call(*arguments)
    assert status == 1 and "2 videos in 3 styles, 59 images, 5 faults" in out
    for fault in (
        "Annotations/480p/goat: 1 of 6 images are missing, first 00003.png",
        "JPEGImages/Lynx/goat: 1 of 6 images are missing, first 00001.jpg",
        "Maruska640/goat/00002.jpg has 40x40 pixels, but the first frame has 64x40",
        "FlowImages_gap1/kite/00001.png has 40x40 pixels, but its frame has 64x40 and thus another",
        "FlowImages_gap-1/kite/00004.png is not a readable image",
    ):
        assert fault in out
    status, out, _ = call(*arguments, "--styles", "1")
    assert status == 1 and "in 1 styles" in out


def test_a_sequence_of_another_split_is_named_with_its_split(davis, call):
    (davis / "ImageSets/480p/train.txt").write_text("/JPEGImages/480p/goats/00000.jpg /x\n")
    with pytest.raises(UserError, match="no sequence .goats.: it is in split train, give dataset.spl"):
        listed(davis, sequences=["goats"])
    status, _, error = call("prepare_davis.py", davis, "--sequences", "goats")
    assert status == 2 and "not in split val: it is in split train, give --split train" in error
