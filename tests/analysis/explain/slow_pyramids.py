"""Class Feature Pyramids written a second time, slowly: one kernel and one channel at a time, path by path,
over wiring that is spelled out by hand for each family."""

import re

import torch
from torch import nn

SHORTCUTS = re.compile(
    r"downsample|branch1\b|conv_w1|nonlocal|\.se\.|\.block\.fc|conv_theta|conv_phi|conv_g\b|conv_out"
)


def chain(net):
    """Convolutions in turn, each reading the one before."""
    names = [n for n, m in net.named_modules() if isinstance(m, nn.Conv3d) and not SHORTCUTS.search(n)]
    reads = {
        b: [(a, row) for row in range(net.get_submodule(a).out_channels)]
        for a, b in zip(names, names[1:], strict=False)
    }
    return reads, [(names[-1], row) for row in range(net.get_submodule(names[-1]).out_channels)], no_one


def no_one(level, layer):
    return False


def outputs(net, *names):
    return [(name, row) for name in names for row in range(net.get_submodule(name).out_channels)]


def inception(net, first, second, stem):
    """`first`, `second`: names of the four branches' first and last convolutions."""
    blocks = [n for n, _ in net.named_children() if n.lower().startswith("mixed")]
    reads, seen = {}, outputs(net, stem)
    for block in blocks:
        for a, b in zip(first, second, strict=True):
            reads[f"{block}.{a}"] = seen
            if a != b:
                reads[f"{block}.{b}"] = outputs(net, f"{block}.{a}")
        seen = outputs(net, *(f"{block}.{b}" for b in second))
    alone = tuple(b for a, b in zip(first, second, strict=True) if a == b)
    return reads, seen, lambda level, layer: level % 2 == 1 and layer.endswith(alone)


def jax_inception(net):
    first, second = ("b0", "b1a", "b2a", "b3b"), ("b0", "b1b", "b2b", "b3b")
    named = ([f"{branch}.conv3d" for branch in side] for side in (first, second))
    return inception(net, *named, "Conv3d_2c_3x3.conv3d")


def hassony_inception(net):
    first = ("branch_0", "branch_1.0", "branch_2.0", "branch_3.1")
    second = ("branch_0", "branch_1.1", "branch_2.1", "branch_3.1")
    named = ([f"{branch}.conv3d" for branch in side] for side in (first, second))
    return inception(net, *named, "conv3d_2c_3x3.conv3d")


def slowfast(net):
    reads, slow, fast = {}, None, None
    for s in range(1, 6):
        if s == 1:
            slow, fast = outputs(net, "s1.pathway0_stem.conv"), outputs(net, "s1.pathway1_stem.conv")
        for i in range({1: 0, 2: 3, 3: 4, 4: 6, 5: 3}[s]):
            for letter in "abc":
                a, b = (f"s{s}.pathway{p}_res{i}.branch2.{letter}" for p in (0, 1))
                reads[a], reads[b] = slow, fast
                slow, fast = outputs(net, a), outputs(net, b)
        if s < 5:
            reads[f"s{s}_fuse.conv_f2s"] = fast
            slow = slow + outputs(net, f"s{s}_fuse.conv_f2s")
    # the fast pathway's first convolution of stage 5 stands beside the lateral one, a level further back
    return reads, slow + fast, lambda level, layer: level == 9 and layer == "s5.pathway1_res0.branch2.a"


def densenet(net):
    reads, seen = {}, outputs(net, "features.conv0")
    for b, depth in enumerate((6, 12, 24, 16), start=1):
        for i in range(1, depth + 1):
            layer = f"features.denseblock{b}.denselayer{i}"
            reads[f"{layer}.conv1"] = seen
            reads[f"{layer}.conv2"] = outputs(net, f"{layer}.conv1")
            seen = seen + outputs(net, f"{layer}.conv2")
        if b < 4:
            reads[f"features.transition{b}.conv"] = seen
            seen = outputs(net, f"features.transition{b}.conv")
    return reads, seen, no_one


def remember(net, inputs):
    """What every convolution reads, (C, T, H, W), and the logits."""
    seen = {}
    handles = [
        module.register_forward_pre_hook(lambda m, args, n=name: seen.update({n: args[0][0].clone()}))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv3d)
    ]
    with torch.no_grad():
        net(inputs)
    for handle in handles:
        handle.remove()
    return seen


def children(net, seen, reads, layer, row, theta):
    """Channels of the layers before that kernel `row` of `layer` leans on."""
    if layer not in reads:
        return []
    module = net.get_submodule(layer)
    width = module.in_channels // module.groups
    first = row // (module.out_channels // module.groups) * width
    products = []
    for c in range(width):
        weight, activation = module.weight[row, c].mean(), seen[layer][first + c].mean()
        products.append(float(weight) * float(activation))
    low, high = min(products), max(products)
    if low == high:
        found = [c for c in range(width) if products[c] != 0]
    else:
        found = [c for c in range(width) if (products[c] - low) / (high - low) >= theta]
    return [reads[layer][first + c] for c in found]


def class_features(weight, label, theta):
    """Features of the classifier (classes, features, ...) whose scaled weight reaches theta."""
    values = weight.flatten(1).tolist()
    low, high = min(map(min, values)), max(map(max, values))
    return [f for f, value in enumerate(values[label]) if (value - low) / (high - low) >= theta]


def tree(net, seen, wiring, weight, label, theta, depth):
    """The pyramid as {(layer, channel): {...}}, each kernel computed anew on every path that leads to it."""
    reads, features, waits = wiring

    def below(level, layer, row):
        if level == depth:
            return {}
        own = [(layer, row)] if waits(level, layer) else children(net, seen, reads, layer, row, theta)
        return {child: below(level + 1, *child) for child in own}

    selected = [features[f] for f in class_features(weight, label, theta)]
    return {child: below(1, *child) for child in selected}


def links(net, seen, wiring, weight, label, theta, depth):
    """The same as a set of (level, parent, child), each kernel of a level computed once."""
    reads, features, waits = wiring
    now = {features[f] for f in class_features(weight, label, theta)}
    found = {(0, ("class", label), child) for child in now}
    for level in range(1, depth):
        after = set()
        for layer, row in now:
            own = [(layer, row)] if waits(level, layer) else children(net, seen, reads, layer, row, theta)
            found |= {(level, (layer, row), child) for child in own}
            after |= set(own)
        now = after
    return found
