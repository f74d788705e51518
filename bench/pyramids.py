"""Measure the time of the backward step of Class Feature Pyramids, which follows the forward pass.

    python -m bench.pyramids [--rounds N]

Each network of the paper computes a pyramid with three levels for a clip of 16 x 224 x 224. The baseline is
the recursive implementation in the tests, which visits one kernel and one channel at a time after the same
forward pass. This project pools kernels and scales the classifier's weights in the forward pass already,
because these results depend on neither class nor theta.

No trained weights of these networks are published; the weights here are generated from the names of the
layers. Theta is chosen so that ``--features`` class features are selected, as in the reference pyramids.
Values in brackets are Stergiou et al.'s, for their own weights and theta on two GTX 1080 Ti.
"""

import sys
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.meters import in_turns
from static_dynamic.analysis.explain.class_feature_pyramids import build_pyramid
from static_dynamic.analysis.explain.pyramid_rules import Corrected
from static_dynamic.command import Options, command
from static_dynamic.models import build_model
from tests.analysis.explain import slow_pyramids
from tests.keyed import keyed_state_dict, keyed_video

SHAPE = (1, 3, 16, 224, 224)
DEPTH, LABEL = 3, 7
# network: (published GFLOPs, published time of the backward step in ms, layer graph for the slow baseline)
NETWORKS = {
    "cfp_mfnet": (22.70, 24.43, slow_pyramids.chain),
    "cfp_i3d": (55.79, 23.21, slow_pyramids.hassony_inception),
    "cfp_resnet50": (80.32, 21.39, slow_pyramids.chain),
    "cfp_resnet101": (110.98, 39.48, slow_pyramids.chain),
    "cfp_resnet152": (148.91, 31.06, slow_pyramids.chain),
    "cfp_resnext101": (76.96, 70.49, slow_pyramids.chain),
}
COLUMNS = ("network", "GFLOPs", "theta", "kernels", "forward s", "backward ms", "recursion ms", "ratio")


@command
def main() -> None:
    """Time the backward step for each network of the paper and print one table row per network."""
    parser = Options(__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="repetitions")
    parser.add_argument("--features", type=int, default=12, help="class features")
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {DEPTH} levels, median of {given.rounds} rounds")
    print_row(COLUMNS)
    for name, (gflops, published, wiring) in NETWORKS.items():
        found = measure(name, wiring, given.rounds, given.features)
        operations, theta, kernels, forward, spent, recursion = found
        whole = (f"{operations:.2f} ({gflops:.2f})", f"{theta:.2f}", kernels, f"{forward:.1f}")
        step = (f"{spent:.2f} ({published:.2f})", f"{recursion:.0f}", f"{recursion / spent:.0f}")
        print_row((name, *whole, *step))


def print_row(cells) -> None:
    """Print one table row with columns of equal width."""
    print("  ".join(f"{cell:>15}" for cell in cells), flush=True)


def measure(name: str, wiring, rounds: int, features: int) -> tuple[float, ...]:
    """Return GFLOPs, theta, number of kernels, forward time (s), backward time and recursion time (ms)."""
    net = build_model(name)
    net.load_state_dict(keyed_state_dict(name, net.state_dict()))
    clip = keyed_video(f"{name}|bench", SHAPE)
    begin = time.perf_counter()
    read = Corrected(net, clip, DEPTH)
    forward = time.perf_counter() - begin
    theta = float(np.sort(read.class_scores[:, LABEL])[-features])
    layers, graph = slow_pyramids.remember(net, clip), wiring(net)
    weight = net.get_submodule(read.path.classifier).weight
    begin = time.perf_counter()
    slow_pyramids.tree(net, layers, graph, weight, LABEL, theta, DEPTH)
    recursion = 1e3 * (time.perf_counter() - begin)
    pyramid = build_pyramid(read, LABEL, theta, DEPTH)
    times = in_turns({"backward": lambda: build_pyramid(read, LABEL, theta, DEPTH)}, rounds)["backward"]
    with FlopCounterMode(display=False) as counter:
        net.to("meta")(torch.empty(SHAPE, device="meta"))
    operations, spent = counter.get_total_flops() / 1e9, 1e3 * np.median(times[:, 0])
    return operations, theta, len(pyramid.nodes) - 1, forward, spent, recursion


if __name__ == "__main__":
    sys.exit(main())
