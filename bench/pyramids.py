"""What stepping back through a class feature pyramid costs once the clip has gone through the network.

    python -m bench.pyramids [--rounds N]

For each network of the original, a clip of 16 x 224 x 224 and three levels. Floor: the same pyramid by the
slow recursion of the tests, one kernel and one channel at a time, path by path, after the same forward pass.
Ours pools kernels and scales the classifier's weights with the forward pass, since neither depends on the
class or on theta. Weights are drawn from names, since none of these networks comes with any; theta keeps as
many features of the class as the stored pyramids of the original have (``--features``). In brackets what the
authors publish, on two GTX 1080 Ti and for their own weights and theta.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from static_dynamic.analysis.explain.class_feature_pyramids import build_pyramid
from static_dynamic.analysis.explain.pyramid_rules import Corrected
from static_dynamic.models import build_model
from tests.analysis.explain import slow_pyramids
from tests.keyed import keyed_state_dict, keyed_video

SHAPE = (1, 3, 16, 224, 224)
DEPTH, LABEL = 3, 7
# network -> GFLOPs and back-step (ms) as published, wiring by hand
NETWORKS = {
    "cfp_mfnet": (22.70, 24.43, slow_pyramids.chain),
    "cfp_i3d": (55.79, 23.21, slow_pyramids.hassony_inception),
    "cfp_resnet50": (80.32, 21.39, slow_pyramids.chain),
    "cfp_resnet101": (110.98, 39.48, slow_pyramids.chain),
    "cfp_resnet152": (148.91, 31.06, slow_pyramids.chain),
    "cfp_resnext101": (76.96, 70.49, slow_pyramids.chain),
}
COLUMNS = ("network", "GFLOPs", "theta", "kernels", "forward s", "back-step ms", "recursion ms", "ratio")


def main() -> None:
    """Measure and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--features", type=int, default=12)
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {DEPTH} levels, median of {arguments.rounds} rounds")
    print_row(COLUMNS)
    for name, (gflops, published, wiring) in NETWORKS.items():
        operations, *rest = measure(name, wiring, arguments.rounds, arguments.features)
        theta, kernels, forward, spent, floor = rest
        print_row(
            (
                name,
                f"{operations:.2f} ({gflops:.2f})",
                f"{theta:.2f}",
                kernels,
                f"{forward:.1f}",
                f"{spent:.2f} ({published:.2f})",
                f"{floor:.0f}",
                f"{floor / spent:.0f}",
            )
        )


def print_row(cells) -> None:
    """Print one row of the table."""
    print("  ".join(f"{cell:>15}" for cell in cells), flush=True)


def measure(name: str, wiring, rounds: int, features: int) -> tuple[float, ...]:
    """GFLOPs, theta, kernels found, seconds of reading the clip, ms of stepping back and of the recursion."""
    net = build_model(name)
    net.load_state_dict(keyed_state_dict(name, net.state_dict()))
    clip = keyed_video(f"{name}|bench", SHAPE)
    begin = time.perf_counter()
    read = Corrected(net, clip, DEPTH)
    forward = time.perf_counter() - begin
    theta = float(np.sort(read.class_scores[:, LABEL])[-features])
    seen, hand = slow_pyramids.remember(net, clip), wiring(net)
    weight = net.get_submodule(read.path.classifier).weight
    begin = time.perf_counter()
    slow_pyramids.tree(net, seen, hand, weight, LABEL, theta, DEPTH)
    floor = 1e3 * (time.perf_counter() - begin)
    spent = []
    for _ in range(rounds):
        begin = time.perf_counter()
        pyramid = build_pyramid(read, LABEL, theta, DEPTH)
        spent.append(1e3 * (time.perf_counter() - begin))
    with FlopCounterMode(display=False) as counter:
        net.to("meta")(torch.empty(SHAPE, device="meta"))
    operations = counter.get_total_flops() / 1e9
    return operations, theta, len(pyramid.nodes) - 1, forward, statistics.median(spent), floor


if __name__ == "__main__":
    main()
