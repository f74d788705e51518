import sqlite3

import av
import numpy as np
import pytest
from PIL import Image

from static_dynamic.datasets.frames import MAX_FRAMES, BadFrames, open_frames
from static_dynamic.datasets.shots import find_shots
from static_dynamic.datasets.write import write_store
from tests.conftest import moving_square, write_frames


def write_video(path, frames, codec="ffv1", **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_all_three_sources_give_the_same_pixels(tmp_path):
    frames = moving_square(0, n=20)
    folder = open_frames(write_frames(tmp_path / "folder", frames))
    video = open_frames(write_video(tmp_path / "video.mkv", frames))
    for name in ("folder", "video.mkv"):
        write_store(tmp_path / name, tmp_path / "stores" / f"of {name}")
    stores = [open_frames(path) for path in sorted((tmp_path / "stores").iterdir())]
    wanted = [7, 3, 3, 19, 0]
    for source in (folder, video, *stores):
        assert len(source) == 20
        np.testing.assert_array_equal(source.read(wanted), frames[wanted])
    assert video.fps == 25


def test_a_store_is_what_class_feature_pyramids_writes(tmp_path):
    write_frames(tmp_path / "v", moving_square(1, n=12))
    write_store(tmp_path / "v", tmp_path / "out" / "v")
    with sqlite3.connect(tmp_path / "out" / "v" / "frames.db") as connection:
        rows = dict(connection.execute("SELECT ObjId, frames FROM Images"))
    assert list(rows) == [f"v/frame_{i:05d}" for i in range(1, 13)]
    assert rows["v/frame_00001"] == (tmp_path / "v" / "000001.png").read_bytes()
    before = (tmp_path / "out" / "v" / "frames.db").read_bytes()
    open_frames(tmp_path / "out" / "v").read([0, 11])
    assert before == (tmp_path / "out" / "v" / "frames.db").read_bytes()
    assert [p.name for p in (tmp_path / "out" / "v").iterdir()] == ["frames.db"]


def test_broken_stores_are_named(tmp_path):
    write_frames(tmp_path / "v", moving_square(1, n=3))
    write_store(tmp_path / "v", tmp_path / "out" / "v")
    file = tmp_path / "out" / "v" / "frames.db"
    with pytest.raises(BadFrames, match="has 3 frames, but 4 are needed"):
        open_frames(file.parent).read([3])
    for value, says in ((10**12, "holds int, not bytes"), (b"", "frame_00002 is not a readable image")):
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE Images SET frames = ? WHERE ObjId = 'v/frame_00002'", (value,))
        with pytest.raises(BadFrames, match=says):
            open_frames(file.parent).read([1])
    file.write_bytes(b"SQLite format 3\0" + b"x" * 500)
    with pytest.raises(BadFrames, match="frames.db is not a readable frame store"):
        len(open_frames(file.parent))


def test_numbers_order_frames_whatever_their_padding(tmp_path):
    for i in (2, 10, 1):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"frame_{i}.png")
    assert [int(f[0, 0, 0]) for f in open_frames(tmp_path).read([0, 1, 2])] == [1, 2, 10]


def test_seeking_gives_the_frames_that_decoding_from_the_start_gives(tmp_path):
    frames = moving_square(1, n=120)
    path = write_video(tmp_path / "v.mp4", frames, codec="mpeg4", g="12", bf="2")
    with av.open(str(path)) as container:
        slow = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    video = open_frames(path)
    assert len(video) == len(slow)
    for wanted in ([40, 41, 119], [119], [77, 60], [0, 118]):
        np.testing.assert_array_equal(video.read(wanted), np.stack([slow[i] for i in wanted]))


def test_real_videos_seek_exactly(shared_data):
    for path in sorted((shared_data / "clips").iterdir())[::3] + sorted((shared_data / "ssv2").iterdir()):
        with av.open(str(path)) as container:
            slow = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        video = open_frames(path)
        wanted = [len(slow) - 1, len(slow) // 2]
        assert len(video) == len(slow), path.name
        np.testing.assert_array_equal(video.read(wanted), np.stack([slow[i] for i in wanted]), path.name)


def test_broken_files_are_named(tmp_path):
    with pytest.raises(BadFrames, match="nowhere does not exist"):
        open_frames(tmp_path / "nowhere")
    whole = write_video(tmp_path / "whole.avi", moving_square(2, n=60), codec="mpeg4")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    with pytest.raises(BadFrames, match="cut.avi"):
        open_frames(cut).read([59])
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(BadFrames, match="empty.mp4 is not a readable video"):
        len(open_frames(tmp_path / "empty.mp4"))
    folder = write_frames(tmp_path / "folder", moving_square(3, n=3))
    with pytest.raises(BadFrames, match="has 3 frames, but 5 are needed"):
        open_frames(folder).read([4])
    (folder / "000002.png").write_bytes(b"")
    with pytest.raises(BadFrames, match="000002.png is not a readable image"):
        open_frames(folder).read([1])
    Image.new("RGB", (5, 5)).save(folder / "000002.png")
    with pytest.raises(BadFrames, match="different sizes"):
        open_frames(folder).read([0, 1])
    Image.new("1", (9_000, 6_000)).save(folder / "000003.png")
    with pytest.raises(BadFrames, match="9000x6000"):
        open_frames(folder).read([2])


def test_a_truncated_jpeg_is_refused(tmp_path):
    Image.fromarray(moving_square(4, n=1)[0]).save(tmp_path / "1.jpg")
    data = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadFrames, match="1.jpg"):
        open_frames(tmp_path).read([0])


def test_shots_end_where_the_picture_jumps(tmp_path):
    frames = np.concatenate(
        [moving_square(seed, n=n) // 2 + 40 * k for k, (seed, n) in enumerate(((0, 30), (7, 25), (9, 41)))]
    )
    assert find_shots(write_video(tmp_path / "cuts.mkv", frames)) == [(0, 30), (30, 55), (55, 96)]


def test_an_image_of_200_megapixels_is_refused(tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "000001.png")
    with pytest.raises(BadFrames, match="000001.png.*(20000x10000|200000000)"):
        open_frames(tmp_path).read([0])


def test_a_video_that_claims_a_million_frames_is_refused(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving_square(0, n=5), codec="mpeg4")
    data = path.read_bytes()
    at = (
        data.index(b"stts") + 12
    )  # behind version, flags and the number of entries: frames of the first entry
    assert int.from_bytes(data[at - 4 : at + 4], "big") == (1 << 32) + 5
    path.write_bytes(data[:at] + (10**6).to_bytes(4, "big") + data[at + 4 :])
    with pytest.raises(BadFrames, match="v.mp4 claims 1000000 frames of 48x48: too large"):
        len(open_frames(path))
    assert MAX_FRAMES < 10**6


def test_a_zero_byte_jpg_is_refused(tmp_path):
    (tmp_path / "000001.jpg").touch()
    with pytest.raises(BadFrames, match="000001.jpg is not a readable image"):
        open_frames(tmp_path).read([0])


def test_a_store_is_opened_where_it_is_read(tmp_path):
    """Connections do not survive a fork: none is kept."""
    write_frames(tmp_path / "v", moving_square(1, n=3))
    write_store(tmp_path / "v", tmp_path / "out" / "v")
    frames = open_frames(tmp_path / "out" / "v")
    first = frames.read([0])
    assert not any(isinstance(value, sqlite3.Connection) for value in vars(frames).values())
    np.testing.assert_array_equal(first, frames.read([0]))
