from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from static_dynamic.datasets import ViewBatches, list_clips, make_views, preprocess, to_inputs
from static_dynamic.datasets.loader import Decoded
from static_dynamic.datasets.shared_memory import REGION, Location, SharedFrames, release
from static_dynamic.datasets.workers import loader
from static_dynamic.errors import UserError
from static_dynamic.spacing import subsample_positions
from tests.paths import SHARED

CHECKS = SHARED / "parity" / "data_checks.pt"
SPEC = SimpleNamespace(size=40, crop=32, mean=(0.45,) * 3, std=(0.225,) * 3)


def dataset(root):
    return OmegaConf.create({"name": "folder", "layout": "folder", "root": str(root)})


def batches(root, batch_size=4, pathways=None, rows=None):
    clips = list_clips(dataset(root), (1, 2))
    views, _ = make_views(clips.clips, (1, 2), pathways or {"rgb": 4}, n_sample_frames=8, seed=3)
    return views, ViewBatches(clips, views, np.arange(len(views)) if rows is None else rows, batch_size)


def inputs_of(source, num_workers=0):
    return [to_inputs(batch, SPEC, torch.device("cpu")) for batch in loader(source, num_workers)]


def test_each_view_gets_its_frames_in_its_order(stylized):
    views, source = batches(stylized, batch_size=3, pathways={"slow": 2, "fast": 4})
    got = [torch.cat(pathway) for pathway in zip(*inputs_of(source), strict=True)]
    clips = source.clips
    for name, tensors in zip(("frames_slow", "frames_fast"), got, strict=True):
        assert len(tensors) == len(views)
        for view, tensor in zip(views.itertuples(), tensors, strict=True):
            # slow: decode this view alone, frame by frame
            frames = [clips.frames_of(view.video, view.style).read([int(i)])[0] for i in getattr(view, name)]
            alone = torch.stack([preprocess(torch.from_numpy(f[None]), SPEC)[:, 0] for f in frames], dim=1)
            torch.testing.assert_close(tensor, alone, rtol=0, atol=0)


def test_workers_and_batches_change_nothing(stylized):
    _, source = batches(stylized)
    _, other = batches(stylized, batch_size=5)
    one, two, three = (
        torch.cat([b[0] for b in inputs])
        for inputs in (inputs_of(source), inputs_of(source, 2), inputs_of(other))
    )
    assert torch.equal(one, two) and torch.equal(one, three)


def test_a_frame_of_a_view_pair_is_decoded_once(stylized, monkeypatch):
    views, source = batches(stylized, batch_size=8)
    decoded = []
    original = type(source.clips).frames_of

    def counting(self, video, style):
        frames = original(self, video, style)
        read = frames.read
        frames.read = lambda indices, allocate: decoded.extend(indices) or read(indices, allocate)
        return frames

    monkeypatch.setattr(type(source.clips), "frames_of", counting)
    inputs_of(source)
    forward = views[views["order"] == "forward"]
    assert len(decoded) == sum(len(set(f)) for f in forward["frames_rgb"])


def test_a_clip_that_cannot_be_read_comes_as_a_value(stylized):
    (stylized / "style_2" / "clip1" / "000001.png").write_bytes(b"x")
    _, source = batches(stylized)
    errors = [d for batch in loader(source, 1) for d in batch if d.frames is None]
    assert {(d.clip, d.style) for d in errors} <= {("clip1", 2)}


@pytest.mark.skipif(
    not CHECKS.exists(), reason="outputs of the original's transforms are not here (shared/parity)"
)
def test_the_originals_transforms():
    specs = {
        "slow_r50_8x8": SimpleNamespace(frames=8, size=256, crop=256, mean=(0.45,) * 3, std=(0.225,) * 3),
        "x3d_s": SimpleNamespace(frames=13, size=182, crop=160, mean=(0.45,) * 3, std=(0.225,) * 3),
        "mvit": SimpleNamespace(frames=16, size=256, crop=224, mean=(0.45,) * 3, std=(0.225,) * 3),
    }
    for case in torch.load(CHECKS, weights_only=True)["transforms"]:
        spec = specs[case["model"]]
        frames = case["input"].permute(1, 2, 3, 0).to(torch.uint8)  # C T H W -> T H W C
        ours = preprocess(frames[subsample_positions(len(frames), spec.frames)], spec)
        assert tuple(ours.shape) == tuple(case["output_shape"])
        torch.testing.assert_close(ours[:, ::3, ::5, ::5], case["output_sub"], rtol=1e-5, atol=1e-5)


def test_listing_names_what_it_leaves_out(stylized):
    (stylized / "style_1" / "alone").mkdir()
    for name in ("000012.png", "000011.png"):
        (stylized / "style_2" / "clip3" / name).unlink()
    with pytest.raises(UserError, match="'alone' .the first of 2.*on_error=skip"):
        list_clips(dataset(stylized), (1, 2))
    clips = list_clips(dataset(stylized), (1, 2), on_error="skip")
    assert [c.id for c in clips.clips] == ["clip0", "clip1", "clip2"]
    reasons = dict(clips.skipped)
    assert "style_2" in reasons["alone"] and "differ in number of frames" in reasons["clip3"]
    assert len(list_clips(dataset(stylized), (1, 2), 2, "skip").clips) == 2


def test_bad_roots(stylized, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list_clips(dataset(tmp_path / "nowhere"), (1, 2))
    with pytest.raises(UserError, match="has no style_7"):
        list_clips(dataset(stylized), (1, 7))
    with pytest.raises(UserError, match="stylized_data_dir"):
        list_clips(dataset(""), (1, 2))
    (tmp_path / "empty" / "style_1").mkdir(parents=True)
    (tmp_path / "empty" / "style_2").mkdir()
    with pytest.raises(UserError, match="no usable video"):
        list_clips(dataset(tmp_path / "empty"), (1, 2))


def test_shared_memory_is_used_again_only_when_it_was_given_back():
    shared = SharedFrames(workers=2)
    first, second = shared.allocate((2, 3, 4, 3), 1), shared.allocate((2, 3, 4, 3), 1)
    first[:], second[:] = 1, 2
    assert (first == 1).all() and first.data_ptr() != second.data_ptr()
    release(first)
    assert shared.allocate((2, 5, 4, 3), 1).data_ptr() not in (
        first.data_ptr(),
        second.data_ptr(),
    )  # too large
    assert shared.allocate((1, 3, 4, 3), 1).data_ptr() == first.data_ptr()
    assert (second == 2).all()
    # where there is no room left it is memory of its own, which nobody has to give back
    full = shared.allocate((REGION, 1, 1, 1), 1)
    assert full.untyped_storage().data_ptr() != shared.base
    release(full)
    shared.close()
    release(second)
    assert (second == 2).all()


def test_frames_are_sent_as_their_place():
    shared = SharedFrames(workers=1)
    frames = shared.allocate((2, 3, 4, 3), 0)
    frames[:] = torch.arange(72).view(2, 3, 4, 3)
    decoded = Decoded("clip", 1, np.arange(2), [], frames)
    packed = shared.pack(decoded)
    assert isinstance(packed.frames, Location) and torch.equal(shared.unpack(packed).frames, frames)
    for other in (
        Decoded("clip", 1, np.arange(2), [], None, "broken"),
        replace(decoded, frames=frames.clone()),
    ):
        assert shared.unpack(shared.pack(other)) is other


def test_frames_come_also_where_no_memory_is_promised(stylized, monkeypatch):
    def refuse(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("static_dynamic.datasets.shared_memory.mmap.mmap", refuse)
    _, source = batches(stylized)
    for batch, i in zip(loader(source, 2), range(len(source)), strict=True):
        for decoded, alone in zip(batch, source[i], strict=True):
            assert torch.equal(decoded.frames, alone.frames)


def test_frames_that_are_kept_are_not_overwritten(stylized):
    _, source = batches(stylized, batch_size=2)
    kept = [decoded for batch in loader(source, 2) for decoded in batch]
    for decoded, alone in zip(kept, (d for i in range(len(source)) for d in source[i]), strict=True):
        assert torch.equal(decoded.frames, alone.frames)


@pytest.mark.parametrize("size", [32, (32, 57), (40, 40)])
@pytest.mark.parametrize("crop", [24, (32, 40), (20, 30)])
def test_rectangular_inputs(size, crop):
    frames = np.random.default_rng(0).integers(0, 256, (3, 50, 90, 3)).astype(np.uint8)
    spec = SimpleNamespace(size=size, crop=crop, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    found = preprocess(torch.from_numpy(frames), spec)
    height, width = (size, size * 90 // 50) if isinstance(size, int) else size
    crop_height, crop_width = (crop, crop) if isinstance(crop, int) else crop
    slow = torch.empty(3, 3, crop_height, crop_width)
    for c in range(3):
        for t in range(3):
            plane = (torch.from_numpy(frames[t, ..., c]).float() / 255 - spec.mean[c]) / spec.std[c]
            plane = F.interpolate(plane[None, None], (height, width), mode="bilinear")[0, 0]
            top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
            slow[c, t] = plane[top : top + crop_height, left : left + crop_width]
    torch.testing.assert_close(found, slow)


def test_frames_smaller_than_the_crop_are_refused():
    spec = SimpleNamespace(size=(32, 30), crop=(20, 40), mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(UserError, match="32x30 .height, width. are smaller than model.input.crop=20x40"):
        preprocess(torch.zeros(1, 50, 90, 3, dtype=torch.uint8), spec)
