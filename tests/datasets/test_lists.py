"""Annotation files of further data sets, and the encodings of spreadsheets."""

import csv
import io
import json

import pytest

from static_dynamic.datasets import list_clips
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.datasets.listing import image_range
from static_dynamic.errors import UserError
from tests.datasets.test_annotations import annotated, empty_frames, make_kinetics, make_ssv2, row_of
from tests.datasets.test_discovery import copy_video


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def fill(root, *videos, count=20, pattern="%06d.jpg"):
    for style in (1, 2):
        for video in videos:
            empty_frames(root / f"style_{style}" / video, count, pattern, 1)


def listed(name, root, **options):
    return list_clips(row_of(name, root, **options), (1, 2), on_error="skip")


# MMAction2

LINES = [
    "run/a.mp4 3",
    "run/my clip.avi 4",
    "jump/b 18 5",
    "jump/a 20 6",
    "d 21 7",
    "c 9 8 1",
    "e.mp4",
    "f x",
]


def test_lists_of_mmaction2(tmp_path):
    write(tmp_path / "val_list.txt", *LINES)
    fill(tmp_path, "run/a", "my clip", "b", "jump/a", "d")
    found = listed("MMAction2", tmp_path)
    assert [(c.video, c.first, c.length, c.label) for c in found.clips] == [
        ("run/a", 0, 20, 3),
        ("my clip", 0, 20, 4),  # without the folders in its path
        ("b", 0, 18, 5),
        ("jump/a", 0, 20, 6),
    ]
    assert dict(found.skipped) == {
        "d": "the video has 20 frames, but its annotation says 21 frames",
        "val_list.txt line 7": "'e.mp4' is not 'path label' or 'path frames label' with one label",
        "val_list.txt line 8": "'f x' is not 'path label' or 'path frames label' with one label",
    }
    (row,) = [clip for clip in annotated("MMAction2", tmp_path) if clip.id == "run/a"]
    assert row.names == ("run/a",)  # two videos of the list are called a


def test_one_video_with_two_classes_is_named(tmp_path):
    write(tmp_path / "val_list.txt", "a.mp4 3", "b.mp4 1", "a.mp4 3", "a.mp4 4")
    fill(tmp_path, "a", "b")
    found = listed("MMAction2", tmp_path)
    assert [clip.id for clip in found.clips] == ["a", "b"]
    assert found.filtered == (("a", "listed a second time"),)
    assert found.skipped == (("a", "a is listed twice, with different classes"),)


# UCF101 and HMDB51


def test_ucf101(tmp_path):
    write(tmp_path / "classInd.txt", "1 Archery", "2 Bowling")
    videos = ["Archery/v_Archery_g01_c01", "Bowling/v_Bowling_g02_c01", "Bowling/v_Bowling_g02_c02"]
    write(tmp_path / "testlist01.txt", *(f"{video}.avi" for video in videos), "Ski/v_Ski_g01_c01.avi")
    write(tmp_path / "trainlist02.txt", f"{videos[1]}.avi 2")
    fill(tmp_path, videos[0], videos[1].split("/")[1], videos[2])
    found = listed("UCF101", tmp_path)
    assert [(c.id, c.label, c.cluster) for c in found.clips] == [
        (videos[0], 0, "v_Archery_g01"),
        (videos[1], 1, "v_Bowling_g02"),
        (videos[2], 1, "v_Bowling_g02"),
    ]
    assert found.skipped[0][1] == "'Ski/v_Ski_g01_c01.avi' names no class of classInd.txt"
    assert [c.id for c in listed("UCF101", tmp_path, split=2, subset="train").clips] == [videos[1]]
    with pytest.raises(UserError, match="has no testlist03.txt"):
        listed("UCF101", tmp_path, split=3)


def test_hmdb51(tmp_path):
    lists = tmp_path / "testTrainMulti_7030_splits"
    waves = ["RATRACE_wave_f_nm_np1_fr_goo_37.avi", "RATRACE_wave_f_nm_np1_fr_med_38.avi", "x_wave_1.avi"]
    write(lists / "wave_test_split1.txt", *(f"{v} {k} " for v, k in zip(waves, (2, 2, 1), strict=True)))
    write(lists / "brush_hair_test_split1.txt", "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 2 ", "bad line")
    write(lists / "wave_test_split2.txt", f"{waves[2]} 2 ")
    april = "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0"
    fill(tmp_path, april, "wave/RATRACE_wave_f_nm_np1_fr_goo_37", "RATRACE_wave_f_nm_np1_fr_med_38")
    found = listed("HMDB51", tmp_path)
    assert [(c.video, c.label, c.cluster) for c in found.clips] == [
        (april, 0, "April_09"),
        ("wave/RATRACE_wave_f_nm_np1_fr_goo_37", 1, "RATRACE"),
        ("RATRACE_wave_f_nm_np1_fr_med_38", 1, "RATRACE"),
    ]
    assert found.filtered == (("x_wave_1", "not in the test set of split 1"),)
    assert found.skipped == (("brush_hair_test_split1.txt line 2", "'bad line' is not 'VIDEO 0, 1 or 2'"),)
    with pytest.raises(UserError, match="has no CLASS_test_split3.txt"):
        listed("HMDB51", tmp_path, split=3)


# Jester, Charades and EPIC-Kitchens


def test_jester(tmp_path):
    write(tmp_path / "jester-v1-labels.csv", "Swiping Left", "Doing other things")
    write(tmp_path / "jester-v1-validation.csv", "9;Doing other things", "7;Swiping Left", "8;Waving", "5")
    fill(tmp_path, "9", "7", pattern="%05d.jpg")
    found = listed("Jester", tmp_path)
    assert [(c.id, c.label, c.fps) for c in found.clips] == [("9", 1, 12), ("7", 0, 12)]
    assert [name for name, _ in found.skipped] == [f"jester-v1-validation.csv line {n}" for n in (3, 4)]


def test_charades(tmp_path):
    rows = ["id,scene,actions,length"]
    rows += ['AB12C,"Home, office",c092 0.50 1.50;c147 0.25 0.75,3', "EMPTY,Hall,,3", "ODD00,Hall,c1 x 2,3"]
    write(tmp_path / "Charades_v1_test.csv", *rows)
    fill(tmp_path, "AB12C", count=72, pattern="AB12C-%06d.jpg")
    found = listed("Charades", tmp_path)
    assert [(c.id, c.first, c.length, c.label, c.fps) for c in found.clips] == [("AB12C", 6, 12, 147, 24)]
    assert found.filtered == (("EMPTY", "no action"),)
    assert found.skipped == (("ODD00", "its actions are malformed ('x' is not a time)"),)


def epic(root):
    header = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame"
    lines = [
        "P01_01_0,P01,P01_01,00:00:00.40,00:00:02.00,11,51,3,7",
        "P01_01_1,P01,P01_01,00:00:01.00,00:01:02.00,26,1551,3,7",
        "P02_05_0,P02,P02_05,00:00:03.00,00:00:04.00,76,101,4,9",
        "P02_05_1,P02,P02_05,4 s,00:00:04.00,76,101,4,9",
    ]
    write(root / "EPIC_100_validation.csv", f"{header},verb_class,noun_class", *lines)
    return root


def test_epic_kitchens_as_folders_of_images(tmp_path):
    root = epic(tmp_path)
    fill(root, "P01/rgb_frames/P01_01", count=60, pattern="frame_%010d.jpg")
    found = listed("EPICKitchens", root)
    assert [(c.id, c.video, c.first, c.length, c.label) for c in found.clips] == [
        ("P01_01_0", "P01/rgb_frames/P01_01", 10, 40, 3)
    ]
    assert found.clips[0].cluster == "P01_01"
    assert dict(found.skipped) == {
        "P01_01_1": "the video has 60 frames, but its annotation says frames 25 to 1550",
        "EPIC_100_validation.csv line 5": "'4 s' is not a time",
    }
    assert found.filtered == (("P02_05_0", "not on disk"),)
    assert [c.label for c in listed("EPICKitchens", root, label="noun").clips] == [7]


def test_epic_kitchens_as_video_files_counts_at_their_rate(tmp_path):
    root = epic(tmp_path)
    for style in (1, 2):  # 150 frames at 30 per second
        copy_video(root / f"style_{style}" / "P02/videos/P02_05.MP4")
    (clip,) = listed("EPICKitchens", root).clips
    assert (clip.video, clip.first, clip.length, clip.fps) == ("P02/videos/P02_05", 90, 30, 30)


def test_videos_below_two_folders_are_named(tmp_path):
    fill(tmp_path, "P01/rgb_frames/P01_01")
    with pytest.raises(UserError, match="P01/rgb_frames holds no images, but folders such as 'P01_01'"):
        list_clips(row_of("folder", tmp_path), (1, 2))


# Kinetics


def test_one_file_for_two_clips_of_kinetics_is_named(tmp_path):
    root = make_kinetics(tmp_path / "k")
    with (root / "kinetics_val.csv").open("a") as file:
        file.write(
            "jogging,id2,40,50,val\njogging,id0,40,50,val\n yoga ,id9,10.0,20.0,val\nyoga,id8,1.5,9,val\n"
        )
    fill(root, "id9_000010_000020", "id0")
    found = listed("Kinetics", root)
    assert [(c.id, c.video) for c in found.clips] == [
        ("id0_000000_000010", "id0_000000_000010"),
        ("id1_000001_000011", "busking/id1_000001_000011"),
        ("id3_000003_000013", "yawning/id3"),
        ("id9_000010_000020", "id9_000010_000020"),
    ]
    assert found.clips[0].label == found.clips[3].label  # blanks around a class make no class
    says = "kinetics_val.csv lists several clips of {!r}: name the file of each clip like {}"
    assert dict(found.skipped) == {
        "id2_000002_000012": says.format("id2", "id2_000002_000012"),
        "id2_000040_000050": says.format("id2", "id2_000040_000050"),
        "id0_000040_000050": says.format("id0", "id0_000040_000050"),
        "kinetics_val.csv line 9": "the time '1.5' is not a whole number of seconds",
    }


# encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_files_of_spreadsheets(tmp_path, encoding, separator):
    root = make_kinetics(tmp_path / "k")
    file = root / "kinetics_val.csv"
    lines = [*csv.reader(io.StringIO(file.read_text())), ["café, bar", "id7", "7", "17", "val"]]
    expected = [(c.id, c.label) for c in annotated("Kinetics", root)] + [("id7_000007_000017", 1)]
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows(lines)
    file.write_bytes(text.getvalue().encode(encoding))
    found = [(c.id, c.label) for c in annotated("Kinetics", root)]
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert found[-1] == expected[-1] and not any(c.broken for c in annotated("Kinetics", root))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_files_in_other_encodings(tmp_path, encoding):
    root = make_ssv2(tmp_path / "s", {"12": 9})
    for name in ("validation.json", "labels.json"):
        text = (root / name).read_text()
        (root / name).write_bytes(text.encode(encoding))
    assert [c.id for c in list_clips(row_of("ssv2", root), (1, 2)).clips] == ["12"]


def test_bytes_of_another_encoding_make_a_broken_line(tmp_path):
    root = make_kinetics(tmp_path / "k")
    with (root / "kinetics_val.csv").open("ab") as file:
        file.write("café,id7,7,17,val\n".encode("latin-1"))
    assert [c.id for c in annotated("Kinetics", root) if c.broken] == ["kinetics_val.csv line 6"]


def test_numbers_as_text_in_activitynet(tmp_path):
    segment = {"segment": ["1.0", "9.0"], "label": "a"}
    video = {"subset": "validation", "duration": "10.0", "annotations": [segment]}
    (tmp_path / "activitynet_v13.json").write_text(json.dumps({"database": {"x": video}}))
    (clip,) = annotated("StylizedActivityNet", tmp_path)
    assert clip.seconds == (1.0, 9.0) and not clip.broken


def test_ranges_of_images():
    assert image_range((10, 50), 60) == (10, 40)
    for images in ((-1, 9), (9, 9), (50, 61)):
        with pytest.raises(BadFrames, match="its annotation says frames"):
            image_range(images, 60)
