"""Class Feature Pyramids: the original's graphs, steps and tubes; a slow oracle for the corrected rules."""

import json

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from static_dynamic.analysis import class_feature_pyramid
from static_dynamic.analysis.explain.class_feature_pyramids import build_pyramid
from static_dynamic.analysis.explain.feature_path import trace_path
from static_dynamic.analysis.explain.pyramid_rules import Original
from static_dynamic.analysis.explain.tubes import zoom_cells
from static_dynamic.errors import UserError
from static_dynamic.models import build_model
from tests.analysis.explain import slow_pyramids
from tests.golden_pyramids import GOLDEN, golden_graph, golden_steps


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sized(pyramid):
    """The same pyramid cut off at each of its depths."""
    for depth in range(1, len(pyramid.steps) + 1):
        yield (
            depth,
            type(pyramid)(pyramid.label, pyramid.theta, pyramid.rules, pyramid.steps[:depth], pyramid.clip),
        )


# -- the original's rules


@pytest.mark.parametrize("name", ["resnet50", "resnext50", "mfnet", "i3d_112"])
def test_graphs_of_the_original(name):
    # without the option: these rules drop the pooling that the original drops
    golden, net, inputs = golden_graph(name)
    depth, label = max(map(int, golden["graphs"])), golden["label"]
    pyramid = class_feature_pyramid(
        net, inputs, label=label, theta=golden["theta"], depth=depth, rules="original"
    )
    for reached, shorter in sized(pyramid):
        assert shorter.nested() == golden["graphs"][str(reached)]
    torch.testing.assert_close(pyramid.clip.logits, golden["logits"][0], rtol=1e-5, atol=5e-6)
    # theta 0 keeps every link, and with it every score
    everything = build_pyramid(pyramid.clip, label, 0.0, 1, "original")
    np.testing.assert_allclose(everything.links.strength[::4], golden["class_scores"], atol=1e-6)
    first = int(pyramid.steps[0][1][0])
    _, _, scores = pyramid.clip.step(1, np.array([first]), 0.0)
    np.testing.assert_allclose(scores, golden["score_vector"], atol=2e-5)


def synthetic(kernels, activations, size=(1, 1, 1), width=None):
    names = [[f"{i}.{b}" for b in range(len(entry))] for i, entry in enumerate(kernels)]
    return Original(
        kernels, [a[0] for a in activations], names, size, torch.zeros(8, width or 1), torch.zeros(8)
    )


CASES, GRAPH = golden_steps()


@pytest.mark.parametrize("case", CASES, ids=[case["tag"] for case in CASES])
def test_single_steps_of_the_original(case):
    clip = synthetic([case["kernels"]], [case["activation"], case["activation"]])
    units, theta = np.array(case["indices"], dtype=int), case["threshold"]
    if case["topn"]:  # a TypeError in the original
        net = build_model("cfp_resnext50", num_classes=8)
        with pytest.raises(UserError, match="topK_inL fails in Stergiou et al.'s code"):
            class_feature_pyramid(net, None, 7, rules="original", select="top2_in1")
    elif case["error"]:
        with pytest.raises(
            UserError, match="fails at level 1, as Stergiou et al.'s code does|there is no kernel"
        ):
            clip.step(1, units, theta)
    else:
        parent, child, _ = clip.step(1, units, theta)
        found = {str(unit): sorted(child[parent == unit].tolist()) for unit in units}
        assert found == case["result"]


def test_depths_of_the_original():
    clip = synthetic(GRAPH["kernels"], GRAPH["activations"], width=10)
    clip.class_scores[GRAPH["start"]["7"], 7] = 1.0  # selects those features
    for depth in (1, 2, 3):
        assert build_pyramid(clip, 7, GRAPH["threshold"], depth).nested() == GRAPH["by_depth"][str(depth)]
    for depth in (4, 5):
        assert GRAPH["by_depth"][str(depth)].startswith("IndexError")
        with pytest.raises(UserError, match="level 3 is the last level"):
            build_pyramid(clip, 7, GRAPH["threshold"], depth)
    clip.class_scores = np.full((10, 8), np.nan, np.float32)
    assert build_pyramid(clip, 7, 0.5, 3).nested() == GRAPH["empty_start_depth3"]


def test_lists_of_the_original_end_where_its_own_step_fails():
    net = build_model("cfp_resnext50", num_classes=8)
    with pytest.raises(
        UserError, match="fails at level 3, as Stergiou et al.'s code does: kernels have 2048 input"
    ):
        class_feature_pyramid(net, noise(1, 3, 16, 64, 64), 7, depth=4, theta=0.5, rules="original")


def original_tube(activity, size):
    """The original's zoom of a tube by whole factors, scaled to [0, 1]; NaN if all values are equal."""
    zoomed = ndimage.zoom(activity, [n // side for n, side in zip(size, activity.shape, strict=True)])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (zoomed - zoomed.min()) / (zoomed.max() - zoomed.min())


def test_tubes_of_the_original():
    golden = torch.load(GOLDEN / "cfp_tubes.pt", weights_only=True)
    size = tuple(golden["size"])
    clip = synthetic([], golden["activations"], size)
    seen = 0
    for zoomed in golden["zoomed"]:
        ours = ndimage.zoom(zoomed["map"].numpy(), zoomed["factors"])
        np.testing.assert_allclose(ours[::3, ::5, ::5], zoomed["out"], atol=1e-5)
    for folder, tube in golden["tubes"].items():
        _, level, _, unit, *_ = folder.split("/")[1].split("_")
        children = np.array(tube["children"], dtype=int)
        activity = clip.sum_maps(
            int(level) - 1, int(unit), children
        ).numpy()  # the original counts the class as 1
        alike = [
            zoomed["map"].numpy() for zoomed in golden["zoomed"] if zoomed["map"].shape == activity.shape
        ]
        assert any(np.allclose(activity, other, atol=1e-5) for other in alike)
        ours = original_tube(activity, size)
        if not len(children):
            assert np.isnan(ours).all()
            continue
        for frame, heat, stored in zip(
            golden["rgb"].numpy(), ours[::3, ::5, ::5], tube["frames"].numpy(), strict=True
        ):
            coloured = cv2.applyColorMap(np.uint8(255 * heat), cv2.COLORMAP_JET)
            assert np.array_equal(coloured // 2 + frame // 2, stored)
            seen += 1
    assert seen > 10


# -- the corrected rules

# network -> its wiring by hand, its classifier, frames and side of the clip, theta, depth
FAMILIES = {
    "cfp_resnet50": (slow_pyramids.chain, "fc", 16, 64, 0.92, 5),
    "cfp_resnext50": (slow_pyramids.chain, "fc", 16, 64, 0.96, 5),
    "cfp_mfnet": (slow_pyramids.chain, "classifier", 16, 64, 0.9, 5),
    "cfp_i3d": (slow_pyramids.hassony_inception, "conv3d_0c_1x1.conv3d", 16, 112, 0.9, 5),
    "cfp_densenet121": (slow_pyramids.densenet, "classifier", 16, 64, 0.96, 4),
    "i3d_inception": (slow_pyramids.jax_inception, "logits.conv3d", 16, 224, 0.9, 5),
    "slow_r50_8x8": (slow_pyramids.chain, "head.projection", 8, 64, 0.95, 4),
    "i3d_nln": (slow_pyramids.chain, "head.projection", 8, 64, 0.97, 9),
    "slowfast_r50_8x8": (slow_pyramids.slowfast, "head.projection", 32, 64, 0.97, 12),
    "slow_ssv2_r50_8x8": (slow_pyramids.chain, "model.blocks.5.proj", 8, 64, 0.95, 4),
    "x3d_xs": (slow_pyramids.chain, "head.projection", 4, 64, 0.92, 8),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_corrected_equals_the_slow_oracle(name):
    wiring, classifier, frames, side, theta, depth = FAMILIES[name]
    net = build_model(name, num_classes=12)
    inputs = net.prepare(noise(1, 3, frames, side, side))
    pyramid = class_feature_pyramid(net, inputs, label=7, theta=theta, depth=depth)
    seen = slow_pyramids.remember(net, inputs)
    weight = net.get_submodule(classifier).weight
    expected = slow_pyramids.links(net, seen, wiring(net), weight, 7, theta, depth)
    nodes = {(n.level, n.unit): (n.layer, n.channel) for n in pyramid.nodes.itertuples()}
    found = {
        (link.level, nodes[link.level, link.parent], nodes[link.level + 1, link.child])
        for link in pyramid.links.itertuples()
    }
    assert found == expected
    assert len(found) == len(pyramid.links) > 10


def test_nested_form_equals_the_recursive_tree():
    net = build_model("cfp_mfnet", num_classes=12)
    inputs = noise(1, 3, 16, 64, 64)
    pyramid = class_feature_pyramid(net, inputs, 7, theta=0.88, depth=4)
    seen, wiring = slow_pyramids.remember(net, inputs), slow_pyramids.chain(net)
    tree = slow_pyramids.tree(net, seen, wiring, net.classifier.weight, 7, 0.88, 4)

    def numbers(branch, level):
        if level == 3:
            return [row for below in [branch] for _, row in sorted(below, key=lambda child: child[1])]
        return {str(row): numbers(below, level + 1) for (_, row), below in branch.items()}

    nested = pyramid.nested()
    assert nested == {"7": numbers(tree, 0)}
    assert json.loads(json.dumps(nested)) == nested


class Wired(nn.Module):
    """Groups, depth-wise groups, branches of unequal depth, a gate, a shortcut, a shuffled head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 8, 3, padding=1)
        self.grouped = nn.Conv3d(8, 12, (1, 3, 3), padding=(0, 1, 1), groups=4)
        self.depthwise = nn.Conv3d(12, 12, 3, padding=1, groups=12)
        self.gate = nn.Conv3d(12, 12, 1)
        self.short = nn.Conv3d(12, 5, 1)
        self.first = nn.Conv3d(12, 6, 1)
        self.second = nn.Conv3d(6, 4, 3, padding=1)
        self.project = nn.Conv3d(12, 9, 1)
        self.last = nn.Conv3d(9, 9, 1)
        self.head = nn.Linear(18, 6)

    def forward(self, x):
        x = self.depthwise(self.grouped(self.stem(x).relu()).relu())
        x = x * self.gate(x.mean(dim=(2, 3, 4), keepdim=True)).sigmoid()
        y = torch.cat([self.short(x), self.second(self.first(x))], dim=1)
        y = self.last(y) + self.project(x)
        left, right = y.relu().split([4, 5], dim=1)
        y = torch.cat([right, left, y[:, :9]], dim=1).mean(dim=(3, 4)).transpose(1, 2)  # b t c
        return self.head(y).mean(dim=1)


def wired():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Wired().eval().requires_grad_(False)


def wired_oracle(net):
    out = slow_pyramids.outputs
    reads = {
        "grouped": out(net, "stem"),
        "depthwise": out(net, "grouped"),
        "short": out(net, "depthwise"),
        "first": out(net, "depthwise"),
        "second": out(net, "first"),
        "last": out(net, "short", "second"),
    }
    last = out(net, "last")
    return reads, [*last[4:], *last[:4], *last], lambda level, layer: layer == "short" and level == 2


@pytest.mark.parametrize("theta", [0.0, 0.6, 1.0])
def test_wiring_of_groups_branches_gates_and_shuffled_channels(theta):
    net, inputs = wired(), noise(1, 3, 4, 10, 10)
    pyramid = class_feature_pyramid(net, inputs, 2, theta=theta, depth=6)
    seen = slow_pyramids.remember(net, inputs)
    expected = slow_pyramids.links(net, seen, wired_oracle(net), net.head.weight, 2, theta, 6)
    nodes = {(n.level, n.unit): (n.layer, n.channel) for n in pyramid.nodes.itertuples()}
    assert expected == {
        (link.level, nodes[link.level, link.parent], nodes[link.level + 1, link.child])
        for link in pyramid.links.itertuples()
    }
    # a kernel of `grouped` reads 2 of the 8 channels of the stem, one of `depthwise` its own
    for parent, child in pyramid.links.query("level == 5")[["parent", "child"]].to_numpy():
        assert child // 2 == parent // 3
    assert all(pyramid.links.query("level == 4").parent == pyramid.links.query("level == 4").child)


# what lies between two convolutions -> the channels that the second is known to read
BETWEEN = {
    "last": (lambda net, x: x[:, -4:], [("first", 4, 8)]),
    "stretch": (lambda net, x: x[:, 2:6], [("first", 2, 6)]),
    "earlier_frames": (lambda net, x: x[:, 4:, ::2].flip(2).roll(1, 3), [("first", 4, 8)]),
    "padded": (lambda net, x: nn.functional.pad(x[:, :4], [1] * 6).relu_(), [("first", 0, 4)]),
    "linear": (lambda net, x: net.linear(x.movedim(1, -1)).movedim(-1, 1), [("linear", 0, 4)]),
    # in another order, or not all between two: the way ends
    "every_second": (lambda net, x: x[:, ::2], []),
    "backwards": (lambda net, x: x[:, :4].flip(1), []),
    "turned": (lambda net, x: x[:, :4].roll(1, 1), []),
    "picked": (lambda net, x: x[:, [3, 2, 1, 0]], []),
}


class Between(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step, self.first, self.second = step, nn.Conv3d(3, 8, 1), nn.Conv3d(4, 6, 1)
        self.linear, self.head = nn.Linear(8, 4), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.second(self.step(self, self.first(x))).mean(dim=(2, 3, 4)))


@pytest.mark.parametrize("name", BETWEEN)
def test_the_way_goes_on_through_what_keeps_channels_in_order(name):
    step, expected = BETWEEN[name]
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net, inputs = Between(step).eval().requires_grad_(False), noise(1, 3, 4, 5, 5)
    path = trace_path(net, inputs)
    assert list(path.layers["second"].inputs) == expected
    assert path.depth == (3 if name == "linear" else 2 if expected else 1)
    pyramid = class_feature_pyramid(net, inputs, 1, theta=0.3, depth=path.depth)
    if not expected:
        return
    read = step(net, net.first(inputs))[0]
    if name == "padded":
        read = read[:, 1:-1, 1:-1, 1:-1]
    weights = {"second": (net.second.weight, read), "linear": (net.linear.weight, net.first(inputs)[0])}
    for level, layer in enumerate(["second", "linear"][: path.depth - 1], start=1):
        weight, maps = weights[layer]
        start = expected[0][1] if level == 1 else 0
        for unit in np.unique(pyramid.steps[level][0]).tolist():
            product = weight[unit].flatten() * maps.mean(dim=(1, 2, 3))
            score = (product - product.min()) / (product.max() - product.min())
            below = np.flatnonzero(score >= 0.3)
            assert (pyramid.children(level, unit) - start).tolist() == below.tolist()
            np.testing.assert_allclose(
                pyramid.saliency_tube(level, unit), maps[below].sum(dim=0), rtol=1e-4, atol=1e-5
            )


def test_outputs_that_are_no_numbers_are_refused():
    net = wired()
    net.stem.bias[0] = torch.inf
    with pytest.raises(UserError, match="the network's outputs for this clip are not finite"):
        class_feature_pyramid(net, noise(1, 3, 4, 10, 10), 2)


def test_order_stands_where_the_sum_is_negative():
    case = next(case for case in CASES if case["tag"] == "negative_sum_flips_order")
    (kernel,), means = case["kernels"], case["activation"][0].mean(dim=(1, 2, 3))
    net = nn.Sequential(nn.Conv3d(3, 5, 1), nn.Conv3d(5, 2, 1, bias=False), Pool(), nn.Linear(2, 2))
    net.requires_grad_(False)
    net[0].weight.zero_()
    net[0].bias.copy_(means)  # so the second convolution reads these means everywhere
    net[1].weight.copy_(kernel)
    net[3].weight.copy_(torch.eye(2))
    pyramid = class_feature_pyramid(net, noise(1, 3, 2, 2, 2), 0, theta=1.0, depth=2)
    products = kernel[0].flatten() * means
    assert products.sum() < 0
    assert pyramid.children(1, 0).tolist() == [int(products.argmax())] != case["result"]["0"]
    net[0].bias.zero_()  # nothing comes through
    assert class_feature_pyramid(net, noise(1, 3, 2, 2, 2), 0, theta=0.0, depth=2).nested() == {
        "0": {"0": [], "1": []}
    }


class Pool(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3, 4))


def test_strongest_of_a_level():
    net, inputs = wired(), noise(1, 3, 4, 10, 10)
    full = class_feature_pyramid(net, inputs, 2, theta=0.1, depth=5)
    kept = class_feature_pyramid(net, inputs, 2, theta=0.1, depth=5, select="top2_in3")
    assert full.links.query("level < 3").equals(kept.links.query("level < 3"))
    groups = full.links.query("level == 3").groupby("parent").strength
    strongest = groups.apply(lambda s: sorted(s, reverse=True)[:2]).to_dict()
    found = kept.links.query("level == 3").groupby("parent").strength.apply(lambda s: sorted(s, reverse=True))
    assert found.to_dict() == strongest


def test_tubes_show_the_channels_that_they_list():
    net, inputs = wired(), noise(1, 3, 4, 10, 10)
    pyramid = class_feature_pyramid(net, inputs, 2, theta=0.5, depth=5)
    seen = slow_pyramids.remember(net, inputs)
    names = {(n.level, n.unit): (n.layer, n.channel) for n in pyramid.nodes.itertuples()}
    for (level, unit), (layer, _) in names.items():
        if 0 < level < 5 and not (layer == "short" and level == 2):
            below = [names[level + 1, child] for child in pyramid.children(level, unit)]
            channels = [wired_oracle(net)[0][layer].index(child) for child in below]
            expected = seen[layer][channels].sum(dim=0)
            np.testing.assert_allclose(pyramid.saliency_tube(level, unit), expected, rtol=1e-4, atol=1e-5)
    waiting = next(unit for (level, unit), (layer, _) in names.items() if layer == "short" and level == 2)
    row = names[2, waiting][1]
    np.testing.assert_allclose(pyramid.saliency_tube(2, waiting), seen["last"][row], rtol=1e-5, atol=1e-6)


def test_tube_of_the_class_is_that_of_the_unpooled_features():
    net, inputs = build_model("cfp_resnet50", num_classes=12), noise(1, 3, 16, 80, 64)
    pyramid = class_feature_pyramid(net, inputs, 3, theta=0.9, depth=1)
    outputs = []
    handle = net.layer4.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    net(inputs)
    handle.remove()
    expected = outputs[0][pyramid.children(0, 3)].sum(dim=0)
    np.testing.assert_allclose(pyramid.saliency_tube(0, 3), expected, rtol=1e-4, atol=1e-5)


def test_zoom_loses_no_frames():
    activity = noise(3, 5, 4).numpy()
    assert original_tube(activity, (16, 32, 31)).shape == (15, 30, 28)
    zoomed = zoom_cells(activity, (16, 32, 31))
    assert zoomed.shape == (16, 32, 31)
    assert activity.min() <= zoomed.min() and zoomed.max() <= activity.max()  # a spline would overshoot
    assert zoom_cells(noise(1, 2, 2).numpy(), (16, 9, 9)).shape == (16, 9, 9)


def test_a_path_serves_many_clips():
    net = build_model("cfp_resnext50", num_classes=12)
    path = trace_path(net, noise(1, 3, 16, 64, 64))
    clip = noise(1, 3, 16, 64, 64, seed=1)
    found = class_feature_pyramid(net, clip, 1, theta=0.9, path=path).nested()
    assert found == class_feature_pyramid(net, clip, 1, theta=0.9).nested()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": 6}, "label=6: this network's classes are numbered 0 to 5"),
        ({"label": -1}, "label=-1"),
        ({"theta": 1.2}, "theta=1.2: give a number from 0 to 1"),
        ({"theta": float("nan")}, "theta=nan"),
        ({"depth": 0}, "depth=0: this network's pyramids have 1 to 6 levels"),
        ({"depth": 7}, "depth=7"),
        ({"rules": "orginal"}, "nearest known: original"),
        ({"rules": "original"}, "not for Wired"),
        ({"select": "best"}, "topK_inL"),
        ({"select": "top0_in1"}, "topK_inL"),
        ({"select": "top3_in3"}, "the level L of topK_inL must be below depth=3"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        class_feature_pyramid(wired(), noise(1, 3, 4, 10, 10), **{"label": 2, **options})


def test_networks_without_3d_convolutions_and_batches_are_refused():
    net = build_model("mvit")
    with pytest.raises(UserError, match="MViT has no class feature pyramid"):
        class_feature_pyramid(net, net.prepare(noise(1, 3, 16, 224, 224)), 7)
    with pytest.raises(UserError, match="needs one clip, but this batch has 2"):
        class_feature_pyramid(wired(), noise(2, 3, 4, 10, 10), 2)
