"""Every network of the table: the contract that analysis leans on, and the golden outputs of the original."""

import copy
from functools import partial

import pytest
import torch

from static_dynamic.models import build_model, list_models
from tests.keyed import keyed_state_dict, keyed_video, probabilities
from tests.paths import GOLDEN


def relative_error(ours, theirs):
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def two_streams(net):
    return "Flow" in net.input_spec.pathways


def small_input(net, batch=2):
    noise = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    return net.example_input(noise, batch, size=(64, 96) if two_streams(net) else None)


@pytest.fixture(scope="module", params=sorted(list_models()))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def net(name):
    return build_model(name)


def test_strict_load_of_its_own_state_dict(net, name):
    other = build_model(name, seed=1)
    other.load_state_dict(net.state_dict(), strict=True)


def test_same_seed_same_weights(net, name):
    again = build_model(name, seed=0).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in net.state_dict().items())


def test_read_equals_pooled_full_activations_and_stops_early(net):
    inputs = small_input(net, batch=1)
    count = net.input_spec.frames if two_streams(net) else 1  # rows of one item
    outputs = {}
    modules = {tap.module for stage in net.stages.values() for tap in stage.taps}
    # clone: some blocks hand their output to an in-place operation
    handles = [
        net.get_submodule(m).register_forward_hook(
            lambda module, args, output, m=m: outputs.update(
                {m: [o.clone() for o in output] if isinstance(output, list | tuple) else output.clone()}
            )
        )
        for m in modules
    ]
    rows = net.read(inputs, [*net.stages, "logits"])
    for handle in handles:
        handle.remove()
    for stage_name, stage in net.stages.items():
        slow = []
        for tap in stage.taps:
            output = outputs[tap.module] if tap.select is None else outputs[tap.module][tap.select]
            flat = (
                output.transpose(1, 2) if tap.layout == "tokens" else output.flatten(2)
            )  # (B, units, positions)
            slow.append(
                torch.stack([flat[:, u].double().sum(1) / flat.shape[2] for u in range(flat.shape[1])], dim=1)
            )
        slow = torch.cat(slow, dim=1)
        assert rows[stage_name].shape == (count, stage.units) and rows[stage_name].dtype == torch.float32
        assert relative_error(rows[stage_name], slow) < 1e-5
    assert rows["logits"].shape[0] == count
    without_classes = two_streams(net) or type(net).__name__ == "Yardstick"
    assert net.classes == (None if without_classes else rows["logits"].shape[1])

    first, *_, last = net.stages
    ran = []
    deep = net.get_submodule(net.stages[last].taps[-1].module).register_forward_hook(lambda *_: ran.append(1))
    early = net.read(inputs, [first])
    deep.remove()
    assert torch.equal(early[first], rows[first])
    assert not ran, "reading the first stage ran the whole network"


def test_no_tensor_of_the_cpu_takes_part(net):
    """A network on a GPU would stumble over it; one of shapes alone does so too."""
    shape = partial(torch.empty_like, device="meta")
    known = {id(x): shape(x) for x in net.buffers()}
    known |= {id(x): torch.nn.Parameter(shape(x), requires_grad=False) for x in net.parameters()}
    shadow = copy.deepcopy(net, known)  # nothing that is large is copied
    inputs = net.example_input(
        partial(torch.empty, device="meta"), size=(64, 96) if two_streams(net) else None
    )
    end = shadow.foreground(inputs) if two_streams(net) else probabilities(shadow, inputs)
    assert all(x.is_meta for x in [end, *shadow.read(inputs, [*net.stages, "logits"]).values()])


def test_golden_outputs(name):
    path = GOLDEN / f"{name}.pt"
    if not path.exists():
        pytest.skip(f"no golden output of {name} is here (those with two streams: test_vos_networks.py)")
    golden = torch.load(path, weights_only=True)
    net = build_model(name, num_classes=golden.get("num_classes"))
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == {
        key: tuple(shape) for key, shape, _ in golden["keys"]
    }
    net.load_state_dict(keyed_state_dict(name, net.state_dict()))
    assert sum(p.numel() for p in net.parameters()) == golden["n_params"]
    for case in golden["cases"]:
        inputs = net.prepare(keyed_video(case["input_tag"], case["input_shape"]))
        stages = {stage: rows for stage, rows in case["stages"].items() if not stage.startswith("none")}
        rows = net.read(inputs, stages)
        for stage, expected in stages.items():
            assert relative_error(rows[stage], expected) < 1e-5, (case["tag"], stage)
        if case.get("probs") is not None:
            assert relative_error(probabilities(net, inputs), case["probs"]) < 1e-5, case["tag"]
        if case.get("logits") is not None:
            assert relative_error(net.logit_map(inputs).reshape(-1), case["logits"].reshape(-1)) < 1e-5, case[
                "tag"
            ]
