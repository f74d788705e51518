"""Frames are ordered by the number that differs from frame to frame, or refused."""

import numpy as np
import pytest
from PIL import Image

from static_dynamic.datasets import list_clips, numbering
from static_dynamic.datasets.discovery import list_videos
from static_dynamic.datasets.frames import BadFrames, open_frames
from static_dynamic.datasets.numbering import frame_numbers
from static_dynamic.errors import UserError
from tests.datasets.test_annotations import empty_frames, row_of
from tests.datasets.test_discovery import copy_video

# Frame number -> name, as people's tools write them.
NAMES = {
    "plain": lambda n: f"{n:06d}.jpg",
    "without zeros": lambda n: f"frame_{n}.png",
    "size": lambda n: f"frame{n}_640x480.png",
    "copies": lambda n: f"img ({n}).png",
    "version": lambda n: f"img_{n}_v2.png",
    "time": lambda n: f"frame_{n}_t{n / 25:.2f}.png",
    "time first": lambda n: f"t{n / 25:.2f}_frame_{n}.png",
    "score": lambda n: f"score{n * 7919 % 97}_frame{n}.png",
    "video's number": lambda n: f"v2_clip10_{n}.png",
    "time stamp in nanoseconds": lambda n: f"{1_700_000_000_000_000_000 + 40_000_000 * n}.png",
    "frame and time stamp": lambda n: f"{n}_{1_700_000_000_000 + 40 * n}.png",
    "store": lambda n: f"v_12_3/frame_{n:05d}",
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("count", [2, 30, 130])
def test_the_number_that_counts_the_frames_is_found(tmp_path, kind, count):
    names = [NAMES[kind](n) for n in range(1, count + 1)]
    shuffled = list(np.random.default_rng(count).permutation(names))
    numbers = frame_numbers(shuffled, tmp_path)
    assert [shuffled[i] for i in np.argsort(numbers)] == names


@pytest.mark.parametrize("kind", NAMES)
def test_the_fast_way_gives_the_same_numbers(tmp_path, monkeypatch, kind):
    names = [NAMES[kind](n) for n in (*range(1, 40), 7)]
    fast = frame_numbers(names, tmp_path)
    monkeypatch.setattr(numbering, "_only_number", lambda names: [])
    assert frame_numbers(names, tmp_path) == fast


REFUSED = {
    "two counters": ([f"{n}_{9 - n}.png" for n in range(9)], "several orders"),
    "minutes and seconds": (["10_58.png", "10_59.png", "11_00.png", "11_01.png"], "several orders"),
    "shots and frames": (["1_1.png", "1_2.png", "2_1.png", "2_2.png"], "several orders"),
    "seconds with a point": ([f"{n / 25:.2f}.png" for n in range(60)], "several orders"),
    "a cover": (["cover.jpg", *(f"{n}.jpg" for n in range(9))], "'cover.jpg' is not numbered like"),
    "a copy": (["3 (1).jpg", *(f"{n}.jpg" for n in range(9))], r"'3 \(1\).jpg' is not numbered like"),
    "no numbers": (["a.jpg", "b.jpg"], "names such as 'a.jpg' hold no number"),
    "long": (["9" * 5000, "1"], "too long"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_names_with_several_orders_are_refused(tmp_path, kind):
    names, says = REFUSED[kind]
    with pytest.raises(BadFrames, match=says):
        frame_numbers(names, tmp_path)


def test_frames_are_read_in_the_order_of_their_numbers(tmp_path):
    for n in (2, 10, 1):
        Image.new("RGB", (4, 4), (n, 0, 0)).save(tmp_path / f"frame{n}_640x480.png")
    assert [int(f[0, 0, 0]) for f in open_frames(tmp_path).read([0, 1, 2])] == [1, 2, 10]


def folder_of(root, **videos):
    """Two styles with the same videos: name -> names of empty images."""
    for style in (1, 2):
        for video, names in videos.items():
            (root / f"style_{style}" / video).mkdir(parents=True)
            for name in names:
                (root / f"style_{style}" / video / name).touch()
    return root


def test_faults_of_frame_numbers_are_named_in_a_folder_data_set(tmp_path):
    frames = [f"{n:03d}.png" for n in range(1, 21)]
    root = folder_of(
        tmp_path,
        sound=frames,
        gaps=frames[::2],
        late=frames[5:],
        twice=[*frames, "005.jpg"],
        cover=[*frames, "cover.jpg"],
    )
    found = list_clips(row_of("folder", root), (1, 2), on_error="skip")
    assert [clip.id for clip in found.clips] == ["gaps", "late", "sound"]
    reasons = dict(found.skipped)
    assert reasons["twice"] == "two files have the frame number 5"
    assert "'cover.jpg' is not numbered like" in reasons["cover"]
    assert found.videos_by_note == {
        "the frame numbers have gaps: the frames are used as if no frame were missing": ["gaps"]
    }
    with pytest.raises(UserError, match="'cover' .the first of 2 .*'cover.jpg' is not numbered"):
        list_clips(row_of("folder", root), (1, 2))


def test_styles_that_begin_with_different_frames_do_not_match(tmp_path):
    for style, first in ((1, 1), (2, 2), (3, 0)):
        empty_frames(tmp_path / f"style_{style}" / "v", 9, "%d.png", first)
    assert len(list_clips(row_of("folder", tmp_path), (1, 3)).clips) == 1  # counted from 0 and from 1
    with pytest.raises(UserError, match="different frame numbers: style_1 begins with 1, style_2 begins"):
        list_clips(row_of("folder", tmp_path), (1, 2))


def test_thumbnails_of_videos_are_no_frames(tmp_path):
    for n in range(1, 21):
        copy_video(tmp_path / "wave" / f"{n:03d}.mp4")
        (tmp_path / "wave" / f"{n:03d}.jpg").touch()
    assert list(list_videos(tmp_path)) == [f"wave/{n:03d}" for n in range(1, 21)]
