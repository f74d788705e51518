"""Generation: names and places, any size, resume byte by byte, what cannot be read or written."""

import errno
import json
import shutil
import subprocess
import sys
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from static_dynamic import configs
from static_dynamic.datasets.frames import open_frames
from static_dynamic.errors import UserError
from static_dynamic.stylize import build_generator, generate, load_generator
from static_dynamic.stylize.apply import make_style
from static_dynamic.stylize.checkpoints import save_generator
from static_dynamic.stylize.generate import stylize as run
from tests.conftest import moving_square, write_frames
from tests.datasets.test_frames import write_video

CPU = torch.device("cpu")


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    save_generator(build_generator((4, 8, 8, 8, 8, 6), 1), tmp_path / "g.safetensors")
    return tmp_path / "g.safetensors"


@pytest.fixture
def videos(tmp_path):
    """A folder of frames, one of an odd size in a class folder, and a video file."""
    root = tmp_path / "videos"
    write_frames(root / "a", moving_square(0, n=11))
    write_frames(root / "class" / "b", moving_square(1, n=5)[:, :37, :45])
    write_video(root / "c.mkv", moving_square(2, n=7))
    return root


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def go(source, target, checkpoint, **options):
    style = make_style({"checkpoint": checkpoint}, CPU)
    return run(source, {target: style}, **{"naming": "%06d.png", "batch_size": 4, **options})


def test_every_video_becomes_a_folder(videos, checkpoint, tmp_path):
    out = tmp_path / "out" / "style_1"
    assert go(videos, out, checkpoint) == 0
    expected = {f"{v}/{i:06d}.png" for v, n in (("a", 11), ("class/b", 5), ("c", 7)) for i in range(1, n + 1)}
    assert set(files(out)) == expected | {".stylize.json"}
    net = load_generator(checkpoint)
    source = open_frames(videos / "class" / "b").read([2])[0]
    whole = open_frames(out / "class" / "b").read([2])[0]
    assert whole.shape == source.shape == (37, 45, 3)
    padded = np.pad(source, ((0, 3), (0, 3), (0, 0)), mode="reflect")
    x = torch.from_numpy(padded.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        y = ((net(x).clamp(-1, 1) + 1) * 127.5).byte()[0].permute(1, 2, 0).numpy()[:37, :45]
    assert np.abs(y.astype(int) - whole).max() <= 1  # a batch may round otherwise


def test_names(videos, checkpoint, tmp_path):
    go(videos / "a", tmp_path / "one", checkpoint, naming="frame_%05d.jpg")
    assert sorted(files(tmp_path / "one"))[1] == "a/frame_00001.jpg"
    go(videos / "a", tmp_path / "two", checkpoint, naming="same", in_place=True)
    assert set(files(tmp_path / "two")) == {".stylize.json", *(f"{i:06d}.png" for i in range(1, 12))}
    go(videos / "a", tmp_path / "zero", checkpoint, naming="image_%05d.jpg", first=0)
    assert sorted(files(tmp_path / "zero"))[1::10] == ["a/image_00000.jpg", "a/image_00010.jpg"]
    with pytest.raises(UserError, match="naming=%d.gif"):
        go(videos, tmp_path / "three", checkpoint, naming="%d.gif")


def interrupt_after(monkeypatch, count, error):
    """Let writing fail after so many frames."""
    write, written = generate.write_image, []

    def failing(path, image):
        if len(written) >= count:
            raise error
        written.append(path)
        write(path, image)

    monkeypatch.setattr(generate, "write_image", failing)


@pytest.mark.parametrize("count", [0, 3, 6, 13, 18])
def test_a_stopped_run_goes_on_to_the_same_bytes(videos, checkpoint, tmp_path, monkeypatch, count):
    go(videos, tmp_path / "whole", checkpoint)
    with monkeypatch.context() as patch:
        interrupt_after(patch, count, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            go(videos, tmp_path / "parts", checkpoint)
    for folder in (tmp_path / "parts").glob(".*.partial"):
        (folder / ".000001.part-abcd_123.png").write_bytes(b"half")  # of a process that was killed
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").rglob("[!.]*/0*.png")}
    assert go(videos, tmp_path / "parts", checkpoint) == 0
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items() if ".partial" not in str(p))
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").rglob("*")}
    assert go(videos, tmp_path / "parts", checkpoint) == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").rglob("*")}


@pytest.mark.parametrize("in_place", [False, True])
def test_a_corrupt_frame_is_named_counted_and_left_out(videos, checkpoint, tmp_path, capsys, in_place):
    source = videos / "a" if in_place else videos
    (videos / "a" / "000006.png").write_bytes(b"no image")
    options = {"naming": "same", "in_place": in_place}
    for _ in range(2):  # a second run does not forget it
        assert go(source, tmp_path / "out", checkpoint, **options) == 1
        out = capsys.readouterr().out
        assert "left out: a frame 6 (1)" in out and "000006.png is not a readable image" in out
    folder = tmp_path / "out" if in_place else tmp_path / "out" / "a"
    names = {p.name for p in folder.glob("*.png")}
    assert names == {f"{i:06d}.png" for i in range(1, 12) if i != 6}
    assert json.loads((folder / "skipped.json").read_text())[0]["frame"] == 6
    assert in_place or (tmp_path / "out" / "c" / "000007.png").exists()


def test_a_video_that_breaks_off_keeps_what_it_has(videos, checkpoint, tmp_path, capsys):
    path = write_video(videos / "d.mp4", moving_square(3, n=40))
    path.write_bytes(path.read_bytes()[:-200])
    (videos / "e.avi").write_bytes(b"no video")
    assert go(videos, tmp_path / "out", checkpoint) == 1
    out = capsys.readouterr().out
    assert "left out: d frame" in out and "left out: e frame all (1)" in out
    assert not (tmp_path / "out" / "e").exists() and (tmp_path / "out" / "a").exists()


@pytest.mark.parametrize("count", [0, 5])
def test_a_full_disk_leaves_no_half_file(videos, checkpoint, tmp_path, monkeypatch, count):
    out, left = tmp_path / "out", [count]

    def write_bytes(self, data):
        left[0] -= 1
        with self.open("wb") as file:
            if left[0] < 0:
                file.write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device", str(self))
            return file.write(data)

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", write_bytes)
        with pytest.raises(UserError, match="No space left on device.*run the same command to resume"):
            go(videos, out, checkpoint)
    found = list(out.rglob("*.png"))
    assert len(found) <= count
    assert all(cv2.imread(str(p)) is not None for p in found)
    assert go(videos, out, checkpoint) == 0
    go(videos, tmp_path / "whole", checkpoint)
    assert files(out) == files(tmp_path / "whole")


def test_shards_share_the_videos(videos, checkpoint, tmp_path):
    go(videos, tmp_path / "whole", checkpoint)
    for shard in range(2):
        go(videos, tmp_path / "parts", checkpoint, shard=shard, num_shards=2)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    with pytest.raises(UserError, match="shard=2"):
        go(videos, tmp_path / "parts", checkpoint, shard=2, num_shards=2)


def test_guides_go_by_name(videos, tmp_path, capsys):
    save_generator(build_generator((4, 8, 8, 8, 8, 6), 1, 6), tmp_path / "guided.safetensors")
    guide = write_frames(tmp_path / "guide", moving_square(5, n=11))
    start = partial(go, videos / "a", tmp_path / "out", tmp_path / "guided.safetensors", in_place=True)
    with pytest.raises(UserError, match="needs 1 guide folders, but 0 were given"):
        start()
    (guide / "000003.png").unlink()
    assert start(guides=(guide,)) == 1
    assert "has no image of frame 000003" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*.png"))) == 10


def test_another_style_in_the_same_folder_is_refused(videos, checkpoint, tmp_path):
    go(videos, tmp_path / "out", checkpoint)
    with pytest.raises(UserError, match="made with other options or weights"):
        go(videos, tmp_path / "out", checkpoint, naming="%06d.jpg")


def test_renderings_are_styles_too(videos, tmp_path):
    row = dict(configs.row("style", "builtin").styles[2])
    assert run(videos, {tmp_path / "out": make_style(row, CPU)}, naming="%06d.png") == 0
    assert len(list((tmp_path / "out" / "a").iterdir())) == 11


@pytest.mark.parametrize("bad", [False, True])
def test_every_command_runs_and_its_status_tells(videos, checkpoint, tmp_path, bad):
    if bad:
        (videos / "a" / "000006.png").write_bytes(b"no image")
    original = ["--checkpoint", checkpoint, "--data_root", videos, "--dir_input", "a", "--device", "cpu"]
    for command in (
        ["-m", "stylize.generate", *original, "--outdir", tmp_path / "one"],
        ["-m", "static_dynamic.stylize.generate", *original, "--outdir", tmp_path / "three"]
        + ["--precision", "float32"],
        ["main.py", "task=stylize", f"checkpoint={checkpoint}", f"task.input={videos}"]
        + [f"task.outdir={tmp_path / 'two'}", "task.naming=frame_%05d.jpg", "device=cpu"],
    ):
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
        assert done.returncode == bad, done.stderr
    assert len(list((tmp_path / "one").glob("*.png"))) == 11 - bad
    assert files(tmp_path / "one") == files(tmp_path / "three")
    assert (tmp_path / "two" / "style_1" / "a" / "frame_00001.jpg").exists()


def test_a_data_set_is_stylized_under_the_names_that_its_loader_reads(videos, checkpoint, tmp_path):
    """Only listed videos that its rules let through; the copies are listed as they come out."""
    root = tmp_path / "diving"
    shutil.copytree(videos, root / "style_0")
    shutil.copytree(videos / "a", root / "style_0" / "unlisted")
    lines = [{"vid_name": n, "label": 0, "start_frame": 0, "end_frame": e} for n, e in (("a", 11), ("b", 7))]
    (root / "Diving48_V2_test.json").write_text(json.dumps(lines))
    (root / "Diving48_vocab.json").write_text(json.dumps([["Back"]] * 48))
    command = ["main.py", "task=stylize", "dataset=Diving48", f"stylized_data_dir={root}", "device=cpu"]
    done = subprocess.run(
        [sys.executable, *command, f"checkpoint={checkpoint}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1 clips were left out, fewer than 8 frames: b" in done.stderr
    assert [path.name for path in (root / "style_1").iterdir() if path.is_dir()] == ["a"]
    assert {path.name for path in (root / "style_1" / "a").iterdir()} == {
        f"image_{i:05d}.jpg" for i in range(11)
    }


def test_a_data_set_without_a_folder_is_one_line(checkpoint):
    done = subprocess.run(
        [sys.executable, "main.py", "task=stylize", "dataset=ssv2", f"checkpoint={checkpoint}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "stylized_data_dir=ROOT" in done.stderr.splitlines()[-1]
