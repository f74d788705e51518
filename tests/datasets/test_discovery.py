"""Videos are found under the names and among the files that people have."""

import os
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from static_dynamic.datasets import list_clips
from static_dynamic.datasets.discovery import find_video, list_videos, unknown_files
from static_dynamic.datasets.frames import open_frames, read_image
from static_dynamic.errors import UserError
from tests.conftest import moving_square, write_frames
from tests.datasets.test_annotations import row_of
from tests.datasets.test_videos import CASES, numbers


def copy_video(target, name="whole.mp4"):
    target.parent.mkdir(parents=True, exist_ok=True)
    return shutil.copy(CASES / name, target)


@pytest.mark.parametrize("suffix", [".MP4", ".Mov", ".m4v", ".3gp", ".ts"])
def test_suffixes_in_any_case(tmp_path, suffix):
    copy_video(tmp_path / f"WHOLE{suffix}")
    assert list(list_videos(tmp_path)) == ["WHOLE"]
    assert numbers(open_frames(find_video(tmp_path, "WHOLE")).read([3, 100])) == [3, 100]


def test_a_class_folder_may_hold_pictures(tmp_path):
    for name in ("wave/a.mp4", "wave/b.MP4", "run/c.mp4"):
        copy_video(tmp_path / name)
    write_frames(tmp_path / "walk" / "d", moving_square(0, n=3))
    copy_video(tmp_path / "walk" / "d" / "preview.mp4")  # frames numbered from 1 stay a video
    for name in ("cover.jpg", "poster 2.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "wave" / name)
    assert list(list_videos(tmp_path)) == ["run/c", "walk/d", "wave/a", "wave/b"]


def test_unfinished_and_empty_files_are_named(tmp_path, call):
    copy_video(tmp_path / "style_1" / "wave" / "a.mp4")
    (tmp_path / "style_1" / "wave" / "b.mp4.part").write_bytes(b"half")
    (tmp_path / "style_1" / "empty.mp4").touch()
    (tmp_path / "style_1" / "@eaDir").mkdir()
    (tmp_path / "style_1" / "__MACOSX").mkdir()
    (tmp_path / "style_1" / "wave" / ".AppleDouble").mkdir()
    (tmp_path / "style_1" / "wave" / "._a.mp4").write_bytes(b"properties")
    (tmp_path / "style_1" / "labels.txt").touch()
    assert list(unknown_files(tmp_path / "style_1")) == ["wave/b.mp4.part"]
    assert list(list_videos(tmp_path / "style_1")) == ["empty", "wave/a"]
    status, out, _ = call("check_dataset.py", tmp_path)
    assert status == 1 and "note: 1 files are not videos, first style_1/wave/b.mp4.part" in out
    assert "empty.mp4 is not a readable video" in out and "1 faults" in out


def test_names_that_are_not_utf8_are_named_in_one_line(tmp_path):
    copy_video(tmp_path / "style_1" / "a.mp4")
    os.rename(tmp_path / "style_1" / "a.mp4", os.fsencode(tmp_path / "style_1") + b"/caf\xe9.mp4")
    with pytest.raises(UserError, match=r"caf\\udce9.mp4: the name is not valid UTF-8: rename"):
        list_clips(row_of("folder", tmp_path), (1,))


def test_a_relative_path_with_a_colon(tmp_path, monkeypatch):
    copy_video(tmp_path / "http:data" / "style_1" / "a.mp4")
    monkeypatch.chdir(tmp_path)
    clips = list_clips(row_of("folder", "http:data"), (1,))
    assert numbers(clips.frames_of("a", 1).read([7])) == [7]


def test_frame_stores_are_written_for_all_sound_videos(tmp_path, call):
    copy_video(tmp_path / "in" / "b.mp4")
    (tmp_path / "in" / "a.mp4").write_bytes(b"no video")
    status, out, _ = call("make_frames_db.py", tmp_path / "in", tmp_path / "out")
    assert status == 1 and "a.mp4 is not a readable video" in out and "1 of 2 videos, 150 frames" in out
    assert len(open_frames(tmp_path / "out" / "b")) == 150


def test_pictures_are_turned_as_their_exif_data_says(tmp_path):
    picture = Image.fromarray(np.repeat(np.arange(48, dtype=np.uint8).reshape(6, 8, 1) * 5, 3, axis=2))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn clockwise
    picture.save(tmp_path / "1.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "1.png"), np.rot90(np.asarray(picture), -1))


def test_grey_pictures_of_16_bits_keep_their_high_byte(tmp_path):
    grey = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    Image.fromarray(grey).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_image(tmp_path / "1.png")[..., 1], grey >> 8)


@pytest.mark.parametrize("rate", ["30", "30000/1001"])
def test_videos_beside_the_frames_that_were_made_of_them(tmp_path, rate):
    for style in (1, 2):
        write_frames(tmp_path / f"style_{style}" / "a", moving_square(style, n=9, side=64))
    (tmp_path / "originals").mkdir()
    with av.open(str(tmp_path / "originals" / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate))
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for frame in moving_square(0, n=9, side=64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    for fps in (None, 29.97, 30):
        row = row_of("folder", tmp_path, fps=fps)
        (clip,) = list_clips(row, (0, 1, 2), normal_root=tmp_path / "originals").clips
        assert clip.length == 9 and clip.fps == float(Fraction(rate))
