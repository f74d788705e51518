"""Measure the time of reading all stages, relative to reading the last stage and to a plain forward pass.

    python -m bench.stages [--model slowfast_r50_8x8] [--rounds N] [--units heads]

All stages, the last stage and a plain forward pass are timed in each round, in rotating order. Ratios of the
median times are printed.

With --units heads or neurons, passes that read these units are timed in turns with passes that read the
ordinary stages; all passes go on to the class scores. The median and the quartiles, over rounds, of the ratio
of CPU times are printed.
"""

import sys
from argparse import Namespace
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.meters import in_turns
from static_dynamic.command import Options, command
from static_dynamic.models import VideoNetwork, build_model


@command
def main() -> None:
    """Time forward passes that read one stage, all stages or none, and print the ratios."""
    parser = Options(__doc__)
    parser.add_argument("--model", default="slowfast_r50_8x8")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--units", choices=("heads", "neurons"))
    given = parser.parse_args()
    net = build_model(given.model)
    spec = net.input_spec
    inputs = net.example_input(torch.randn, given.batch)
    if given.units:
        return compare_units(net, build_model(given.model, units=given.units), inputs, given)
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


def compare_units(net: VideoNetwork, other: VideoNetwork, inputs: Any, given: Namespace) -> None:
    """Print the time of reading the units of `other`, relative to reading the stages of `net`."""
    reads = {
        name: partial(one.read, inputs, [*one.stages, "logits"])
        for name, one in (("stages", net), (given.units, other))
    }
    times = in_turns(reads, given.rounds)
    low, ratio, high = np.quantile(times[given.units][:, 1] / times["stages"][:, 1], (0.25, 0.5, 0.75))
    print(
        f"{given.model}, batch {given.batch}, {len(other.stages)} stages of {given.units}, "
        f"{given.rounds} rounds"
    )
    print(f"time of {given.units} / ordinary stages {ratio:.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    sys.exit(main())
