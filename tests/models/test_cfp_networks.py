"""The networks of Class Feature Pyramids: keys, parameters, operations, activations and logits of the
original."""

import hashlib

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from static_dynamic.models import build_model
from tests.golden_pyramids import golden_graph
from tests.paths import SHARED

SHARED_KEYS = SHARED / "parity" / "keys"
# name -> start of the SHA-256 of its list of keys, shapes and types (51 classes)
KEYS = {
    "cfp_i3d": "a1f92976d1feaa86",
    "cfp_mfnet": "877afad8ed9486f8",
    "cfp_resnet50": "c630baf2b815a088",
    "cfp_resnet101": "980009c4deff78e6",
    "cfp_resnext50": "6bc6a27c070ac466",
    "cfp_resnext101": "748527af8adfa479",
}
# parameters (M) with 400 classes, and operations (G), multiplications and additions counted apart, at
# 16 x 224 x 224, as the original publishes them
COST = {
    "cfp_resnet50": (47.02, 80.32),
    "cfp_resnet101": (86.06, 110.98),
    "cfp_resnet152": (118.22, 148.91),
    "cfp_resnext101": (48.34, 76.96),
    "cfp_mfnet": (8.00, 22.70),
    "cfp_i3d": (12.70, 55.79),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys(name):
    state = build_model(name, num_classes=51).state_dict()
    text = "".join(
        f"{key}\t{tuple(value.shape)}\t{str(value.dtype).removeprefix('torch.')}\n"
        for key, value in state.items()
    )
    if (SHARED_KEYS / f"{name}.txt").exists():
        assert text == (SHARED_KEYS / f"{name}.txt").read_text()
    assert hashlib.sha256(text.encode()).hexdigest().startswith(KEYS[name])


@pytest.mark.parametrize("name", COST)
def test_published_cost(name):
    net = build_model(name)
    parameters, operations = COST[name]
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(parameters, rel=0.001)
    with FlopCounterMode(display=False) as counter:
        net.to("meta")(torch.empty(1, 3, 16, 224, 224, device="meta"))
    assert counter.get_total_flops() / 1e9 == pytest.approx(operations, rel=0.03)


@pytest.mark.parametrize("name", ["resnet50", "resnext50", "mfnet", "i3d_112"])
def test_logits_and_layer_means_of_the_original(name):
    golden, net, inputs = golden_graph(name, drop_branch_pool=True)
    kernels, activations = net.original_lists()
    stored = [[key for key in entry if not key.startswith("ones")] for entry in golden["kernels"]]
    assert [[f"{k}.weight" for k in entry if isinstance(k, str)] for entry in kernels] == stored
    means = {}
    handles = [
        net.get_submodule(m).register_forward_hook(
            lambda module, args, output, m=m: means.update({m: output.mean(dim=(2, 3, 4))[0]})
        )
        for entry in activations
        for m in entry
    ]
    with torch.no_grad():
        logits = net(inputs)
    for handle in handles:
        handle.remove()
    layers = [torch.cat([means[m] for m in entry]) for entry in activations]
    assert [len(layer) for layer in layers] == golden["act_channels"]
    torch.testing.assert_close(torch.cat(layers)[::4], golden["act_means"], rtol=1e-4, atol=5e-6)
    torch.testing.assert_close(logits, golden["logits"], rtol=1e-5, atol=5e-6)


def test_i3d_with_the_pooling_is_the_other_layout_of_the_same_network():
    ours = build_model("cfp_i3d", num_classes=10)
    other = build_model("i3d_inception", num_classes=10)
    branches = {"b0": "branch_0", "b1a": "branch_1.0", "b1b": "branch_1.1", "b2a": "branch_2.0"}
    branches |= {"b2b": "branch_2.1", "b3b": "branch_3.1"}
    state = {}
    for key, value in other.state_dict().items():
        block, *rest = key.split(".")
        block = {"logits": "conv3d_0c_1x1"}.get(block, block[0].lower() + block[1:])
        rest = [{"bn": "batch3d", **branches}.get(part, part) for part in rest]
        if rest[-1] == "running_var":
            value = value + 1e-3 - 1e-5  # the two guard against zero variance differently
        state[".".join([block, *rest])] = value
    ours.load_state_dict(state)
    x = torch.randn(1, 3, 16, 128, 128, generator=torch.Generator().manual_seed(0))  # even sides all the way
    for stage, rows in other.read(x, other.stages).items():
        torch.testing.assert_close(ours.read(x, [stage])[stage], rows, rtol=1e-4, atol=1e-6)
    assert ours.logit_map(torch.zeros(1, 3, 16, 160, 160)).shape == (1, 2, 2, 10)


def test_shortcut_without_parameters():
    net = build_model("cfp_resnet50", shortcut="A")
    assert not [key for key in net.state_dict() if "downsample" in key]
    x = torch.randn(1, 256, 3, 5, 5)
    shortcut = net.layer2[0].downsample(x)
    assert shortcut.shape == (1, 512, 2, 3, 3)
    assert torch.equal(shortcut[:, :256], torch.nn.functional.avg_pool3d(x, 1, 2))
    assert not shortcut[:, 256:].any()


def test_densenet_takes_the_names_of_old_releases():
    net = build_model("cfp_densenet121", blocks=[1, 1, 1, 1])
    old = {
        k.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v
        for k, v in net.state_dict().items()
    }
    assert any("denselayer1.norm.1.weight" in key for key in old)
    assert net.convert(old).keys() == net.state_dict().keys()
