"""Attention heads and neurons as units against plain hooks and attention written out; tokens; refusals."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from static_dynamic import configs
from static_dynamic.errors import UserError
from static_dynamic.models import build_from_row
from tests.models.toys import CNN, INPUT, clip, custom

SPEC = INPUT | {"size": 32}
BUILT_IN = {
    "timesformer": {"frames": 4, "crop": 32, "patch": 8, "width": 12, "depth": 2, "heads": 2},
    "mvit": {"frames": 4, "crop": 32, "width": 8, "depth": 3, "scale_at": [1, 2], "kv_stride": 4},
    "small_transformer": {"frames": 4, "crop": 32, "tubelet": [2, 8, 8], "width": 12, "depth": 2, "heads": 3},
}


def small(name, **options):
    row = configs.row("model", name)
    row.args.update(BUILT_IN[name])
    row.input.update(SPEC)
    row.num_classes = 5
    return build_from_row(row, **options)


def inputs_of(net, inputs):
    """The first input of every module, by plain hooks: path -> tensor."""
    seen = {}
    handles = [
        module.register_forward_pre_hook(lambda m, i, path=path: seen.update({path: i[0] if i else None}))
        for path, module in net.named_modules()
        if path
    ]
    with torch.inference_mode():
        net(inputs)
    for handle in handles:
        handle.remove()
    return seen


# kind of units -> stages of each network: name -> path of the layer that reads the units
LAYERS = {
    "heads": {
        "timesformer": {
            f"stage{k}/{part}": f"model.blocks.{k}.{part}.proj"
            for k in range(2)
            for part in ("temporal_attn", "attn")
        },
        "mvit": {f"stage{k}": f"blocks.{k}.attn.proj" for k in range(3)},
        "small_transformer": {f"stage{k + 1}": f"blocks.{k}.attention.proj" for k in range(2)},
    },
    "neurons": {
        "timesformer": {f"stage{k}": f"model.blocks.{k}.mlp.fc2" for k in range(2)},
        "mvit": {f"stage{k}": f"blocks.{k}.mlp.fc2" for k in range(3)},
        "small_transformer": {f"stage{k + 1}": f"blocks.{k}.mlp.2" for k in range(2)},
    },
}


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("units", LAYERS)
def test_built_in_transformers(units, name):
    net, layers = small(name, units=units), LAYERS[units][name]
    x = clip(net, batch=3)
    rows, inputs = net.read(x, [*net.stages, "logits"]), inputs_of(net, x)
    assert list(net.stages) == list(layers)
    classes = {"timesformer": 1, "mvit": 1, "small_transformer": 0}[name]
    for stage, path in layers.items():
        tokens = inputs[path][:, 0 if "temporal" in path else classes :]  # (3 * rows per clip, N, C)
        expected = torch.stack([part.flatten(0, 1).mean(dim=0) for part in tokens.chunk(3)])
        torch.testing.assert_close(rows[stage], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows["logits"], net(x), atol=0, rtol=0)
    if classes:
        first = small(name, units=units, tokens="class")
        rows = first.read(x)
        for stage, path in layers.items():
            if "temporal" in path:
                assert stage not in first.stages  # attention over time leaves out the class token
                continue
            expected = torch.stack([part[:, 0].mean(dim=0) for part in inputs[path].chunk(3)])
            torch.testing.assert_close(rows[stage], expected, atol=1e-5, rtol=1e-5)


def attend(x, weight, bias, heads):
    """Outputs of the heads for tokens x (N, C), one head and one query at a time: (N, C)."""
    width, size = x.shape[1], x.shape[1] // heads
    q, k, v = (F.linear(x, weight, bias)[:, part * width : (part + 1) * width] for part in range(3))
    rows = torch.empty_like(x)
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        for n in range(len(x)):
            scores = torch.stack([(q[n, own] * k[m, own]).sum() / size**0.5 for m in range(len(x))])
            weights = scores.exp() / scores.exp().sum()
            rows[n, own] = sum(weights[m] * v[m, own] for m in range(len(x)))
    return rows


def test_a_column_of_heads_is_one_dimension_of_one_head():
    net = small("small_transformer", units="heads")
    x = clip(net, batch=1)
    tokens = inputs_of(net, x)["blocks.1.attention"][0]
    qkv = net.blocks[1].attention.qkv
    expected = attend(tokens, qkv.weight, qkv.bias, heads=3).mean(dim=0)
    torch.testing.assert_close(net.read(x)["stage2"][0], expected, atol=1e-5, rtol=1e-5)
    assert (net.stages["stage2"].units, net.stages["stage2"].heads) == (12, 3)


class Encoder(nn.Module):
    """Patches, then PyTorch's own encoder layers, whose attention never calls its output projection."""

    def __init__(self, batch_first=True):
        super().__init__()
        self.batch_first = batch_first
        self.patches = nn.Conv3d(3, 8, (2, 8, 8), (2, 8, 8))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 20, batch_first=batch_first) for _ in range(2)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).mT
        x = x if self.batch_first else x.transpose(0, 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=1 if self.batch_first else 0))


class TokensFirstEncoder(Encoder):
    def __init__(self):
        super().__init__(batch_first=False)


@pytest.mark.parametrize("kind", [Encoder, TokensFirstEncoder])
def test_fused_attention(kind):
    net = custom(kind, units="heads")
    linear, fused = F.linear, torch.backends.mha.get_fastpath_enabled()
    x = clip(net)
    rows = net.read(x, [*net.stages, "logits"])
    assert F.linear is linear and torch.backends.mha.get_fastpath_enabled() == fused
    assert [(stage.units, stage.heads) for stage in net.stages.values()] == [(8, 2)] * 2
    tokens = net.net.patches(x).flatten(2).mT
    for block, stage in zip(net.net.blocks, net.stages, strict=True):
        own = block.self_attn
        for row, clip_tokens in zip(rows[stage], tokens, strict=True):
            expected = attend(clip_tokens, own.in_proj_weight, own.in_proj_bias, heads=2).mean(dim=0)
            torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)
        tokens = block(tokens if net.net.batch_first else tokens.transpose(0, 1))
        tokens = tokens if net.net.batch_first else tokens.transpose(0, 1)
    torch.testing.assert_close(rows["logits"], net(x), atol=1e-5, rtol=1e-5)
    # a pass that fails puts everything back
    with pytest.raises(RuntimeError):
        net.read(x[:, :2])
    assert F.linear is linear and not net.net.blocks[0].self_attn._forward_hooks
    neurons = custom(kind, units="neurons")
    seen = inputs_of(neurons, x.requires_grad_())  # gradients switch PyTorch's fused kernel off
    for k, stage in enumerate(neurons.stages):
        hidden = seen[f"net.blocks.{k}.linear2"]
        expected = hidden.mean(dim=1 if neurons.net.batch_first else 0)
        torch.testing.assert_close(neurons.read(x)[stage], expected, atol=1e-5, rtol=1e-5)


class Functional(nn.Module):
    """Attention that uses the weights of its output projection without calling the module."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv3d(3, 6, (2, 8, 8), (2, 8, 8))
        self.blocks = nn.ModuleList(FunctionalBlock() for _ in range(2))

    def forward(self, x):
        x = self.patches(x).flatten(2).mT
        for block in self.blocks:
            x = block(x)
        return x


class FunctionalBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(6, 18), nn.Linear(6, 6)
        self.attn.num_heads = 2

    def forward(self, x):
        q, k, v = self.attn.qkv(x).chunk(3, dim=-1)
        return x + F.linear((q @ k.mT).softmax(-1) @ v, self.attn.proj.weight, self.attn.proj.bias)


def test_refusals():
    with pytest.raises(UserError, match="units=heads: .* blocks.0.attn.proj is never called: its weights"):
        custom(Functional, units="heads")
    with pytest.raises(UserError, match="units=heads: the stages of this network have no attention heads"):
        custom(CNN, units="heads")
    with pytest.raises(UserError, match="units=neurons: .* no MLP neurons: give units=channels"):
        custom(CNN, units="neurons")
    with pytest.raises(UserError, match="tokens=class: the stages have no class token with channels"):
        custom(CNN, tokens="class")
    with pytest.raises(UserError, match="tokens=frames: the stages have no module with one token per frame"):
        small("timesformer", units="heads", tokens="frames")


def test_tokens_of_channels():
    x = clip(small("timesformer"))
    net = small("timesformer")
    seen = {}
    net.model.blocks[0].register_forward_hook(lambda m, i, o: seen.update(tokens=o))
    everything = net.read(x, ["stage0"])["stage0"]
    torch.testing.assert_close(everything, seen["tokens"].mean(dim=1))
    for tokens, own in (("patches", slice(1, None)), ("class", slice(0, 1))):
        rows = small("timesformer", tokens=tokens).read(x, ["stage0"])["stage0"]
        torch.testing.assert_close(rows, seen["tokens"][:, own].mean(dim=1))
    # toys of networks with an MLP named otherwise, and layers of one token per frame
    net = custom(PerFrame, tokens="frames", feed="(b t) c h w")
    assert list(net.stages) == ["temporal.0", "temporal.1"]
    heads = custom(PerFrame, tokens="frames", units="heads", feed="(b t) c h w")
    x = clip(heads)
    seen = inputs_of(heads, x)["net.temporal.1.attn.proj"]  # (B, T, C)
    torch.testing.assert_close(heads.read(x)["temporal.1"], seen.mean(dim=1), atol=1e-5, rtol=1e-5)


class PerFrame(nn.Module):
    """Blocks over the patches of each frame, then blocks over one token per frame."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 8, 8)
        self.spatial = nn.ModuleList(PlainBlock() for _ in range(2))
        self.temporal = nn.ModuleList(PlainBlock() for _ in range(2))

    def forward(self, x):
        x = self.patches(x).flatten(2).mT
        for block in self.spatial:
            x = block(x)
        x = x.mean(dim=1).unflatten(0, (-1, 4))  # (B, T, C)
        for block in self.temporal:
            x = block(x)
        return x.mean(dim=1)


class PlainBlock(FunctionalBlock):
    def forward(self, x):
        q, k, v = self.attn.qkv(x).chunk(3, dim=-1)
        return x + self.attn.proj((q @ k.mT).softmax(-1) @ v)
