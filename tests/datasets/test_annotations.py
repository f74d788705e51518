"""Annotations become clips by the rules of the paper's loaders; each rule is written again here, slowly."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from static_dynamic import configs
from static_dynamic.datasets import list_clips
from static_dynamic.datasets.annotations import LAYOUTS
from static_dynamic.datasets.discovery import VideoInfo
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.datasets.listing import common_info
from static_dynamic.errors import UserError
from tests.datasets.test_frames import write_video

NAMES = {"StylizedActivityNet": "activitynet", "ssv2": "ssv2", "Diving48": "diving48"}


def row_of(name: str, root: Path, **changes):
    """A row of the table as `--stylized_data_dir ROOT` makes it."""
    holder = {"stylized_data_dir": str(root), "dataset": configs.row("dataset", name)}
    row = OmegaConf.create(holder).dataset
    for key, value in changes.items():
        OmegaConf.update(row, key, value)
    return row


def empty_frames(folder: Path, count: int, pattern: str, first: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        (folder / (pattern % (first + i))).touch()


def annotated(name: str, root: Path, **changes):
    row = row_of(name, root, **changes)
    return list(LAYOUTS[row.layout](row, root, []))


# real annotation files


def test_real_files_have_the_known_counts(shared_data):
    root = shared_data / "annotations"
    clips = annotated("StylizedActivityNet", root / "activitynet")
    assert len(clips) == 19_228 and not any(c.broken for c in clips)
    assert sum(c.filtered != "subset training" and c.filtered != "subset testing" for c in clips) == 4_728
    clips = annotated("Diving48", root / "diving48")
    assert len(clips) == 1_970 and {c.label for c in clips} == set(range(48)) - {30}
    clips = annotated("ssv2", root / "ssv2")
    assert len(clips) == 24_777 and not any(c.broken or c.filtered for c in clips)


def slow_activitynet(root: Path):
    """What the paper's loader does, line by line."""
    videos = json.loads((root / "anet_anno_action.json").read_text())
    subset = {}
    for line in (root / "video_info_new.csv").read_text().splitlines()[1:]:
        subset[line.split(",")[0]] = line.split(",")[5]
    labels = sorted({s["label"] for v in videos.values() for s in v["annotations"]})
    clips = {}
    for key, video in videos.items():
        num_frames = int(5 * video["duration_second"])
        if subset[key] != "validation" or num_frames < 32 or not video["annotations"]:
            continue
        ends = []
        for segment in video["annotations"]:
            start, end = (int(5 * t) for t in segment["segment"])
            ends.append((start, min(end, num_frames)))
        if all(end - start >= 16 for start, end in ends):
            clips[key] = (*ends[0], labels.index(video["annotations"][0]["label"]))
    return clips


def test_activitynet_segments_equal_a_slow_oracle(shared_data):
    root = shared_data / "annotations" / "activitynet"
    expected = slow_activitynet(root)
    found = [c for c in annotated("StylizedActivityNet", root) if not c.filtered]
    assert {c.id: (*(int(5 * s) for s in c.seconds), c.label) for c in found} == expected
    assert len(expected) > 4_000


def test_ssv2_classes_equal_a_slow_oracle(shared_data):
    root = shared_data / "annotations" / "ssv2"
    labels = json.loads((root / "labels.json").read_text())
    lines = json.loads((root / "validation.json").read_text())
    expected = [int(labels[re.sub(r"[\[\]]", "", line["template"])]) for line in lines]
    assert [c.label for c in annotated("ssv2", root)] == expected


# the disk


def make_activitynet(root: Path, frames: dict[str, int], official: bool) -> Path:
    """Videos of an ActivityNet-like set in two styles, at 5 fps, as empty files."""
    videos = {
        "good": (20.0, [[2.05, 9.99], [11, 16]]),  # frames 10 .. 48
        "clamped": (10.0, [[1, 30]]),  # 5 .. 49
        "short": (6.2, [[0, 6]]),  # 31 frames
        "brief": (20.0, [[2, 9], [10, 13.1]]),  # 15 frames in the second segment
        "training": (20.0, [[0, 20]]),
        "absent": (20.0, [[0, 20]]),
    }
    root.mkdir()
    subset = {"training": "training"}
    entries = {}
    for key, (duration, segments) in videos.items():
        annotations = [{"segment": s, "label": "b" if key == "good" else "a"} for s in segments]
        about = {"duration": duration, "subset": subset.get(key, "validation")}
        entries[key] = {**about, "annotations": annotations}
    if official:
        (root / "activitynet_v13.json").write_text(json.dumps({"database": entries, "taxonomy": []}))
    else:
        bmn = {
            f"v_{k}": {"duration_second": e["duration"], "annotations": e["annotations"]}
            for k, e in entries.items()
        }
        (root / "anet_anno_action.json").write_text(json.dumps(bmn))
        lines = [f"v_{k},1,{e['subset']}" for k, e in entries.items()]
        (root / "video_info_new.csv").write_text("\n".join(["video,numFrame,subset", *lines]) + "\n")
    for style in (1, 2):
        for key, count in frames.items():
            empty_frames(root / f"style_{style}" / f"v_{key}", count, "%06d.jpg", 1)
    return root


@pytest.mark.parametrize("official", [True, False])
def test_activitynet(tmp_path, official):
    counts = {"good": 100, "clamped": 49, "short": 31, "brief": 100, "training": 100}
    root = make_activitynet(tmp_path / "a", counts, official)
    clips = list_clips(row_of("StylizedActivityNet", root), (1, 2))
    assert [(c.id, c.first, c.length, c.label, c.fps) for c in clips.clips] == [
        ("v_good", 10, 39, 1, 5),
        ("v_clamped", 5, 44, 0, 5),  # the disk ends one frame before the annotation's duration
    ]
    assert dict(clips.filtered) == {
        "v_short": "fewer than 32 frames at 5 fps",
        "v_brief": "a segment of fewer than 16 frames at 5 fps",
        "v_training": "subset training",
        "v_absent": "not on disk",
    }
    for changes in ({"fps": 25}, {"fps": None}):
        with pytest.raises(UserError, match="dataset.fps"):
            list_clips(row_of("StylizedActivityNet", root, **changes), (1, 2))


def test_activitynet_from_video_files_counts_at_their_own_rate(tmp_path):
    root = make_activitynet(tmp_path / "a", {}, official=True)
    frames = np.zeros((260, 16, 16, 3), np.uint8)
    (root / "style_1").mkdir()
    write_video(root / "style_1" / "v_good.mkv", frames)  # 25 frames per second
    shutil.copytree(root / "style_1", root / "style_2")
    (clip,) = list_clips(row_of("StylizedActivityNet", root), (1, 2)).clips
    assert (clip.first, clip.length, clip.fps) == (51, 249 - 51, 25)


def make_ssv2(root: Path, lengths: dict[str, int]) -> Path:
    root.mkdir()
    templates = ["Pushing [something] on [something]", "Closing [something]"]
    lines = [{"id": key, "template": templates[i % 2]} for i, key in enumerate([*lengths, "absent"])]
    (root / "validation.json").write_text(json.dumps(lines))
    labels = {"Closing something": "0", "Pushing something on something": "1"}
    (root / "labels.json").write_text(json.dumps(labels))
    for style in (1, 2):
        for key, count in lengths.items():
            empty_frames(root / f"style_{style}" / key, count, "%06d.jpg", 1)
    return root


def test_ssv2_on_disk(tmp_path):
    root = make_ssv2(tmp_path / "s", {"11": 8, "12": 7, "13": 40})
    clips = list_clips(row_of("ssv2", root), (1, 2))
    assert [(c.id, c.length, c.label, c.fps) for c in clips.clips] == [("11", 8, 1, 12), ("13", 40, 1, 12)]
    assert dict(clips.filtered) == {"12": "fewer than 8 frames", "absent": "not on disk"}
    assert clips.filtered_by_reason["not on disk"] == ["absent"]
    lines = clips.remarks(assumed_fps=30, resample_fps=None)
    assert any("2 clips are at 12" in line and "resample_fps=30 corrects it" in line for line in lines)
    assert not any("frame rate" in line for line in clips.remarks(30, resample_fps=30))
    (short,) = (line for line in clips.remarks(12, None, window=9) if "short clips" in line)
    assert "1 of 2 have fewer frames than the window of 9 (the first: 11)" in short
    assert not any("short clips" in line for line in clips.remarks(12, None, window=8))
    assert any("1 of 2" in line for line in clips.remarks(12, resample_fps=6, window=5))  # 8 frames are 4


def make_diving48(root: Path, clips: dict[str, tuple[int, int, int]]) -> Path:
    """Name -> end_frame, frames on disk, number of the first."""
    root.mkdir()
    lines = [{"vid_name": n, "label": 3, "start_frame": 0, "end_frame": e} for n, (e, _, _) in clips.items()]
    (root / "Diving48_V2_test.json").write_text(json.dumps(lines))
    (root / "Diving48_vocab.json").write_text(json.dumps([["Back"]] * 48))
    for style in (1, 2):
        for name, (_, count, first) in clips.items():
            empty_frames(root / f"style_{style}" / name, count, "image_%05d.jpg", first)
    return root


def test_diving48_on_disk(tmp_path):
    clips = {"v_a_00001": (20, 20, 0), "v_a_00002": (20, 25, 1), "w_00001": (7, 7, 0), "w_00002": (20, 19, 0)}
    root = make_diving48(tmp_path / "d", clips)
    with pytest.raises(UserError, match="'w_00002': the video has 19 frames, but its annotation says 20"):
        list_clips(row_of("Diving48", root), (1, 2))
    found = list_clips(row_of("Diving48", root), (1, 2), on_error="skip")
    assert [(c.id, c.first, c.length, c.cluster) for c in found.clips] == [
        ("v_a_00001", 0, 20, "v_a"),
        ("v_a_00002", 0, 20, "v_a"),
    ]
    assert dict(found.filtered) == {"w_00001": "fewer than 8 frames"} and len(found.skipped) == 1


def make_kinetics(root: Path) -> Path:
    root.mkdir()
    lines = ["label,youtube_id,time_start,time_end,split"]
    lines += [f"{c},id{i},{i},{i + 10},val" for i, c in enumerate(["yoga", "busking", "zumba", "yawning"])]
    (root / "kinetics_val.csv").write_text("\n".join(lines) + "\n")
    for style in (1, 2):
        places = ["id0_000000_000010", "busking/id1_000001_000011", "id2", "yawning/id3"]
        for place in places:
            empty_frames(root / f"style_{style}" / place, 9, "%06d.jpg", 1)
    return root


def test_kinetics_names_and_subsets(tmp_path):
    root = make_kinetics(tmp_path / "k")
    clips = list_clips(row_of("Kinetics", root), (1, 2)).clips
    assert [c.video for c in clips] == [
        "id0_000000_000010",
        "busking/id1_000001_000011",
        "id2",
        "yawning/id3",
    ]
    assert [c.label for c in clips] == [2, 0, 3, 1] and clips[0].cluster == "id0"
    for subset, expected in {"temporal": [1], "static": [0, 3], "random": [1, 2]}.items():
        found = list_clips(row_of("Kinetics", root, subset=subset), (1, 2))
        assert [c.cluster for c in found.clips] == [f"id{i}" for i in expected]
        assert len(found.filtered) == 4 - len(expected)
    with pytest.raises(UserError, match="nearest known: temporal"):
        list_clips(row_of("Kinetics", root, subset="temporl"), (1, 2))


def test_kinetics_subsets_are_classes_of_kinetics(shared_data):
    known = set((shared_data / "annotations" / "kinetics400_labels.txt").read_text().splitlines())
    subsets = configs.row("dataset", "Kinetics").subsets
    assert all(len(set(classes)) == 32 and set(classes) <= known for classes in subsets.values())


def test_class_folders_are_labels(tmp_path):
    for style in (1, 2):
        for place in ("run/a", "run/b", "jump/a"):
            empty_frames(tmp_path / f"style_{style}" / place, 4, "%d.png", 0)
    clips = list_clips(row_of("folder", tmp_path), (1, 2)).clips
    assert [(c.id, c.label) for c in clips] == [("jump/a", 0), ("run/a", 1), ("run/b", 1)]


# guards


def test_an_id_that_leaves_the_root_is_refused(tmp_path):
    root = make_ssv2(tmp_path / "s", {"12": 9})
    shutil.copytree(root / "style_1" / "12", tmp_path / "etc")
    lines = json.loads((root / "validation.json").read_text())
    (root / "validation.json").write_text(json.dumps([{**lines[0], "id": "../../etc"}, *lines]))
    with pytest.raises(UserError, match=r"'../../etc': the video name points outside the data set"):
        list_clips(row_of("ssv2", root), (1, 2))
    clips = list_clips(row_of("ssv2", root), (1, 2), on_error="skip")
    assert [c.id for c in clips.clips] == ["12"]
    with pytest.raises(UserError, match="points outside"):
        clips.frames_of("/etc", 1)


def test_a_broken_line_is_named(tmp_path):
    root = make_kinetics(tmp_path / "k")
    with (root / "kinetics_val.csv").open("a") as file:
        file.write("yoga,id5\nyoga,id6,x,y,val\n")
    with pytest.raises(UserError, match=r"'kinetics_val.csv line 6' .the first of 2"):
        list_clips(row_of("Kinetics", root), (1, 2))
    assert len(list_clips(row_of("Kinetics", root), (1, 2), on_error="skip").clips) == 4
    root = make_activitynet(tmp_path / "a", {"good": 100}, official=False)
    with (root / "video_info_new.csv").open("a") as file:
        file.write("v_x\n")
    with pytest.raises(UserError, match="video_info_new.csv line 8"):
        list_clips(row_of("StylizedActivityNet", root), (1, 2))


@pytest.mark.parametrize("line", [None, 3, [], {}, {"id": "12"}, {"id": "12", "template": 5}])
def test_entries_of_another_form_are_named(tmp_path, line):
    root = make_ssv2(tmp_path / "s", {"12": 9})
    lines = json.loads((root / "validation.json").read_text())
    (root / "validation.json").write_text(json.dumps([line, *lines]))
    found = list_clips(row_of("ssv2", root), (1, 2), on_error="skip")
    assert found.skipped[0][0] == "validation.json entry 1" and [c.id for c in found.clips] == ["12"]


@pytest.mark.parametrize(
    "video",
    [None, 7, {}, {"annotations": 3}, {"subset": "validation", "annotations": [{"label": "a"}]}]
    + [
        {"subset": "validation", "duration": 50, "annotations": [{"label": "a", "segment": segment}]}
        for segment in ([5], [9, 2], ["x", "y"], [-3, 30], [float("nan"), 30], [float("inf"), float("inf")])
    ],
)
def test_activitynet_entries_of_another_form_are_named(tmp_path, video):
    root = make_activitynet(tmp_path / "a", {"good": 100}, official=True)
    content = json.loads((root / "activitynet_v13.json").read_text())
    content["database"]["odd"] = video
    (root / "activitynet_v13.json").write_text(json.dumps(content))
    found = list_clips(row_of("StylizedActivityNet", root), (1, 2), on_error="skip")
    assert [name for name, _ in found.skipped] == ["v_odd"] and [c.id for c in found.clips] == ["v_good"]


def test_annotation_files_that_are_not_there_or_damaged(tmp_path):
    root = make_ssv2(tmp_path / "s", {"12": 9})
    (root / "labels.json").write_text("{")
    with pytest.raises(UserError, match="labels.json is not readable json"):
        list_clips(row_of("ssv2", root), (1, 2))
    (root / "labels.json").unlink()
    with pytest.raises(UserError, match="has no something-something-v2-labels.json or labels.json"):
        list_clips(row_of("ssv2", root), (1, 2))


def test_a_missing_frame_is_seen(tmp_path):
    root = make_ssv2(tmp_path / "s", {"12": 20, "13": 20, "14": 20, "15": 20})
    for style in (1, 2):
        (root / f"style_{style}/12/000005.jpg").unlink()
    (root / "style_1/13/000001.jpg").unlink()
    (root / "style_2/13/000020.jpg").unlink()
    skipped = dict(list_clips(row_of("ssv2", root), (1, 2), on_error="skip").skipped)
    assert skipped["12"] == "frame 5 of 20 is missing"
    assert skipped["13"].endswith("style_1 begins with 2, style_2 begins with 1")
    for style in (1, 2):
        (root / f"style_{style}/14/000001.jpg").unlink()
    skipped = dict(list_clips(row_of("ssv2", root), (1, 2), on_error="skip").skipped)
    assert skipped["14"] == "its first frame has the number 2, not 0 or 1"


def test_a_link_that_goes_round_is_named_and_not_followed(tmp_path):
    for style in (1, 2):
        folder = tmp_path / f"style_{style}"
        empty_frames(folder / "a", 9, "%06d.jpg", 1)
        (folder / "loop").symlink_to("loop")
        (folder / "up").symlink_to("..")
        (folder / "elsewhere").symlink_to(folder / "a")
    found = list_clips(row_of("folder", tmp_path), (1, 2), on_error="skip")
    assert [c.id for c in found.clips] == ["a", "elsewhere"]
    reasons = dict(found.skipped)
    assert "broken link" in reasons["loop"] and "a link to a folder that contains" in reasons["up"]


def test_an_unknown_frame_rate_is_no_difference_between_styles():
    video, images = VideoInfo(9, 25.0), VideoInfo(9, None)
    assert common_info({1: images, 0: video}).fps == common_info({0: video, 1: images}).fps == 25.0
    assert common_info({1: images, 2: images}).fps is None
    with pytest.raises(BadFrames, match="differ in frame rate: style_1 has 30.0, style_0 has 25.0"):
        common_info({1: VideoInfo(9, 30.0), 0: video})
