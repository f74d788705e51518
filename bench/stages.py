"""What reading every stage costs beside reading the last one, and beside a plain forward pass.

    python -m bench.stages [--model slowfast_r50_8x8] [--rounds N]

Floor: one forward pass. The three take turns, in another order each round; ratios are those of medians.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from static_dynamic.models import build_model


def main() -> None:
    """Measure and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
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
    seconds = {name: [] for name in reads}
    for round_ in range(arguments.rounds + 1):
        names = list(reads)
        for name in names[round_ % 3 :] + names[: round_ % 3]:
            begin = time.perf_counter()
            reads[name]()
            seconds[name].append(time.perf_counter() - begin)
    spent = {name: median(times[1:]) for name, times in seconds.items()}  # the first round warms up
    clip = " x ".join(map(str, (spec.frames, *spec.shape)))
    print(
        f"{arguments.model}, {clip}, batch {arguments.batch}, "
        f"{len(net.stages)} stages, {arguments.rounds} rounds"
    )
    for name in ("last stage", "plain forward"):
        print(f"all stages over {name:<14}{spent['all stages'] / spent[name]:.3f}")


if __name__ == "__main__":
    main()
