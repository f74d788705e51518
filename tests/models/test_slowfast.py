"""The SlowFast family against slow oracles, published sizes and costs, and the layouts of published files."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from static_dynamic.errors import UserError
from static_dynamic.models import build_model
from static_dynamic.models.checkpoints import load_state
from static_dynamic.models.slowfast import NonLocal
from tests.keyed import probabilities

# row -> parameters in millions and, where published, the cost of a 256-pixel clip in 1e9 multiply-adds
SIZES = {
    "c2d": (24.33, None),
    "i3d": (28.04, None),
    "i3d_nln": (35.40, None),
    "slow_r50_8x8": (32.45, 54.5),
    "slow_r50_4x16": (32.45, 27.3),
    "slow_ssv2_r50_8x8": (31.99, 54.5),
    "fast": (0.617, None),
    "slowfast_r50_8x8": (34.57, 65.7),
    "slowfast_r50_4x16": (34.48, 36.1),
    "slowfast_ssv2_r50_8x8": (34.05, 65.7),
    "slowfast_ssv2_16x8": (34.05, None),
    "slowfast_ssv2_16x8_multigrid": (34.05, None),
}
TINY = {
    "temporal_kernels": {"slow": [[1], [1], [1], [3], [3]], "fast": [[5], [3], [3], [3], [3]]},
    "width": 16,
    "beta": 4,
}


def video(net, side, batch=1):
    return torch.randn(
        batch, 3, net.input_spec.frames, side, side, generator=torch.Generator().manual_seed(3)
    )


def stirred(net):
    """Give norms statistics of their own: fresh ones are all alike and would hide a swap."""
    generator = torch.Generator().manual_seed(5)
    state = {
        key: torch.rand(value.shape, generator=generator) + 0.5 if value.dim() == 1 else value
        for key, value in net.state_dict().items()
    }
    net.load_state_dict(state)
    return net


def blob_name(key):
    """Caffe2 name of one of our keys, written without looking at the table of ``models/caffe2_names.py``."""
    *path, leaf = key.split(".")
    if path == ["head", "projection"]:
        return f"pred_{leaf[0]}"
    if path[0].endswith("_fuse"):
        number = int(path[0][1])
        last = {1: "t_pool1", 2: "t_res2_2_branch2c_bn", 3: "t_res3_3_branch2c_bn", 4: "t_res4_5_branch2c_bn"}
        layer = f"{last[number]}_subsample"
    else:
        pathway, block = path[1].split("_")
        fast = "t_" if pathway == "pathway1" else ""
        number, index = path[0][1], block[-1]
        if block == "stem":
            layer = f"{fast}{'res_conv1' if path[2] == 'bn' else 'conv1'}"
        elif block.startswith("nonlocal"):
            layer = f"{fast}nonlocal_conv{number}_{index}" + (
                "" if path[2] == "bn" else f"_{path[2].removeprefix('conv_')}"
            )
        else:
            layer = f"{fast}res{number}_{index}_{''.join(path[2:])}".removesuffix("_bn")
    if path[-1] == "bn" or path[-1].endswith("_bn"):
        ends = {"weight": "bn_s", "bias": "bn_b", "running_mean": "bn_rm", "running_var": "bn_riv"}
        return f"{layer}_{ends[leaf]}"
    return f"{layer}_{leaf[0]}"


@pytest.mark.parametrize(
    "name, options", [("i3d_nln", {"width": 16}), ("fast", {}), ("slowfast_r50_4x16", TINY)]
)
def test_caffe2_round_trip(name, options, tmp_path):
    net = stirred(build_model(name, seed=1, **options))
    weights = {k: v.numpy() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    blobs = {blob_name(key): value for key, value in weights.items()}
    assert len(blobs) == len(weights)
    training = {f"{blob}_momentum": np.zeros_like(value) for blob, value in blobs.items()}
    training |= {"lr": np.float32(0.1), "model_iter": np.array([7])}
    path = tmp_path / "caffe2.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs | training}))
    other = build_model(name, checkpoint=path, seed=2, **options)
    inputs = net.prepare(video(net, 64))
    ours, theirs = (n.read(inputs, [*n.stages, "logits"]) for n in (other, net))
    assert all(torch.equal(ours[stage], theirs[stage]) for stage in theirs)


def test_caffe2_names_by_hand():
    net = build_model("slowfast_r50_4x16", **TINY)
    names = {
        "res4_3_branch2b_bn_riv": "s4.pathway0_res3.branch2.b_bn.running_var",
        "t_res5_0_branch1_w": "s5.pathway1_res0.branch1.weight",
        "t_res_conv1_bn_rm": "s1.pathway1_stem.bn.running_mean",
        "t_pool1_subsample_w": "s1_fuse.conv_f2s.weight",
        "t_pool1_subsample_bn_s": "s1_fuse.bn.weight",
        "t_res3_3_branch2c_bn_subsample_bn_b": "s3_fuse.bn.bias",
        "nonlocal_conv3_1_theta_w": "s3.pathway0_nonlocal1.conv_theta.weight",
        "nonlocal_conv4_5_bn_riv": "s4.pathway0_nonlocal5.bn.running_var",
        "pred_b": "head.projection.bias",
        "mystery_blob": "mystery_blob",
    }
    converted = net.convert({blob: np.full(2, i, np.float32) for i, blob in enumerate(names)})
    assert list(converted) == list(names.values())
    assert [int(value[0]) for value in converted.values()] == list(range(len(names)))
    with pytest.raises(UserError, match="mystery_blob"):
        load_state(net, {**net.state_dict(), "mystery_blob": torch.zeros(1)}, Path("x.pkl"))


def test_own_state_dict_is_not_converted():
    net = build_model("slowfast_r50_4x16", **TINY)
    state = net.state_dict()
    assert net.convert(state) is state


@pytest.mark.parametrize("name", ["slow_ssv2_r50_8x8", "slowfast_ssv2_r50_8x8"])
def test_pytorchvideo_files_load_with_and_without_prefix(name):
    options = {"width": 16} if name.startswith("slow_") else TINY
    net = build_model(name, **options)
    state = net.state_dict()
    bare = {key.removeprefix("model."): value for key, value in state.items()}
    assert list(net.convert(state)) == list(net.convert(bare)) == list(state)


def test_pytorchvideo_and_pyslowfast_are_one_architecture():
    ours = stirred(build_model("slowfast_r50_8x8", **TINY))
    theirs = build_model("slowfast_ssv2_r50_8x8", num_classes=400, **TINY)
    # both list their tensors in the order of the computation
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    inputs = ours.prepare(video(ours, 64))
    a, b = ours.read(inputs, [*theirs.stages, "logits"]), theirs.read(inputs, [*theirs.stages, "logits"])
    assert all(torch.equal(a[stage], b[stage]) for stage in a)


def test_nonlocal_matches_a_loop_over_positions():
    torch.manual_seed(0)
    block = stirred(NonLocal(6)).eval().double()
    x = torch.randn(2, 6, 2, 4, 5, dtype=torch.float64)

    def linear(conv, vector):
        return conv.weight[:, :, 0, 0, 0] @ vector + conv.bias

    expected = torch.empty_like(x)
    for b in range(2):
        # windows of 1 x 2 x 2; the fifth column is left over
        corners = [(t, h, w) for t in range(2) for h in (0, 2) for w in (0, 2)]
        pooled = [x[b, :, t, h : h + 2, w : w + 2].amax(dim=(1, 2)) for t, h, w in corners]
        for t, h, w in np.ndindex(2, 4, 5):
            here = x[b, :, t, h, w]
            query = linear(block.conv_theta, here)
            weights = torch.stack([query @ linear(block.conv_phi, p) / 3**0.5 for p in pooled]).exp()
            seen = sum(
                weight * linear(block.conv_g, p)
                for weight, p in zip(weights / weights.sum(), pooled, strict=True)
            )
            out, bn = linear(block.conv_out, seen), block.bn
            out = (out - bn.running_mean) / (bn.running_var + 1e-5).sqrt() * bn.weight + bn.bias
            expected[b, :, t, h, w] = here + out
    with torch.no_grad():
        assert torch.allclose(block(x), expected, rtol=1e-12, atol=1e-12)


def test_stage_names():
    net = build_model("slowfast_r50_8x8", **TINY)
    assert net.stage_name(3, {"path": "cat", "fuse": True}) == "stage3/fuse1/cat"
    assert net.stage_name("2", {"path": "slow", "fuse": False}) == "stage2/fuse0/slow"
    assert net.stage_name(None) == "stage5/fuse1/fast"
    assert net.stage_name("stage4/fuse0/cat", {"path": "slow"}) == "stage4/fuse0/cat"
    assert net.shown_stages({"path": "cat", "fuse": False}) == [f"stage{k}/fuse0/cat" for k in range(1, 6)]
    assert list(net.stages) == [
        f"stage{k}/fuse{fuse}/{path}"
        for k in range(1, 6)
        for fuse in (0, 1)
        for path in ("cat", "slow", "fast")
    ]
    for wrong in ((6,), (3, {"path": "both"})):
        with pytest.raises(UserError, match="no such stage"):
            net.stage_name(*wrong)
    fused_only = build_model("slowfast_ssv2_r50_8x8", **TINY)
    assert fused_only.stage_name(1, {"path": "slow", "fuse": False}) == "stage1/fuse1/slow"
    assert build_model("slow_r50_8x8", width=8).stage_name(None) == "stage5"


def test_stages_of_two_pathways_agree_with_each_other():
    net = stirred(build_model("slowfast_r50_8x8", **TINY))
    rows = net.read(net.prepare(video(net, 64)))
    for number in range(1, 6):
        before, after = (
            {p: rows[f"stage{number}/fuse{f}/{p}"] for p in ("cat", "slow", "fast")} for f in (0, 1)
        )
        for reading in (before, after):
            assert torch.equal(reading["cat"], torch.cat([reading["slow"], reading["fast"]], dim=1))
        assert torch.equal(before["fast"], after["fast"])
        assert torch.equal(before["slow"], after["slow"][:, : before["slow"].shape[1]])


@pytest.mark.parametrize("name", [name for name in SIZES if name.startswith("slowfast")])
def test_prepare_takes_the_slow_frames_and_alters_nothing(name):
    net = build_model(name, **TINY)
    clip = video(net, 32)
    frames, before = clip.shape[2], clip.clone()
    slow, fast = inputs = net.prepare(clip)
    assert {"slow": slow.shape[2], "fast": fast.shape[2]} == net.input_spec.pathways
    steps = slow.shape[2] - 1
    for i in range(steps + 1):
        assert torch.equal(slow[:, :, i], clip[:, :, i * (frames - 1) // steps])
    kept = [slow.clone(), fast.clone()]
    net.read(inputs, [*net.stages, "logits"])
    assert inputs[0] is slow and inputs[1] is fast and len(inputs) == 2
    assert all(torch.equal(a, b) for a, b in zip(inputs, kept, strict=True)) and torch.equal(clip, before)


@pytest.mark.parametrize("side, cells", [(64, 1), (288, 3)])
def test_head_classifies_every_window(side, cells):
    net = build_model("slow_r50_4x16", width=8, num_classes=5)
    with torch.no_grad():
        clip = video(net, side)
        scores = net.logit_map(clip)
        assert scores.shape == (1, 1, cells, cells, 5)
        assert torch.allclose(net(clip), scores.mean(dim=(1, 2, 3)))
        assert torch.allclose(probabilities(net, clip), scores.softmax(-1).mean(dim=(1, 2, 3)))
        maps = clip
        for module in (net.s1, net.s2, net.s3, net.s4, net.s5):
            maps = module(maps)
        window = maps[0, :, :, -7:, -7:].mean(dim=(1, 2, 3))  # the last window
        assert torch.allclose(scores[0, 0, -1, -1], net.head.projection(window), atol=1e-6)


def test_multigrid_head_sees_the_whole_map():
    net = build_model("slowfast_ssv2_16x8_multigrid", **TINY)
    with torch.no_grad():
        assert net.logit_map(net.prepare(video(net, 256))).shape == (1, 1, 1, 1, 174)


@pytest.mark.parametrize("name", SIZES)
def test_published_size_and_cost(name):
    net = build_model(name).to("meta")
    millions, gflops = SIZES[name]
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, rel=3e-4)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(net.prepare(torch.empty(1, 3, net.input_spec.frames, 256, 256, device="meta")))
    if gflops:
        assert counter.get_total_flops() / 2e9 == pytest.approx(gflops, abs=0.06)
