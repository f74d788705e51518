"""Checkpoints of mmaction2: a second implementation of its networks computes what the networks here compute.

The classes below have the module names, kernels, strides and paddings of mmaction2's SlowOnly, X3D and
TimeSformer.
"""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from static_dynamic.errors import UserError
from static_dynamic.models import build_model
from static_dynamic.models.mmaction2_names import from_mmaction2

GENERATOR = torch.Generator().manual_seed(0)


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm and an activation if wanted."""

    def __init__(self, inputs, outputs, kernel, stride=1, padding=0, groups=1, norm=True, act=F.relu):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        if norm:
            self.bn = nn.BatchNorm3d(outputs)
        self.norm, self.act = norm, act

    def forward(self, x):
        x = self.conv(x)
        x = self.bn(x) if self.norm else x
        return self.act(x) if self.act else x


class SlowOnlyBlock(nn.Module):
    def __init__(self, inputs, planes, stride, inflate):
        super().__init__()
        kernel, padding = ((3, 1, 1), (1, 0, 0)) if inflate else (1, 0)
        self.conv1 = ConvNorm(inputs, planes, kernel, 1, padding)
        self.conv2 = ConvNorm(planes, planes, (1, 3, 3), (1, stride, stride), (0, 1, 1))
        self.conv3 = ConvNorm(planes, 4 * planes, 1, act=None)
        self.downsample = None
        if stride != 1 or inputs != 4 * planes:
            self.downsample = ConvNorm(inputs, 4 * planes, 1, (1, stride, stride), act=None)

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.conv3(self.conv2(self.conv1(x))) + shortcut)


class SlowOnly(nn.Module):
    def __init__(self, stem_frames=1, inflate=("000", "0000", "111111", "111")):
        super().__init__()
        stem = ConvNorm(3, 64, (stem_frames, 7, 7), (1, 2, 2), (stem_frames // 2, 3, 3))
        self.backbone = nn.Module()
        self.backbone.conv1 = stem
        width = 64
        for i, depth in enumerate((3, 4, 6, 3)):
            layer = nn.Sequential()
            for b in range(depth):
                stride = 2 if i and not b else 1
                layer.append(SlowOnlyBlock(width, 64 * 2**i, stride, inflate[i][b] == "1"))
                width = 256 * 2**i
            self.backbone.add_module(f"layer{i + 1}", layer)
        self.cls_head = nn.Module()
        self.cls_head.fc_cls = nn.Linear(2048, 400)

    def forward(self, x):
        x = F.max_pool3d(self.backbone.conv1(x), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        stages = [x]
        for i in range(1, 5):
            stages.append(x := self.backbone.get_submodule(f"layer{i}")(x))
        logits = self.cls_head.fc_cls(F.adaptive_avg_pool3d(x, 1).flatten(1))
        return [stage.mean(dim=(2, 3, 4)) for stage in stages], logits


class Excite(nn.Module):
    def __init__(self, width):
        super().__init__()
        inner = max(8, int(width / 16 + 4) // 8 * 8)
        inner += 8 if inner < 0.9 * width / 16 else 0
        self.fc1, self.fc2 = nn.Conv3d(width, inner, 1), nn.Conv3d(inner, width, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool3d(x, 1)))))


class X3DBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, excite):
        super().__init__()
        inner = int(2.25 * outputs)
        self.conv1 = ConvNorm(inputs, inner, 1)
        self.conv2 = ConvNorm(inner, inner, 3, (1, stride, stride), 1, groups=inner, act=None)
        self.conv3 = ConvNorm(inner, outputs, 1, act=None)
        self.se_module = Excite(inner) if excite else None
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = ConvNorm(inputs, outputs, 1, (1, stride, stride), act=None)

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        y = y if self.se_module is None else self.se_module(y)
        y = self.conv3(y * torch.sigmoid(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class X3D(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv1_s = ConvNorm(3, 24, (1, 3, 3), (1, 2, 2), (0, 1, 1), norm=False, act=None)
        self.backbone.conv1_t = ConvNorm(24, 24, (5, 1, 1), 1, (2, 0, 0), groups=24)
        width = 24
        for i, depth in enumerate((3, 5, 11, 7)):
            layer = nn.Sequential()
            for b in range(depth):
                layer.append(X3DBlock(width, 24 * 2**i, 1 if b else 2, b % 2 == 0))
                width = 24 * 2**i
            self.backbone.add_module(f"layer{i + 1}", layer)
        self.backbone.conv5 = ConvNorm(192, 432, 1)
        self.cls_head = nn.Module()
        self.cls_head.fc1, self.cls_head.fc2 = nn.Linear(432, 2048, bias=False), nn.Linear(2048, 400)

    def forward(self, x):
        stages = [x := self.backbone.conv1_t(self.backbone.conv1_s(x))]
        for i in range(1, 5):
            stages.append(x := self.backbone.get_submodule(f"layer{i}")(x))
        pooled = F.adaptive_avg_pool3d(self.backbone.conv5(x), 1).flatten(1)
        logits = self.cls_head.fc2(F.relu(self.cls_head.fc1(pooled)))
        return [stage.mean(dim=(2, 3, 4)) for stage in stages], logits


SMALL = {"frames": 2, "crop": 32, "patch": 16, "width": 24, "depth": 2, "heads": 3}


class Attention(nn.Module):
    def __init__(self, temporal):
        super().__init__()
        width = SMALL["width"]
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.MultiheadAttention(width, SMALL["heads"], batch_first=True)
        if temporal:
            self.temporal_fc = nn.Linear(width, width)

    def forward(self, x):
        x = self.norm(x)
        return self.attn(x, x, x)[0]


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        width = SMALL["width"]
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.0)),
            nn.Linear(4 * width, width),
            nn.Dropout(0.0),
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attentions = nn.ModuleList([Attention(True), Attention(False)])
        self.ffns = nn.ModuleList([FeedForward()])

    def forward(self, x):
        """x: (1, 1 + p*t, C), with the times of one position in a row."""
        t, (time, space), ffn = SMALL["frames"], self.attentions, self.ffns[0]
        cls, rows = x[:, :1], x[:, 1:]
        for p in range(rows.shape[1] // t):  # each position on its own
            part = rows[:, p * t : (p + 1) * t]
            rows = rows.clone()
            rows[:, p * t : (p + 1) * t] = part + time.temporal_fc(time(part))
        new, copies = rows.clone(), []
        for frame in range(t):  # each frame on its own, with a copy of the class token
            result = space(torch.cat([cls, rows[:, frame::t]], dim=1))
            copies.append(result[:, :1])
            new[:, frame::t] = rows[:, frame::t] + result[:, 1:]
        x = torch.cat([cls + sum(copies) / t, new], dim=1)
        return x + ffn.layers(ffn.norm(x))


class TimeSformer(nn.Module):
    def __init__(self):
        super().__init__()
        width, patch, places = SMALL["width"], SMALL["patch"], (SMALL["crop"] // SMALL["patch"]) ** 2
        self.backbone = nn.Module()
        self.backbone.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.backbone.pos_embed = nn.Parameter(torch.zeros(1, places + 1, width))
        self.backbone.time_embed = nn.Parameter(torch.zeros(1, SMALL["frames"], width))
        self.backbone.patch_embed = nn.Module()
        self.backbone.patch_embed.projection = nn.Conv2d(3, width, patch, patch)
        self.backbone.norm = nn.LayerNorm(width, eps=1e-6)
        self.backbone.transformer_layers = nn.Module()
        self.backbone.transformer_layers.layers = nn.ModuleList(Layer() for _ in range(SMALL["depth"]))
        self.cls_head = nn.Module()
        self.cls_head.fc_cls = nn.Linear(width, 400)

    def forward(self, x):
        net, rows = self.backbone, []
        for frame in range(SMALL["frames"]):
            tokens = net.patch_embed.projection(x[:, :, frame]).flatten(2).transpose(1, 2)
            rows.append(tokens + net.pos_embed[:, 1:] + net.time_embed[:, frame])
        tokens = torch.stack(rows, dim=2).flatten(1, 2)  # (1, p*t, C)
        x, stages = torch.cat([net.cls_token + net.pos_embed[:, :1], tokens], dim=1), []
        for layer in net.transformer_layers.layers:
            stages.append((x := layer(x)).mean(dim=1))
        return stages, self.cls_head.fc_cls(net.norm(x)[:, 0])


CASES = {
    "slow_r50_8x8": (SlowOnly, {"pool": None}, (8, 64, 64)),
    "x3d_m": (X3D, {}, (4, 64, 64)),
    "timesformer": (TimeSformer, SMALL, (2, 32, 32)),
}


def saved(path, module):
    """Write a checkpoint as mmengine does, with random weights and statistics."""
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=GENERATOR) * (0.3 / value[0].numel() ** 0.5))
        if key.endswith(("bn.weight", "norm.weight", "running_var")):
            value.copy_(0.5 + torch.rand(value.shape, generator=GENERATOR))
    torch.save({"meta": {"epoch": 3}, "state_dict": module.state_dict(), "optimizer": {}}, path)
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("name", CASES)
def test_equal_networks_give_equal_outputs(tmp_path, name, caplog):
    kind, options, size = CASES[name]
    theirs = saved(tmp_path / "w.pth", kind())
    ours = build_model(name, checkpoint=tmp_path / "w.pth", **options)
    clip = torch.randn(1, 3, *size, generator=GENERATOR)
    stages, logits = theirs(clip)
    rows = ours.read(clip, [*ours.stages, "logits"])
    for found, expected in zip(rows.values(), [*stages, logits], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert expected.std() > 1e-3  # the comparison is not one of zeros
    # the warning names the preprocessing of mmaction2, which is the same only for X3D
    assert ("give model.input.mean=" in caplog.text) == (kind is not X3D)


def test_the_classifier_of_slowonly_averages_the_whole_map(tmp_path, caplog):
    saved(tmp_path / "w.pth", SlowOnly())
    build_model("slow_r50_8x8", checkpoint=tmp_path / "w.pth")
    assert "model.args.pool=null" in caplog.text


@pytest.mark.parametrize("name", ["i3d", "c2d", "slow_r50_8x8", "slowfast_r50_8x8", "mvit"])
def test_networks_with_other_layers_are_refused(tmp_path, name):
    # I3D of mmaction2 has strides of 2 in time, which are not in its state dict
    state = saved(tmp_path / "w.pth", SlowOnly(5, ("111", "1010", "101010", "010"))).state_dict()
    if name == "i3d":
        shapes = {key: value.shape for key, value in from_mmaction2(state, "slowonly").items()}
        assert shapes == {key: value.shape for key, value in build_model("i3d").state_dict().items()}
    if name == "slowfast_r50_8x8":
        state = {key.replace("backbone.", "backbone.slow_path."): value for key, value in state.items()}
        torch.save({"state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="does not fit .* keys are those of mmaction2, of which SlowOnly-50"):
        build_model(name, checkpoint=tmp_path / "w.pth")


def test_a_checkpoint_without_head_and_an_averaged_one(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    state = saved(tmp_path / "w.pth", X3D()).state_dict()
    body = {key: value for key, value in state.items() if not key.startswith("cls_head.")}
    torch.save({"state_dict": body}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="has no classifier"):
        build_model("x3d_m", checkpoint=tmp_path / "w.pth")
    net = build_model("x3d_m", checkpoint=tmp_path / "w.pth", drop_head=True)
    weight = net.state_dict()["s3.pathway0_res1.branch2.b.weight"]
    assert torch.equal(weight, state["backbone.layer2.1.conv2.conv.weight"])
    average = {"steps": torch.tensor(3), **{f"module.{key}": value for key, value in state.items()}}
    torch.save({"state_dict": state, "ema_state_dict": average}, tmp_path / "w.pth")
    build_model("x3d_m", checkpoint=tmp_path / "w.pth")
    assert "which checkpoint_key=ema_state_dict.module chooses" in caplog.text
    build_model("x3d_m", checkpoint=tmp_path / "w.pth", checkpoint_key="ema_state_dict")
