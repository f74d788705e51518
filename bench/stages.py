"""Measure the cost of reading all stages of a network, relative to the last stage and to a forward pass.

    python -m bench.stages [--model slowfast_r50_8x8] [--rounds N]

The three cases run in each round, in rotating order. Ratios of their median times are printed.
"""

from __future__ import annotations

import sys
import time
from statistics import median

import torch

from static_dynamic.command import Options, command
from static_dynamic.models import build_model


@command
def main() -> None:
    """Measure and print."""
    parser = Options(__doc__)
    parser.add_argument("--model", default="slowfast_r50_8x8")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    arguments = parser.parse_args()
    net = build_model(arguments.model)
    spec = net.input_spec
    inputs = net.example_input(torch.randn, arguments.batch)
    last = net.stage_name(None, {"path": "cat"})
    reads = {
        "plain forward": lambda: net.read(inputs, ["logits"]),
        "last stage": lambda: net.read(inputs, [last]),
        "all stages": lambda: net.read(inputs),
    }
    seconds: dict[str, list[float]] = {name: [] for name in reads}
    for round_ in range(arguments.rounds + 1):
        names = list(reads)
        for name in names[round_ % 3 :] + names[: round_ % 3]:
            begin = time.perf_counter()
            reads[name]()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: median(times[1:]) for name, times in seconds.items()}  # without the warm-up round
    clip = " x ".join(map(str, (spec.frames, *spec.shape)))
    print(
        f"{arguments.model}, {clip}, batch {arguments.batch}, "
        f"{len(net.stages)} stages, {arguments.rounds} rounds"
    )
    for name in ("last stage", "plain forward"):
        print(f"time of all stages / {name:<14}{medians['all stages'] / medians[name]:.3f}")


if __name__ == "__main__":
    sys.exit(main())
