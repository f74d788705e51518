"""The scripts that prepare and check data sets, as a user calls them."""

import json
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from static_dynamic.datasets import list_clips
from static_dynamic.datasets.frames import open_frames
from static_dynamic.datasets.rates import resample
from tests.conftest import moving_square, write_frames
from tests.datasets.test_annotations import row_of
from tests.datasets.test_frames import write_video
from tests.paths import MISC


@pytest.mark.parametrize("way", ["by path", "through a link", "as a module"])
def test_a_script_finds_the_package_from_any_folder(way, tmp_path):
    (tmp_path / "link").symlink_to(MISC)
    command = {
        "by path": [MISC / "mean_var_analysis_4factors.py"],
        "through a link": [tmp_path / "link" / "mean_var_analysis_4factors.py"],
        "as a module": ["-m", "static_dynamic.misc.mean_var_analysis_4factors"],
    }[way]
    folder = MISC.parent if way == "as a module" else tmp_path
    done = subprocess.run([sys.executable, *command, "--help"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and "each file has four factors" in done.stdout, done.stderr


def test_frames_are_extracted_at_a_frame_rate(call, tmp_path):
    frames = moving_square(0, n=50)
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "abc.mkv", frames)  # 25 frames per second
    arguments = (tmp_path / "in", tmp_path / "out", "--fps", 10, "--names", "f_%03d.png", "--first", 0)
    assert call("prepare_frames.py", *arguments)[0] == 0
    out = open_frames(tmp_path / "out" / "abc")
    assert out.names[:2] == ["f_000.png", "f_001.png"] and len(out) == 20
    expected = frames[[int(k * 2.5) for k in range(20)]]
    np.testing.assert_array_equal(out.read(range(20)), expected)
    arguments = (tmp_path / "in", tmp_path / "a", "--dataset", "StylizedActivityNet", "--prefix", "v_")
    assert call("prepare_frames.py", *arguments)[0] == 0
    assert (
        len(list((tmp_path / "a" / "v_abc").iterdir())) == 10 and (tmp_path / "a/v_abc/000001.jpg").exists()
    )
    (tmp_path / "in" / "bad.mp4").write_bytes(b"x")
    status, out, _ = call("prepare_frames.py", *arguments)
    assert status == 1 and "bad.mp4 is not a readable video" in out and "1 of 2 videos" in out
    assert call("prepare_frames.py", tmp_path / "in", tmp_path / "b", "--names", "frame.jpg")[0] == 2
    assert call("prepare_frames.py", tmp_path / "nowhere", tmp_path / "b")[0] == 2


@pytest.mark.parametrize(("fps", "to"), [(25, 5), (30, 12), (29.97, 5), (5, 25), (12, 12)])
def test_resampling_shows_the_frame_of_each_moment(fps, to):
    for count in (1, 7, 60, 301):
        shown = resample(count, fps, to)
        assert len(shown) == max(1, int(count * to / fps)) and shown.max() < count
        assert all(i / fps <= k / to + 1e-9 < (i + 1) / fps + 1e-6 for k, i in enumerate(shown))


def test_subsets_are_seeded_and_keep_order(call, tmp_path, shared_data):
    source = shared_data / "annotations/ssv2/validation.json"
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        call("prepare_subset.py", source, tmp_path / f"{name}.json", "--number", 5000, "--seed", seed)
    a, b, c = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "abc")
    whole = json.loads(source.read_text())
    place = {line["id"]: i for i, line in enumerate(whole)}
    assert len(a) == 5000 and a == b and a != c
    assert [place[line["id"]] for line in a] == sorted(place[line["id"]] for line in a)
    assert all(line == whole[place[line["id"]]] for line in a)
    source = shared_data / "annotations/activitynet/anet_anno_action.json"
    assert call("prepare_subset.py", source, tmp_path / "d.json", "--number", 7)[0] == 0
    assert len(json.loads((tmp_path / "d.json").read_text())) == 7


def test_kinetics_subsets_by_class(call, tmp_path):
    lines = ["label,youtube_id,time_start,time_end", "yoga,a,1,11", 'busking,"b",2,12', "yawning,c,3,13"]
    (tmp_path / "val.csv").write_text("\n".join(lines) + "\n")
    arguments = (tmp_path / "val.csv", tmp_path / "out.csv", "--classes")
    status, out, _ = call("prepare_subset.py", *arguments, "static")
    assert status == 0 and "2 of 3 clips" in out
    assert (tmp_path / "out.csv").read_text().splitlines() == [lines[0], lines[1], lines[3]]
    status, _, err = call("prepare_subset.py", *arguments, "statc")
    assert status == 2 and err.strip().endswith("nearest known: static")


@pytest.fixture
def sound(tmp_path):
    """Two videos in two styles with nothing wrong."""
    for style in (1, 2):
        for name in ("a", "b"):
            write_frames(tmp_path / "data" / f"style_{style}" / name, moving_square(3, n=6))
    return tmp_path / "data"


def test_a_sound_data_set_passes(call, sound):
    status, out, err = call("check_dataset.py", sound)
    assert status == 0 and "2 videos in 2 styles, 24 frames, 0 faults" in out, err
    assert call("check_dataset.py", sound, "--styles", "1,3")[0] == 2
    assert call("check_dataset.py", sound / "nowhere")[0] == 2


def test_every_fault_is_listed(call, sound):
    shutil.rmtree(sound / "style_2" / "a")
    (sound / "style_1" / "b" / "000003.png").write_bytes(b"")
    (sound / "style_2" / "b" / "000004.png").unlink()
    write_frames(sound / "style_1" / "big", moving_square(1, n=3, side=200))
    write_frames(sound / "style_2" / "big", moving_square(1, n=3, side=100))
    write_frames(sound / "style_1" / "mixed", moving_square(1, n=3))
    Image.new("RGB", (9, 9)).save(sound / "style_1" / "mixed" / "000002.png")
    for name, rate in (("slow", 12), ("fast1", 30), ("fast2", 30)):
        for style in (1, 2):
            with av.open(str(sound / f"style_{style}" / f"{name}.mkv"), "w") as container:
                stream = container.add_stream("ffv1", rate=rate)
                stream.width = stream.height = 48
                stream.pix_fmt = "bgr0"
                for frame in moving_square(2, n=4):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                container.mux(stream.encode())
    data = (sound / "style_2" / "slow.mkv").read_bytes()
    (sound / "style_2" / "slow.mkv").write_bytes(data[: len(data) // 2])
    status, out, _ = call("check_dataset.py", sound)
    assert status == 1
    for fault in (
        "a: missing in style_2",
        "b/000003.png is not a readable image",
        "b: frame 4 of 6 is missing",
        "b: its styles differ in their number of frames",
        "big: its styles differ in the size of their frames",
        "big: 200x200, most have a short side of 48",
        "mixed holds frames of different sizes",
        "slow: 12 frames per second, most have 30",
        "slow: its styles differ in their number of frames (style_1 4, style_2 1)",
    ):
        assert fault in out, (fault, out)


def test_a_stylized_data_set_as_frame_stores(call, sound):
    stores = sound.parent / "stores"
    for style in (1, 2):
        assert call("make_frames_db.py", sound / f"style_{style}", stores / f"style_{style}")[0] == 0
    images, packed = (list_clips(row_of("folder", root), (1, 2)) for root in (sound, stores))
    assert images.clips == packed.clips
    for video in ("a", "b"):
        pixels = [clips.frames_of(video, 2).read(range(6)) for clips in (images, packed)]
        np.testing.assert_array_equal(*pixels)
    status, out, _ = call("check_dataset.py", stores)
    assert status == 0 and "0 faults" in out
    status, _, err = call("make_frames_db.py", sound / "style_1" / "a", stores)
    assert status == 2 and "holds no videos: give a folder of" in err


def test_examples_stand_under_the_ids_of_real_lines(call, shared_data, tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("yoga.mp4", "archery.avi"):
        shutil.copy(shared_data / "clips" / name, tmp_path / "videos")
    arguments = (tmp_path / "videos", shared_data / "annotations", tmp_path / "out", "--short_side", 32)
    status, out, err = call("prepare_examples.py", *arguments, "--frames", 30)
    assert status == 0, err
    for name in ("StylizedActivityNet", "ssv2", "Diving48"):
        assert f"--stylized_data_dir {tmp_path / 'out' / name} --dataset {name}" in out
        row = row_of(name, tmp_path / "out" / name)
        clips = list_clips(row, (1, 2, 3, 4))
        assert len(clips.clips) == 2 and not clips.skipped
        for clip in clips.clips:
            frames = clips.frames_of(clip.video, 1)
            assert frames.names[0] == row.frames.pattern % row.frames.first
            assert frames.read([clip.first + clip.length - 1]).shape[0] == 1
    status, _, err = call("prepare_examples.py", tmp_path / "videos", tmp_path / "videos", tmp_path / "other")
    assert status == 2 and "needs" in err.splitlines()[-1]
