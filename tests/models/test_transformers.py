"""The transformers against slow loops, and what goldens do not see of them and of X3D."""

from itertools import product
from math import exp, isqrt

import pytest
import torch
from torch.nn import functional as F

from static_dynamic.errors import UserError
from static_dynamic.models import build_model
from static_dynamic.models.mvit import MViT, PooledAttention
from static_dynamic.models.timesformer import DividedBlock, TimeSformer, fit_places, fit_times
from static_dynamic.models.x3d import X3D
from tests.keyed import keyed_state_dict, keyed_video, probabilities
from tests.models.test_networks import GOLDEN, relative_error

TINY_VIT = {"num_classes": 5, "frames": 4, "crop": 32, "patch": 8, "width": 12, "depth": 2, "heads": 2}
TINY_MVIT = {
    "num_classes": 5,
    "frames": 4,
    "crop": 32,
    "width": 8,
    "depth": 3,
    "scale_at": [1, 2],
    "kv_stride": 4,
}


def random_weights(module, seed=0):
    """Double precision, and every parameter away from its initial 0 or 1."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * 0.5
    return module.eval().requires_grad_(False)


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(layer, vector):
    return layer.weight @ vector + layer.bias


def layer_norm(layer, vector):
    centred = vector - vector.mean()
    return centred / ((centred**2).mean() + layer.eps).sqrt() * layer.weight + layer.bias


def attend(queries, keys, values):
    """Softmax attention of one head over lists of vectors, one query and one key at a time."""
    outputs = []
    for q in queries:
        scores = [exp(float(q @ k) / len(q) ** 0.5) for k in keys]
        outputs.append(sum(s * v for s, v in zip(scores, values, strict=True)) / sum(scores))
    return outputs


def self_attention(layer, tokens):
    """`layer` on a list of token vectors: each head has its own slice of queries, keys and values."""
    width = len(tokens[0])
    size = width // layer.heads
    rows = [linear(layer.qkv, token) for token in tokens]
    merged = [[] for _ in tokens]
    for head in range(layer.heads):
        q, k, v = (
            [row[part * width + head * size : part * width + (head + 1) * size] for row in rows]
            for part in range(3)
        )
        for parts, output in zip(merged, attend(q, k, v), strict=True):
            parts.append(output)
    return [linear(layer.proj, torch.cat(parts)) for parts in merged]


def pool_loop(tokens, grid, conv, norm):
    """The class token, then one vector a window of the depthwise convolution; zeros lie around the grid."""
    (frames, height, width), stride = grid, conv.stride[1]
    cells = dict(zip(product(range(frames), range(height), range(width)), tokens[1:], strict=True))
    pooled = [tokens[0]]
    for t, y, x in product(range(frames), range(0, height, stride), range(0, width, stride)):
        total = torch.zeros_like(tokens[0])
        for dt, dy, dx in product(range(3), repeat=3):
            cell = (t + dt - 1, y + dy - 1, x + dx - 1)
            if cell in cells:
                total += cells[cell] * conv.weight[:, 0, dt, dy, dx]
        pooled.append(total)
    return [layer_norm(norm, token) for token in pooled]


@pytest.mark.parametrize(("q_stride", "kv_stride"), [(1, 1), (1, 2), (2, 1), (2, 4)])
def test_pooled_attention_equals_loops(q_stride, kv_stride):
    grid, width, heads = (2, 3, 4), 6, 2
    attention = random_weights(PooledAttention(width, heads, grid, q_stride=q_stride, kv_stride=kv_stride))
    x = randn(2, 1 + 2 * 3 * 4, width)
    fast = attention(x)
    size = width // heads
    for clip, tokens in enumerate(x):
        rows = [linear(attention.qkv, token) for token in tokens]
        merged = []
        for head in range(heads):
            parts = []
            for part, (name, stride) in enumerate(zip("qkv", (q_stride, kv_stride, kv_stride), strict=True)):
                start = part * width + head * size
                part_tokens = [row[start : start + size] for row in rows]
                if stride > 1:
                    conv, norm = getattr(attention, f"pool_{name}"), getattr(attention, f"norm_{name}")
                    part_tokens = pool_loop(part_tokens, grid, conv, norm)
                parts.append(part_tokens)
            merged.append(attend(*parts))
        slow = [linear(attention.proj, torch.cat(parts)) for parts in zip(*merged, strict=True)]
        assert fast.shape[1] == len(slow)
        torch.testing.assert_close(fast[clip], torch.stack(slow))


def test_divided_attention_equals_loops():
    frames, places, width = 3, 4, 6
    block = random_weights(DividedBlock(width, heads=2))
    x = randn(2, 1 + places * frames, width)
    fast = block(x, frames)
    for clip, tokens in enumerate(x):
        cls = tokens[0]
        at = {(n, t): tokens[1 + n * frames + t] for n, t in product(range(places), range(frames))}
        for n in range(places):
            normed = [layer_norm(block.temporal_norm1, at[n, t]) for t in range(frames)]
            for t, update in enumerate(self_attention(block.temporal_attn, normed)):
                at[n, t] = at[n, t] + linear(block.temporal_fc, update)
        cls_updates = []
        for t in range(frames):
            normed = [layer_norm(block.norm1, token) for token in (cls, *(at[n, t] for n in range(places)))]
            cls_update, *updates = self_attention(block.attn, normed)
            cls_updates.append(cls_update)
            for n, update in enumerate(updates):
                at[n, t] = at[n, t] + update
        slow = [cls + sum(cls_updates) / frames, *at.values()]
        gelu = torch.nn.functional.gelu
        slow = [
            s + linear(block.mlp.fc2, gelu(linear(block.mlp.fc1, layer_norm(block.norm2, s)))) for s in slow
        ]
        torch.testing.assert_close(fast[clip], torch.stack(slow))


def test_embeddings_are_read_at_the_nearest_place_and_time():
    embed = randn(1, 1 + 3 * 3, 2)
    places = fit_places(embed, 4, 5)
    assert torch.equal(places[0, 0], embed[0, 0])
    for y, x in product(range(4), range(5)):
        assert torch.equal(places[0, 1 + y * 5 + x], embed[0, 1 + (y * 3 // 4) * 3 + x * 3 // 5])
    times = fit_times(randn(1, 8, 2), 3)
    assert torch.equal(times[0], randn(1, 8, 2)[0, [0, 2, 5]])


@pytest.mark.parametrize(("frames", "side"), [(8, 256), (5, 224), (16, 64)])
def test_timesformer_takes_other_clips(frames, side):
    net = build_model("timesformer", width=24, depth=2, heads=2)
    clip = torch.randn(1, 3, frames, side, side, generator=torch.Generator().manual_seed(0))
    rows = net.read(clip, [*net.stages, "logits"])
    assert {name: tuple(row.shape) for name, row in rows.items()} == {
        "stage0": (1, 24),
        "stage1": (1, 24),
        "logits": (1, 400),
    }
    assert all(row.isfinite().all() for row in rows.values())


@pytest.mark.parametrize("tag", ["pipeline256", "small64"])
def test_timesformer_logits_of_other_crops_equal_the_original(tag):
    golden = torch.load(GOLDEN / "timesformer.pt", weights_only=True)
    case = next(case for case in golden["cases"] if case["tag"] == tag)
    net = build_model("timesformer")
    net.load_state_dict(keyed_state_dict("timesformer", net.state_dict()))
    with torch.inference_mode():
        logits = net.logit_map(keyed_video(case["input_tag"], case["input_shape"]))
    assert relative_error(logits, case["logits"]) < 1e-5


def test_timesformer_converts_keys_with_and_without_the_prefix():
    net = TimeSformer(**TINY_VIT)
    own = net.state_dict()
    for state in (own, {key.removeprefix("model."): value for key, value in own.items()}):
        converted = net.convert(state)
        assert converted.keys() == own.keys()
        assert all(torch.equal(converted[key], value) for key, value in own.items())


def test_a_checkpoint_of_other_embeddings_gives_what_its_own_network_gives():
    larger = TimeSformer(**{**TINY_VIT, "frames": 8, "crop": 64}).eval()
    net = TimeSformer(**TINY_VIT).eval()
    net.load_state_dict(net.convert(larger.state_dict()))
    clip = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(clip), larger(clip))


def test_mvit_predicts_from_the_normed_class_token_and_reports_the_mean_token():
    net = random_weights(MViT(**TINY_MVIT))
    clip = randn(2, 3, 4, 32, 32)
    tokens = net.tokens(clip)
    for b in range(2):
        own = linear(net.head.projection, layer_norm(net.norm, tokens[b, 0]))
        reported = linear(net.head.projection, sum(tokens[b]) / len(tokens[b]))
        torch.testing.assert_close(net(clip)[b], own)
        torch.testing.assert_close(net.logit_map(clip)[b], reported)


def test_mvit_refuses_a_clip_of_another_size():
    with pytest.raises(UserError, match="4, 32, 32"):
        MViT(**TINY_MVIT)(torch.zeros(1, 3, 4, 64, 64))


def test_mvit_fits_position_embeddings_in_space_and_time_as_trilinear_interpolation_does():
    state = MViT(**TINY_MVIT).state_dict()
    net = MViT(**TINY_MVIT | {"frames": 8, "crop": 48})
    fitted = net.convert(state)
    net.load_state_dict(fitted)
    (t, side), (new_t, new_side) = (
        (len(s["pos_embed_temporal"][0]), isqrt(len(s["pos_embed_spatial"][0]))) for s in (state, fitted)
    )
    assert new_t == 2 * t and 2 * new_side == 3 * side

    def grid(s, t, side):
        space = s["pos_embed_spatial"].mT.unflatten(2, (1, side, side))
        return (space + s["pos_embed_temporal"].mT[..., None, None]).expand(-1, -1, t, side, side)

    size = (new_t, new_side, new_side)
    expected = F.interpolate(grid(state, t, side), size=size, mode="trilinear", align_corners=False)
    torch.testing.assert_close(grid(fitted, new_t, new_side), expected)
    assert all(torch.equal(MViT(**TINY_MVIT).convert(state)[key], value) for key, value in state.items())


def test_x3d_classifies_every_window_of_a_large_clip_and_the_whole_of_a_small_one():
    net = random_weights(X3D(num_classes=3, depths=[1, 1, 1, 1], pool=[2, 2, 2], width=8))
    assert net.logit_map(randn(1, 3, 1, 32, 48)).shape == (1, 1, 1, 1, 3)
    clip = randn(1, 3, 3, 96, 128)  # 3 x 3 x 4 cells before the head
    logits = net.logit_map(clip)
    assert logits.shape == (1, 2, 2, 3, 3)
    torch.testing.assert_close(net(clip)[0], sum(logits.reshape(-1, 3)) / 12)
    scores = sum(torch.softmax(position, 0) for position in logits.reshape(-1, 3)) / 12
    torch.testing.assert_close(probabilities(net, clip)[0], scores)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("x3d_xs", 3.79),
        ("x3d_s", 3.79),
        ("x3d_m", 3.79),
        ("x3d_l", 6.15),
        ("mvit", 36.60),
        ("timesformer", 121.57),
    ],
)
def test_parameter_counts_are_the_published_ones(name, millions):
    count = sum(parameter.numel() for parameter in build_model(name).parameters())
    assert round(count / 1e6, 2) == millions
