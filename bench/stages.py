"""Measure the time of reading all stages, relative to reading the last stage and to a plain forward pass.

    python -m bench.stages [--model slowfast_r50_8x8] [--rounds N]

All stages, the last stage and a plain forward pass are timed in each round, in rotating order. Ratios of the
median times are printed.
"""

import sys

import numpy as np
import torch

from bench.meters import in_turns
from static_dynamic.command import Options, command
from static_dynamic.models import build_model


@command
def main() -> None:
    """Time forward passes that read one stage, all stages or none, and print the ratios."""
    parser = Options(__doc__)
    parser.add_argument("--model", default="slowfast_r50_8x8")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    given = parser.parse_args()
    net = build_model(given.model)
    spec = net.input_spec
    inputs = net.example_input(torch.randn, given.batch)
    last = net.stage_name(None, {"path": "cat"})
    reads = {
        "plain forward": lambda: net.read(inputs, ["logits"]),
        "last stage": lambda: net.read(inputs, [last]),
        "all stages": lambda: net.read(inputs),
    }
    medians = {name: np.median(times[:, 0]) for name, times in in_turns(reads, given.rounds).items()}
    clip = " x ".join(map(str, (spec.frames, *spec.shape)))
    print(f"{given.model}, {clip}, batch {given.batch}, {len(net.stages)} stages, {given.rounds} rounds")
    for name in ("last stage", "plain forward"):
        print(f"time of all stages / {name:<14}{medians['all stages'] / medians[name]:.3f}")


if __name__ == "__main__":
    sys.exit(main())
