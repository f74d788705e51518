"""Stages of wrapped networks against plain pooling by forward hooks."""

import pytest
import torch

from static_dynamic.errors import UserError
from static_dynamic.models.layouts import layout_of
from static_dynamic.models.stage_discovery import find_candidates
from tests.models.toys import (
    CNN,
    INPUT,
    AttentionFirst,
    Branches,
    Caches,
    ChannelsLast,
    Frame,
    FramesBeforeChannels,
    ReadsValues,
    Registers,
    Summed,
    Tokens,
    TokensFirst,
    TwoPathways,
    clip,
    custom,
    outputs_of,
)


def test_cnn_is_read_at_its_top_level():
    net = custom(CNN)
    assert list(net.stages) == ["stem", "layer1", "layer2"]
    x = clip(net)
    rows, seen = net.read(x, [*net.stages, "logits"]), outputs_of(net, x)
    for name in ("layer1", "layer2"):  # the stem's output is changed in place behind it
        torch.testing.assert_close(rows[name], seen[name].double().mean(dim=(2, 3, 4)).float())
    torch.testing.assert_close(rows["stem"], net.net.stem(x).mean(dim=(2, 3, 4)))
    torch.testing.assert_close(rows["logits"], seen[""])
    assert net.stage_name(None) == "layer2" and net.stage_name("layer1") == "layer1"


@pytest.mark.parametrize(
    "patterns, expected",
    [
        (["layer2", "stem"], ["stem", "layer2"]),  # in depth order
        (["layer1.*"], ["layer1.0", "layer1.1"]),  # one part of a path
        (["layer?.1.conv"], ["layer1.1.conv", "layer2.1.conv"]),
        ("head", ["head"]),
    ],
)
def test_stages_by_path_or_pattern(patterns, expected):
    assert list(custom(CNN, stages=patterns).stages) == expected


@pytest.mark.parametrize(
    "kind, patterns, line",
    [
        (CNN, ["layer3"], "the network runs no module 'layer3'; nearest known: layer"),
        (CNN, ["relu@6"], "the network runs no module 'relu@6'; nearest known: relu@"),
        (Summed, ["sum"], "'sum' cannot be read, because the module has an output without a batch axis"),
        (AttentionFirst, ["blocks.0.drop"], "'blocks.0.drop' .* the module returns attention weights"),
    ],
)
def test_stages_that_are_not_there(kind, patterns, line):
    with pytest.raises(UserError, match=line):
        custom(kind, stages=patterns)


def test_tokens_are_read_without_the_class_token_which_has_a_stage_of_its_own():
    net = custom(Tokens)
    blocks = ["blocks.0", "blocks.1", "blocks.2"]
    assert list(net.stages) == [name for block in blocks for name in (block, f"{block}/cls")]
    assert net.shown_stages() == blocks and net.stage_name(None) == "blocks.2"
    x = clip(net)
    rows, seen = net.read(x, [*net.stages, "logits"]), outputs_of(net, x)
    for block in blocks:
        tokens = seen[block][0]  # (B, 1 + 32, C)
        assert tokens.shape[1] == 33
        torch.testing.assert_close(rows[block], tokens[:, 1:].mean(dim=1))
        torch.testing.assert_close(rows[f"{block}/cls"], tokens[:, 0])
    torch.testing.assert_close(rows["logits"], seen[""]["logits"])


def test_places_folded_into_the_batch_are_averaged_clip_by_clip():
    net = custom(Tokens, stages=["blocks.0.over_time", "blocks.0.mlp"])
    # attention over time sees no class token, so that there is none to leave out
    assert list(net.stages) == ["blocks.0.over_time", "blocks.0.mlp", "blocks.0.mlp/cls"]
    x = clip(net)
    folded = outputs_of(net, x)["blocks.0.over_time"]  # (B * 16, 2, C)
    assert folded.shape[:2] == (32, 2)
    expected = torch.stack([folded[:16].mean(dim=(0, 1)), folded[16:].mean(dim=(0, 1))])
    torch.testing.assert_close(net.read(x, ["blocks.0.over_time"])["blocks.0.over_time"], expected)


def test_leading_tokens_may_be_said():
    assert "blocks.0/cls" not in custom(Tokens, leading_tokens=0).stages


def test_channels_last_is_told_by_the_square_axes():
    net = custom(ChannelsLast, stages=["patches", "layers.*"])
    assert {name: stage.units for name, stage in net.stages.items()} == {
        "patches": 6,
        "layers.0": 8,
        "layers.1": 10,
    }
    x = clip(net)
    expected = outputs_of(net, x)["layers.0"].mean(dim=(1, 2, 3))
    torch.testing.assert_close(net.read(x, ["layers.0"])["layers.0"], expected)
    # as the user says
    assert custom(ChannelsLast, stages="layers.0", layout="maps").stages["layers.0"].units == 4


@pytest.mark.parametrize(
    "shape, frame, layout",
    [
        ((1, 5), (32, 32), "maps"),
        ((1, 9, 5), (32, 32), "tokens"),
        ((8, 5, 7, 7), (32, 32), "maps"),
        ((8, 7, 7, 5), (32, 32), "channels_last"),
        ((1, 5, 4, 7, 7), (32, 32), "maps"),
        ((1, 4, 7, 7, 5), (32, 32), "channels_last"),
        ((1, 3, 9, 5), (32, 32), None),  # heads
        ((1, 256, 30, 54), (480, 854), "maps"),
        ((1, 30, 54, 256), (480, 854), "channels_last"),
    ],
)
def test_layouts(shape, frame, layout):
    assert layout_of(shape, frame) == layout


def test_frame_by_frame_is_blind_to_order():
    net = custom(Frame, feed="(b t) c h w")
    assert list(net.stages) == ["conv1", "conv2"]
    x = clip(net)
    rows = net.read(x, [*net.stages, "logits"])
    by_frame = torch.stack([net.net(x[:, :, t]) for t in range(4)]).mean(dim=0)
    torch.testing.assert_close(rows["logits"], by_frame)
    torch.testing.assert_close(
        rows["conv1"], torch.stack([net.net.conv1(x[:, :, t]).mean(dim=(2, 3)) for t in range(4)]).mean(dim=0)
    )
    shuffled = net.read(x[:, :, [2, 0, 3, 1]], [*net.stages, "logits"])
    for name, values in rows.items():
        torch.testing.assert_close(shuffled[name], values)


def test_pathways_side_by_side():
    net = custom(TwoPathways, input={**INPUT, "pathways": {"slow": 2, "fast": 4}}, stages=["stage"])
    slow, fast = net.prepare(clip(net))
    assert slow.shape[2] == 2 and torch.equal(fast, clip(net)) and torch.equal(slow[:, :, 1], fast[:, :, 3])
    rows = net.read([slow, fast], ["stage"])["stage"]
    expected = [net.net.stage.slow(slow).mean(dim=(2, 3, 4)), net.net.stage.fast(fast).mean(dim=(2, 3, 4))]
    torch.testing.assert_close(rows, torch.cat(expected, dim=1))


def test_candidates_come_in_the_order_of_execution():
    found = find_candidates(custom(CNN))
    paths = list(found)
    assert paths[0] == "net.stem" and paths[-1] == "net"
    assert paths.index("net.layer1.0.conv") < paths.index("net.layer1") < paths.index("net.layer2.0.conv")
    assert [path for path in paths if "relu" in path] == [f"net.relu@{run}" for run in range(1, 6)]
    assert [candidate.depth for candidate in found.values()] == list(range(len(found)))


def test_each_run_of_a_module_that_runs_several_times_is_a_stage():
    net = custom(CNN, stages=["relu"])
    assert list(net.stages) == [f"relu@{run}" for run in range(1, 6)]
    x, seen = clip(net), []
    net.net.relu.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    rows = net.read(x)
    for row, output in zip(rows.values(), seen, strict=True):
        torch.testing.assert_close(row, output.mean(dim=(2, 3, 4)))
    alone = custom(CNN, stages=["relu@2", "layer1"])
    assert list(alone.stages) == ["relu@2", "layer1"]
    torch.testing.assert_close(alone.read(x, ["relu@2"])["relu@2"], rows["relu@2"])


def test_tokens_before_clips():
    net = custom(TokensFirst)
    assert net.shown_stages() == ["layers.0", "layers.1"]
    x = clip(net, 3)
    rows, seen = net.read(x), outputs_of(net, x)
    for block in net.shown_stages():
        assert seen[block].shape == (33, 3, 6)
        torch.testing.assert_close(rows[block], seen[block][1:].mean(dim=0))
        torch.testing.assert_close(rows[f"{block}/cls"], seen[block][0])
    over_time = custom(TokensFirst, stages=["over_time"])
    assert list(over_time.stages) == ["over_time"]
    folded = seen["over_time"].unflatten(1, (3, 16))  # (T, B, places, C)
    torch.testing.assert_close(over_time.read(x)["over_time"], folded.mean(dim=(0, 2)))


@pytest.mark.parametrize("average", [False, True])
def test_attention_weights_are_not_read(average):
    net = custom(AttentionFirst, options={"average": average})
    assert {name: stage.units for name, stage in net.stages.items()} == {"blocks.0": 6, "blocks.1": 6}
    x = clip(net)
    rows, seen = net.read(x), outputs_of(net, x)
    assert seen["blocks.1"][0].shape[-2:] == (32, 32)
    torch.testing.assert_close(rows["blocks.1"], seen["blocks.1"][1].mean(dim=1))


def test_all_lists_of_blocks_and_all_branches_of_tokens_are_read():
    net = custom(Branches)
    units = {name: stage.units for name, stage in net.stages.items()}
    assert units == {"mixed.0": 10, "mixed.1": 10, "last.0": 6, "last.1": 6}
    x = clip(net)
    rows, seen = net.read(x), outputs_of(net, x)
    for name in ("mixed.0", "mixed.1"):
        expected = torch.cat([branch.mean(dim=1) for branch in seen[name]], dim=1)
        torch.testing.assert_close(rows[name], expected)
    torch.testing.assert_close(rows["last.1"], seen["last.1"].mean(dim=1))


def test_every_prefix_token_has_a_stage():
    net = custom(Registers)
    suffixes = ("", "/cls", "/dist", "/registers")
    assert list(net.stages) == [f"blocks.{k}{suffix}" for k in range(2) for suffix in suffixes]
    assert net.shown_stages() == ["blocks.0", "blocks.1"]
    x = clip(net)
    rows, tokens = net.read(x), outputs_of(net, x)["blocks.1"]
    for suffix, expected in zip(suffixes, (tokens[:, 5:], *tokens[:, :5].split([1, 1, 3], 1)), strict=True):
        torch.testing.assert_close(rows[f"blocks.1{suffix}"], expected.mean(dim=1))


def test_time_before_channels():
    net = custom(FramesBeforeChannels, feed="b c t h w", stages=["stem"])
    assert net.stages["stem"].units == 6
    x = clip(net)
    torch.testing.assert_close(net.read(x)["stem"], outputs_of(net, x)["stem"].mean(dim=(1, 3, 4)))


def test_a_network_that_reads_values_is_run_for_real(caplog):
    with caplog.at_level("INFO"):
        net = custom(ReadsValues)
    assert "passes of random pixels on the CPU" in caplog.text and caplog.text.count("random pixels") == 1
    assert not net.runs_on_meta and custom(CNN).runs_on_meta
    assert list(net.stages) == list(custom(CNN).stages) and net.classes == 5
    x = clip(net)
    torch.testing.assert_close(net(x), net.net(clip=x))
    torch.testing.assert_close(
        net.read(x, ["layer2"])["layer2"], outputs_of(net, x)["layer2"].mean((2, 3, 4))
    )


def test_what_a_network_caches_without_values_is_not_kept():
    net = custom(Caches)
    assert net.runs_on_meta and net.net.scale is None
    x = clip(net)
    torch.testing.assert_close(net(x), custom(CNN)(2 * x))
