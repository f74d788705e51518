"""Resumed runs: whatever changed since a run began is named, and rows of both are never mixed."""

import importlib
import shutil
import sys

import numpy as np
import pytest
import torch

import main
from static_dynamic.analysis.run import resume
from static_dynamic.analysis.run.shards import merge_shards
from static_dynamic.analysis.run.store import DONE, TO_DO, Store
from tests.analysis.run.test_extraction import contents
from tests.conftest import moving_square, write_frames

CODE = """import torch
from torch import nn

def build():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv3d(3, 4, 3), Scaled(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2))

class Scaled(nn.Module):
    def forward(self, x):
        return x * {scale}
"""
CLIPS = 8


def write_clip(root, style, k):
    frames = moving_square(k, n=8)
    write_frames(root / f"style_{style}" / f"clip{k}", frames if style == 1 else 255 - frames)


@pytest.fixture
def begun(tmp_path, monkeypatch, in_process):
    """A half finished run: its data, its folder, a function that resumes it, and the bytes of a whole run."""
    root, package = tmp_path / "data", tmp_path / "code"
    for style in (1, 2):
        for k in range(CLIPS):
            write_clip(root, style, k)
    package.mkdir()
    (package / "resumed_net.py").write_text(CODE.format(scale=1))
    monkeypatch.syspath_prepend(package)
    monkeypatch.delitem(sys.modules, "resumed_net", raising=False)
    net = importlib.import_module("resumed_net").build()
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    command = [
        *("model=custom", "model.target=resumed_net.build", f"checkpoint={tmp_path / 'weights.pt'}"),
        *("model.init=checkpoint", "model.input.size=32", "model.input.crop=32", "model.input.frames=8"),
        *("model.input.sampling_rate=1", "dataset=folder", f"stylized_data_dir={root}", "styles='1,2'"),
        *("num_workers=0", "batch_size=2", "n_boot=20", "n_permutations=5", f"run_dir={tmp_path / 'run'}"),
    ]

    def again(*options):
        return in_process(main, *command, *options)

    status, _, err = again()
    assert status == 0, err
    whole = contents(tmp_path / "run")
    leave_half(tmp_path / "run")
    return root, tmp_path / "run", again, whole


def leave_half(folder):
    """Make a finished run one that was stopped in the middle; its tables of results are gone."""
    for file in [
        *folder.glob("*.csv"),
        *folder.glob("*.html"),
        folder / "units.parquet",
        folder / "SHA256SUMS",
    ]:
        file.unlink()
    store = Store(folder, "r+")
    half = len(store.status) // 2
    store.status[half:] = TO_DO
    for name in store.names:
        store.activations(name)[half:] = np.nan
    store.status.flush()


def refuse(again, folder, *options):
    """Resume, and return the message of the refusal; the rows on disk stay as they are."""
    before = {name: data for name, data in contents(folder).items() if name.endswith(".npy")}
    status, _, err = again(*options)
    assert status == 2, err
    after = contents(folder)
    assert all(after[name] == data for name, data in before.items())
    return err


def test_an_unchanged_run_ends_with_the_same_bytes(begun):
    _, folder, again, whole = begun
    status, _, err = again()
    assert status == 0, err
    found = contents(folder)
    different = [name for name in whole if found.get(name) != whole[name] and name != "timing.json"]
    assert different in ([], ["SHA256SUMS"])


def test_changed_pixels_of_all_clips(begun):
    root, folder, again, _ = begun
    other = next((root / "style_1" / "clip5").glob("*.png")).read_bytes()
    for file in root.rglob("*.png"):  # overwritten in place: neither names nor folders change
        file.write_bytes(other)
    err = refuse(again, folder)
    assert "the pixels of clip clip0, style 1 changed since the run" in err


def test_changed_pixels_of_one_clip_in_the_middle(begun):
    root, folder, again, _ = begun
    shutil.rmtree(root / "style_2" / "clip2")
    shutil.copytree(root / "style_2" / "clip1", root / "style_2" / "clip2")
    assert "the pixels of clip clip2, style 2 changed since the run" in refuse(again, folder)


def test_a_copied_data_set_goes_on(begun):
    root, folder, again, whole = begun
    shutil.rmtree(root / "style_2" / "clip2")
    write_clip(root, 2, 2)
    status, _, err = again()
    assert status == 0 and "have another size or time than when the run began" in err
    assert contents(folder)["activations/0.npy"] == whole["activations/0.npy"]
    leave_half(folder)
    assert "another size or time" not in again()[2]  # the new times are on disk


def test_a_clip_that_is_gone(begun):
    root, folder, again, _ = begun
    shutil.rmtree(root / "style_2" / "clip0")
    (root / "style_2" / "clip0").mkdir()
    (root / "style_2" / "clip0" / "000000.png").write_bytes(b"no picture")
    assert "clip0" in refuse(again, folder)


def test_changed_code_of_the_network(begun, tmp_path, monkeypatch):
    _, folder, again, _ = begun
    (tmp_path / "code" / "resumed_net.py").write_text(CODE.format(scale=1.5))
    monkeypatch.delitem(sys.modules, "resumed_net")
    importlib.invalidate_caches()
    shutil.rmtree(tmp_path / "code" / "__pycache__", ignore_errors=True)
    err = refuse(again, folder)
    assert "has other activations at" in err and "the code of the network changed (resumed_net)" in err


def test_changed_weights(begun, tmp_path):
    _, folder, again, _ = begun
    weights = torch.load(tmp_path / "weights.pt")
    torch.save({name: values + 0.1 for name, values in weights.items()}, tmp_path / "weights.pt")
    assert "holds a run with other options (weights_sha256: " in refuse(again, folder)


def test_changed_options(begun):
    _, folder, again, _ = begun
    assert "holds a run with other options (seed: 1 there, 2 now)" in refuse(again, folder, "seed=2")


def test_changed_versions(begun, monkeypatch):
    _, folder, again, whole = begun
    now = resume.versions()
    monkeypatch.setattr(resume, "versions", lambda: now | {"torch": "9.9"})
    read = resume.read_padded

    def rounded(*arguments):
        return {stage: values * np.float32(1 + 1e-6) for stage, values in read(*arguments).items()}

    with monkeypatch.context() as patch:
        patch.setattr(resume, "read_padded", rounded)
        assert f"torch: {now['torch']} there, 9.9 now" in refuse(again, folder)
    status, _, err = again()  # other versions that compute the same bits
    assert status == 0, err
    assert contents(folder)["activations/0.npy"] == whole["activations/0.npy"]


def test_rounding_of_the_same_versions_goes_on(begun, monkeypatch):
    _, _, again, _ = begun
    read = resume.read_padded
    monkeypatch.setattr(
        resume, "read_padded", lambda *a: {k: v * np.float32(1 + 1e-6) for k, v in read(*a).items()}
    )
    assert again()[0] == 0


def test_shards_of_other_data_or_code_do_not_merge(begun, tmp_path, monkeypatch):
    root, _, again, _ = begun
    folders = [tmp_path / f"whole.{k}-of-2" for k in (0, 1)]
    for k, folder in enumerate(folders):
        assert again("shards=2", f"shard={k}", f"run_dir={tmp_path / 'whole'}")[0] == 0
        assert Store.open(folder).status.tolist() == [DONE] * 16
    merge_shards(tmp_path / "merged", folders)
    pixels = np.load(folders[1] / "pixels.npy", mmap_mode="r+")
    pixels[0] += 1
    pixels.flush()
    # rows 16 and 17 are two orders of one clip and style
    with pytest.raises(Exception, match="read different pixels of video clip4, style 1"):
        merge_shards(tmp_path / "again", folders)
    shutil.rmtree(folders[1])
    (tmp_path / "code" / "resumed_net.py").write_text(CODE.format(scale=1.5))
    monkeypatch.delitem(sys.modules, "resumed_net")
    assert again("shards=2", "shard=1", f"run_dir={tmp_path / 'whole'}")[0] == 0
    with pytest.raises(Exception, match="not belong to the same run .*network_code.resumed_net"):
        merge_shards(tmp_path / "again", folders)
