"""Stored class feature pyramids of the original: graphs of networks with keyed weights, single steps."""

import json
import zlib

import torch

from static_dynamic.models import build_model
from tests.keyed import keyed_state_dict, keyed_video
from tests.paths import GOLDEN


def unpacked(stored):
    return json.loads(zlib.decompress(bytes(stored.tolist())))


def golden_graph(name, **options):
    """Return the stored results of one network, the network and its input."""
    golden = torch.load(GOLDEN / f"cfp_graph_{name}.pt", weights_only=True)
    golden |= {key: unpacked(golden[key]) for key in ("graphs", "kernels")}
    weights = golden["weights_name"]
    net = build_model(weights, num_classes=golden["num_classes"], **(options if weights == "cfp_i3d" else {}))
    net.load_state_dict(keyed_state_dict(weights, net.state_dict()))
    return golden, net, keyed_video(golden["input_tag"], golden["input_shape"])


def golden_steps():
    """Return the stored single steps, and one graph at several depths, with their tensors."""
    golden = torch.load(GOLDEN / "cfp_backstep_cases.pt", weights_only=True)
    cases, graph = unpacked(golden["cases"]), unpacked(golden["graph"])
    rest = golden["values"]

    def take(shape):
        nonlocal rest
        count = torch.Size(shape).numel()
        taken, rest = rest[:count].view(shape), rest[count:]
        return taken

    for case in cases:
        case["kernels"] = [take(shape) for shape in case["kernels"]]
        case["activation"] = take(case["activation"])
    graph["kernels"] = [[take(shape) for shape in entry] for entry in graph["kernels"]]
    graph["activations"] = [take(shape) for shape in graph["activations"]]
    return cases, graph
