import av
import numpy as np
import pytest
from PIL import Image

from datasets.frames import BadFrames, open_frames
from datasets.shots import find_shots
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


def test_folder_and_lossless_video_give_the_same_pixels(tmp_path):
    frames = moving_square(0, n=20)
    folder = open_frames(write_frames(tmp_path / "folder", frames))
    video = open_frames(write_video(tmp_path / "video.mkv", frames))
    wanted = [7, 3, 3, 19, 0]
    assert len(folder) == len(video) == 20
    np.testing.assert_array_equal(folder.read(wanted), frames[wanted])
    np.testing.assert_array_equal(video.read(wanted), frames[wanted])
    assert video.fps == 25


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
    with pytest.raises(BadFrames, match="has 3 frames, 5 are needed"):
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
