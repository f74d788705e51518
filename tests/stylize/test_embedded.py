"""The embedded data set, made from a small video of the test's own."""

import shutil

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from static_dynamic.configs import row
from static_dynamic.datasets import list_clips
from static_dynamic.datasets.frames import open_frames
from static_dynamic.errors import UserError
from static_dynamic.files import json_sha256
from static_dynamic.stylize import build_generator, embedded
from static_dynamic.stylize.apply import make_style
from static_dynamic.stylize.checkpoints import save_generator
from static_dynamic.stylize.embedded import prepare, scale
from tests.conftest import moving_square
from tests.datasets.test_frames import write_video


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("SD_CACHE", str(tmp_path / "cache"))
    shots = [
        moving_square(seed, n=n) // 2 + 40 * k for k, (seed, n) in enumerate(((0, 30), (7, 12), (9, 41)))
    ]
    video = write_video(tmp_path / "cuts.mkv", np.concatenate(shots))
    monkeypatch.setattr(embedded, "fetch", lambda asset: video)
    changes = {
        "sources": [{"asset": "v", "crop": [4, 0, 40, 48]}],
        "frames": 20,
        "clips": 2,
        "short_side": 32,
    }
    return OmegaConf.merge(row("dataset", "embedded"), changes)


def test_long_shots_become_clips_in_every_style(config):
    root = prepare(config, row("style", "builtin"))
    clips = list_clips(OmegaConf.merge(config, {"root": str(root)}), (1, 2, 3, 4)).clips
    assert [c.id for c in clips] == ["v_00002", "v_00044"] and {c.length for c in clips} == {20}
    listing = list_clips(OmegaConf.merge(config, {"root": str(root)}), (1, 2, 3, 4))
    assert listing.frames_of("v_00002", 3).read([0]).shape == (1, 38, 32, 3)  # 48 x 40, short side to 32


def test_style_0_is_the_scaled_original(config):
    root = prepare(config, row("style", "builtin"))
    listing = list_clips(OmegaConf.merge(config, {"root": str(root)}), (0, 1))
    source = open_frames(embedded.fetch("v")).read([2])[0, :, 4:44]  # the crop; frame 2 is the first
    kept = listing.frames_of("v_00002", 0).read([0])[0]
    grey, expected = kept.mean(-1), scale(source, 32).mean(-1)  # JPEG halves the resolution of colour
    assert np.abs(grey - expected).mean() < 4


def test_it_is_made_once_and_goes_on_where_it_was_stopped(config):
    style = row("style", "builtin")
    root = prepare(config, style)
    files = {p: p.read_bytes() for p in sorted(root.rglob("*.jpg"))}
    stamp = {p: p.stat().st_mtime_ns for p in files}
    assert prepare(config, style) == root
    assert stamp == {p: p.stat().st_mtime_ns for p in files}
    (root / "complete.json").unlink()
    gone = root / "style_2" / "v_00044"
    for file in gone.iterdir():
        file.unlink()
    gone.rmdir()
    assert prepare(config, style) == root
    assert {p: p.read_bytes() for p in sorted(root.rglob("*.jpg"))} == files
    assert sum(stamp[p] != p.stat().st_mtime_ns for p in files) == 20
    assert not [p for p in root.rglob(".*")]


def test_two_processes_that_make_it_at_once_do_not_disturb_each_other(config, monkeypatch):
    alone = prepare(config, row("style", "builtin"))
    files = {p: p.read_bytes() for p in alone.rglob("*") if p.is_file()}
    shutil.rmtree(alone)
    monkeypatch.setattr(embedded, "in_threads", lambda work, jobs, *_: list(map(work, [*jobs, *jobs])))
    assert prepare(config, row("style", "builtin")) == alone
    assert files == {p: p.read_bytes() for p in alone.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("name", "key"), [("builtin", "88616d003bfe"), ("shipped", "6e221c1518c0")])
def test_data_sets_of_version_0_1_are_found(name, key):
    table = row("style", name)
    styles = OmegaConf.to_container(table.styles)
    trained = {k: make_style(v, torch.device("cpu")) for k, v in styles.items() if "checkpoint" in v}
    identity = embedded.identity_of(row("dataset", "embedded"), table, trained)
    assert json_sha256(identity)[:12] == key


def test_another_style_is_another_folder(config):
    style = row("style", "builtin")
    assert prepare(config, style) != prepare(config, OmegaConf.merge(style, {"styles": {2: {"ink": 9.0}}}))


def test_too_few_shots_are_said(config):
    config.clips = 5
    with pytest.raises(UserError, match="only 2 shots of dataset=.* are long enough: give clips=2 or less"):
        prepare(config, row("style", "builtin"))


def test_trained_styles_are_made_from_the_unstylized_frames(config, tmp_path):
    checkpoint = tmp_path / "g.safetensors"
    save_generator(build_generator((4, 8, 8, 8, 8, 6), 1), checkpoint)
    builtin = row("style", "builtin")
    style = OmegaConf.create(
        {"name": "mixed", "styles": {1: builtin.styles[1], 2: {"checkpoint": str(checkpoint)}}}
    )
    root = prepare(config, style)
    listing = list_clips(OmegaConf.merge(config, {"root": str(root)}), (0, 1, 2))
    assert {c.length for c in listing.clips} == {20} and len(listing.clips) == 2
    assert prepare(config, style) == root
    save_generator(build_generator((4, 8, 8, 8, 8, 6), 1), checkpoint)  # other weights
    assert prepare(config, style) != root
