"""Every frame of a video file is the frame that a player shows, however it is asked for."""

import json
import shutil
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from static_dynamic.datasets import list_clips
from static_dynamic.datasets.clips import Clip
from static_dynamic.datasets.discovery import VideoInfo
from static_dynamic.datasets.frames import BadFrames, open_frames
from static_dynamic.datasets.listing import common_info
from static_dynamic.datasets.orders import window_frames
from static_dynamic.datasets.rates import resample, span
from static_dynamic.datasets.write import write_store
from tests.conftest import moving_square
from tests.datasets.test_annotations import row_of
from tests.datasets.test_frames import write_video

CASES = Path(__file__).parents[1] / "golden" / "video"
SHOWN = json.loads((CASES / "truth.json").read_text())
# Files whose packets announce wrong frames.
BY_DECODING = {"starts_without_key_frame.mkv", "xvid_b_frames.avi"}


def number_of(frame):
    """Number shown in a frame (H, W, 3): ten blocks in a row, white for 1, the lowest bit first."""
    block = frame.shape[1] // 10
    rows = frame[frame.shape[0] // 3 : 2 * frame.shape[0] // 3].astype(float).mean((0, 2))
    middles = [rows[b * block + block // 4 : b * block + 3 * block // 4].mean() for b in range(10)]
    return sum(int(middle > 127) << bit for bit, middle in enumerate(middles))


def numbers(frames):
    """Numbers shown in frames (n, H, W, 3); upright frames of `rotated.mp4` are turned back to be read."""
    return [number_of(np.rot90(f, -1) if f.shape[0] > f.shape[1] else f) for f in frames]


@cache
def decoded(path):
    """Frames of a file decoded in order, the reference for all other ways of asking."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("name", SHOWN)
def test_every_way_of_asking_gives_what_a_player_shows(name, tmp_path):
    shown, path = SHOWN[name], CASES / name
    assert len(open_frames(path)) == len(shown)
    assert open_frames(path).header.trusted == (name not in BY_DECODING)
    alone = [numbers(open_frames(path).read([i]))[0] for i in range(len(shown))]
    assert alone == shown
    assert numbers(open_frames(path).frames()) == shown
    rng = np.random.default_rng(0)
    for wanted in (rng.integers(0, len(shown), n).tolist() for n in range(1, 9)):
        assert numbers(open_frames(path).read(wanted)) == [shown[i] for i in wanted]
    assert write_store(path, tmp_path / "store") == len(shown)
    with pytest.raises(BadFrames, match=f"ends after {len(shown)} frames"):
        open_frames(path).read([len(shown)])


def test_frames_are_upright():
    assert open_frames(CASES / "rotated.mp4").read([0, 40]).shape == (2, 160, 96, 3)


def test_a_sound_file_is_opened_without_decoding_all_of_it(monkeypatch):
    monkeypatch.setattr("static_dynamic.datasets.videos.VideoFile._decoded_seconds", None)
    for name in SHOWN.keys() - BY_DECODING:
        assert len(open_frames(CASES / name)) == len(SHOWN[name])


def test_open_groups_of_pictures(tmp_path):
    """A cut at a key frame whose first pictures need the frames before: a player does not show them."""
    frames = moving_square(0, n=120)
    whole = write_video(tmp_path / "whole.mkv", frames, codec="mpeg2video", g="15", bf="2")
    cut = tmp_path / "cut.mkv"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        keys = 0
        for packet in source.demux(video=0):
            keys += packet.is_keyframe
            if keys > 2 and packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    for path in (whole, cut):
        reference = decoded(path)
        assert len(open_frames(path)) == len(reference)
        for i in range(len(reference)):
            np.testing.assert_array_equal(open_frames(path).read([i])[0], reference[i])
    assert 80 < len(decoded(cut)) < 120


def test_frames_that_the_decoder_repairs_are_unreadable(tmp_path):
    """Damage lasts until the next key frame, whether decoding begins before or after the damage."""
    data = bytearray((CASES / "whole.mp4").read_bytes())
    with av.open(str(CASES / "whole.mp4")) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    struck = next(p for p in packets[62:] if p.size > 60)  # in the group of pictures 60..89
    for at in range(struck.pos + 20, struck.pos + struck.size, 3):
        data[at] ^= 0xFF
    path = tmp_path / "struck.mp4"
    path.write_bytes(data)
    unreadable = []
    for i in range(150):
        try:
            assert numbers(open_frames(path).read([i])) == [i]
        except BadFrames as error:
            assert "struck.mp4" in str(error)
            unreadable.append(i)
    assert unreadable and unreadable == list(range(unreadable[0], 90))
    with pytest.raises(BadFrames, match="struck.mp4: frame .* is damaged"):
        list(open_frames(path).frames())
    assert numbers(open_frames(path).read([5, 149])) == [5, 149]


def test_seconds_become_frames_by_the_times_of_the_frames():
    """Frames 0 to 74 last 1/60 s, frames 75 to 149 last 1/15 s."""
    video = open_frames(CASES / "variable_rate.mkv")
    assert video.fps == pytest.approx(149 / (75 / 60 + 74 / 15), rel=1e-3)
    assert span((2.5, 5.5), video.fps, video.times) == (94, 139)
    assert span((0.0, 1.0), video.fps, video.times) == (0, 60)
    assert resample(150, video.fps, 15, video.times).tolist() == [*range(0, 75, 4), *range(75, 149)]
    clip = Clip("c", "v", 10, 140, fps=video.fps, times=tuple(video.times[10:] - video.times[10]))
    assert window_frames(clip, 40, None, resample_fps=30.0).tolist()[:35:2] == [*range(10, 75, 4), 75]
    for name in ("whole.mp4", "edit_list.mp4", "fragmented.mp4", "xvid_b_frames.avi"):
        assert open_frames(CASES / name).times is None


def test_prepare_frames_uses_the_times_of_the_frames(tmp_path, call):
    (tmp_path / "in").mkdir()
    shutil.copy(CASES / "variable_rate.mkv", tmp_path / "in")
    status, _, _ = call("prepare_frames.py", tmp_path / "in", tmp_path / "out", "--fps", 15)
    extracted = open_frames(tmp_path / "out" / "variable_rate")
    assert status == 0 and numbers(extracted.read([0, 15, 18, 19])) == [0, 60, 72, 75]


def test_decisions_about_files_are_noted(tmp_path, call):
    (tmp_path / "style_1").mkdir()
    for name in SHOWN:
        shutil.copy(CASES / name, tmp_path / "style_1")
    status, out, _ = call("check_dataset.py", tmp_path)
    assert status == 1  # one video has another frame rate than the others
    assert "note: 1 video files, first rotated: frames are turned upright" in out
    assert "note: 1 video files, first variable_rate: the frame rate varies" in out
    assert "note: 2 video files, first starts_without_key_frame: the file announces wrong frames" in out
    clips = list_clips(row_of("folder", tmp_path), (1,))
    assert len(clips.videos_by_note) == 3
    assert "1 videos, first rotated: frames are turned upright, as the file says" in clips.remarks(30, None)


def test_frame_rates_that_differ_by_rounding_are_equal():
    rates = {0: VideoInfo(40, 30000 / 1001), 1: VideoInfo(40, 29.97), 2: VideoInfo(40, None)}
    assert common_info(rates).fps == 30000 / 1001
    with pytest.raises(BadFrames, match="frame rate"):
        common_info({**rates, 3: VideoInfo(40, 25.0)})


def test_a_still_before_the_video_is_passed_over(tmp_path):
    path = tmp_path / "cover.mkv"
    with av.open(str(CASES / "whole.mp4")) as source, av.open(str(path), "w") as target:
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        stream = target.add_stream_from_template(source.streams.video[0])
        target.mux(cover.encode(av.VideoFrame.from_ndarray(moving_square(0, n=1)[0], format="rgb24")))
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert open_frames(path).read([0]).shape == (1, 96, 160, 3)
    assert numbers(open_frames(path).frames()) == list(range(150))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize("side", [32, 256])
def test_a_still_beside_the_video_is_passed_over(tmp_path, suffix, side):
    path = tmp_path / f"v{suffix}"
    with av.open(str(path), "w") as container:
        still, video = container.add_stream("mjpeg", rate=1), container.add_stream("libx264", rate=25)
        still.width = still.height = side
        video.width = video.height = 64
        still.pix_fmt, video.pix_fmt = "yuvj420p", "yuv420p"
        for stream, values in ((still, [250]), (video, range(0, 200, 5))):
            for value in values:
                frame = np.full((stream.height, stream.width, 3), value, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    frames = open_frames(path)
    assert len(frames) == 40 and frames.fps == 25
    assert [round(float(f.mean()) / 5) for f in frames.read([3, 20, 39])] == [3, 20, 39]
