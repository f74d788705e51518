"""Ablation of units and partial forward passes, against slow ways to the same numbers."""

import logging
from functools import partial

import pytest
import torch
from torch import nn

from static_dynamic.errors import UserError
from static_dynamic.models import Stage, Tap, VideoNetwork, build_model
from static_dynamic.models.ablation import ablated, channels_last, tap_outputs
from static_dynamic.models.partial import PartialForward, find_cut
from tests.models.test_networks import small_input

# Networks of every family, with one stage in the middle of the network and the last one.
NETWORKS = ("small_cnn", "small_transformer", "yardstick", "x3d_xs")


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rest_of_a_network_gives_the_whole_prediction(name, caplog):
    net = build_model(name)
    predict = net.foreground if net.flow_directions else net
    first, second = small_input(net, batch=1), small_input(net, batch=2)
    stages = list(net.stages)
    for stage in {stages[len(stages) // 2], stages[-1]}:
        rest = PartialForward(net, stage, predict, first)
        assert not rest.whole and not caplog.messages
        whole, recorded = rest.record(second)
        units = net.stages[stage].units
        values = noise(units)
        with ablated(net, stage, range(0, units, 2), values):
            found = rest.rest(second, recorded)
            with torch.inference_mode():
                expected = predict(second)
        assert (found - expected).abs().max() <= 1e-6 * max(1, expected.abs().max())
        assert (rest.rest(second, recorded) - whole).abs().max() <= 1e-6 * max(1, whole.abs().max())


def test_what_lies_before_the_stage_is_not_computed():
    net = build_model("x3d_xs")
    inputs = small_input(net, batch=1)
    rest = PartialForward(net, "stage4", net, inputs)
    _, recorded = rest.record(inputs)
    ran = []
    for name, module in net.named_modules():
        module.register_forward_hook(lambda m, i, o, name=name: ran.append(name))
    rest.rest(inputs, recorded)
    assert not [name for name in ran if name.startswith(("s1.", "s2.", "s3.", "s4."))]
    assert any(name.startswith("s5.") for name in ran)


class InPlace(VideoNetwork):
    """The block `second` changes the output of `first` in place, which is read after the stage."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 4, 1), nn.ReLU(inplace=True)
        self.third = nn.Conv1d(4, 4, 1)
        self.stages = {"stage1": Stage(4, (Tap("third"),))}

    def forward(self, x):
        y = self.first(x)
        z = self.third(self.second(y))
        return (y + z).mean(2)


def test_a_network_that_cannot_be_cut_is_computed_whole(caplog):
    caplog.set_level(logging.WARNING)
    net, inputs = InPlace().eval(), noise(2, 3, 5)
    rest = PartialForward(net, "stage1", net, inputs)
    assert rest.whole and len(caplog.messages) == 1 and "every ablation is a full" in caplog.messages[0]
    _, recorded = rest.record(inputs)
    with ablated(net, "stage1", [1], torch.zeros(4)):
        with torch.inference_mode():
            assert torch.equal(rest.rest(inputs, recorded), net(inputs))


class Shared(VideoNetwork):
    """One module runs before and after the stage, one runs without use, and two maps are needed."""

    def __init__(self):
        super().__init__()
        self.scale, self.block, self.unused = nn.Conv1d(4, 4, 1), nn.Conv1d(4, 4, 1), nn.Conv1d(4, 9, 1)
        self.stages = {"stage1": Stage(4, (Tap("block"),))}

    def forward(self, x):
        a = self.scale(x)
        self.unused(a)
        b = torch.relu(self.scale(a))
        return self.scale(self.block(b) + a).mean(2)


def test_calls_of_a_shared_module_are_told_apart():
    net, inputs = Shared().eval(), noise(2, 4, 5)
    cut = find_cut(net, {"block"}, lambda: net(inputs))
    assert [(c.module, c.k) for c in cut] == [("scale", 0), ("unused", 0), ("scale", 1), ("block", 0)]
    rest = PartialForward(net, "stage1", net, inputs)
    # the first map is added after the stage; the second one only feeds the stage
    assert {(c.module, c.k) for c in rest.needed} == {("scale", 0), ("block", 0)}
    other = noise(2, 4, 5, seed=1)
    whole, recorded = rest.record(other)
    assert torch.equal(rest.rest(other, recorded), whole)
    assert net.scale.forward.__self__ is net.scale, "the method of the class is back"


def outputs_of(layout):
    """An output of a module with 6 units, as the layouts describe it; (B, ..., 6) view of its values."""
    return {"maps": noise(2, 6, 3, 4), "channels_last": noise(2, 3, 4, 6), "tokens": noise(2, 5, 6)}[layout]


class Fixed(VideoNetwork):
    """Returns a given output."""

    def __init__(self, tap, output, units=6):
        super().__init__()
        self.output, self.block = output, nn.Identity()
        self.stages = {"stage1": Stage(units, (tap,))}

    def forward(self, x):
        return self.block(self.output)


@pytest.mark.parametrize("layout", ["maps", "channels_last", "tokens"])
def test_only_the_units_are_replaced(layout):
    output = outputs_of(layout)
    net = Fixed(Tap("block", layout=layout), output.clone())
    values = torch.arange(6.0)
    with ablated(net, "stage1", [1, 4], values):
        found = net(None)
    expected = output.clone()
    for unit in (1, 4):
        if layout == "maps":
            expected[:, unit] = values[unit]
        else:
            expected[..., unit] = values[unit]
    assert torch.equal(found, expected)
    assert torch.equal(net.output, output), "the module's own output is not changed in place"
    assert torch.equal(net(None), output), "the hook is gone"


def test_class_tokens_and_outputs_of_several_tensors():
    tokens = noise(2, 5, 6)
    with ablated(net := Fixed(Tap("block", layout="tokens", skip=1), tokens), "stage1", [2], torch.zeros(6)):
        found = net(None)
    assert torch.equal(found[:, 0], tokens[:, 0]) and (found[:, 1:, 2] == 0).all()
    with ablated(net := Fixed(Tap("block", layout="tokens", keep=1), tokens), "stage1", [2], torch.zeros(6)):
        found = net(None)
    assert torch.equal(found[:, 1:], tokens[:, 1:]) and (found[:, 0, 2] == 0).all()
    pair = {"a": noise(2, 6, 3), "b": noise(2, 6, 3, seed=1)}
    with ablated(net := Fixed(Tap("block", select="b"), pair), "stage1", [0], torch.zeros(6)):
        found = net(None)
    assert torch.equal(found["a"], pair["a"]) and (found["b"][:, 0] == 0).all() and pair["b"][:, 0].any()


@pytest.mark.parametrize(
    "tap, shape",
    [
        (Tap("block", layout="time_first"), (2, 3, 6, 4, 5)),
        (Tap("block", layout="tokens", skip=1, keep=2), (2, 5, 6)),
        (Tap("block", layout="tokens", batch_axis=1, skip=1), (5, 2, 6)),
        (Tap("block", layout="maps", fold=2), (4, 6, 3, 3)),
    ],
)
def test_what_a_tap_reads_is_replaced_and_nothing_else(tap, shape):
    output, values = noise(*shape), torch.arange(6.0)
    with ablated(net := Fixed(tap, output), "stage1", [1, 4], values):
        found = net(None)
    before, after = tap.pool(output), tap.pool(found)
    assert torch.allclose(after[:, [1, 4]], values[[1, 4]].expand(2, 2))
    assert torch.equal(after[:, [0, 2, 3, 5]], before[:, [0, 2, 3, 5]])
    read = before.numel() // 6 * tap.fold
    positions = output.numel() // 6 if not (tap.skip or tap.keep) else read * (tap.keep or 4)
    assert (found != output).sum() == 2 * positions


@pytest.mark.parametrize("change", [{"source": "heads"}, {"source": "input"}, {"run": 2}])
def test_units_that_are_no_output_of_the_module_are_refused(change):
    net = Fixed(Tap("block", layout="tokens", **change), noise(2, 5, 6))
    with pytest.raises(UserError, match="units=channels"), ablated(net, "stage1", [0], torch.zeros(6)):
        pass


class TwoTaps(VideoNetwork):
    """A stage of two pathways: 3 units of one module, then 2 of another one, which is computed first."""

    def __init__(self):
        super().__init__()
        self.fast, self.slow = nn.Conv1d(3, 2, 1), nn.Conv1d(3, 3, 1)
        self.stages = {"cat": Stage(5, (Tap("slow"), Tap("fast")))}

    def example_input(self, make, batch=1, size=None):
        return make((batch, 3, 4))

    def forward(self, x):
        fast = self.fast(x)
        return torch.cat([fast, self.slow(x)], dim=1).mean(2)


def test_units_of_several_taps_are_counted_through():
    net, inputs = TwoTaps().eval(), noise(2, 3, 4)
    rest = PartialForward(net, "cat", net, inputs)
    _, recorded = rest.record(inputs)
    before = net.read(inputs, ["cat"])["cat"]
    with ablated(net, "cat", [0, 4], torch.full((5,), 7.0)):
        after = net.read(inputs, ["cat"])["cat"]
        with torch.inference_mode():
            expected = net(inputs)
        assert torch.equal(rest.rest(inputs, recorded), expected)
    assert (before != after).any(0).nonzero().ravel().tolist() == [0, 4]
    assert torch.allclose(after[:, [0, 4]], torch.tensor(7.0))
    with pytest.raises(UserError, match="unit 5 does not exist"):
        with ablated(net, "cat", [5], torch.zeros(5)):
            pass


def test_patching_every_unit_is_the_network_on_the_other_input():
    net = build_model("small_cnn")
    random = partial(torch.randn, generator=torch.Generator().manual_seed(3))
    one, other = net.example_input(random, 2), net.example_input(random, 2)
    for stage in net.stages:
        donors = tap_outputs(net, stage, other)
        with ablated(net, stage, range(net.stages[stage].units), donors), torch.inference_mode():
            assert (net(one) - net(other)).abs().max() <= 1e-6
        half = range(0, net.stages[stage].units, 2)
        with ablated(net, stage, half, tap_outputs(net, stage, one)), torch.inference_mode():
            found = net(one)
        with torch.inference_mode():
            assert torch.equal(found, net(one)), "its own maps change nothing"
    assert channels_last(Tap("x"), torch.zeros(2, 5, 3)).shape == (2, 3, 5)
