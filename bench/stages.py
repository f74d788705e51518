"""Measure the time of reading all stages, relative to reading the last stage and to a plain forward pass.

    python -m bench.stages [--model slowfast_r50_8x8] [--rounds N] [--units heads]

All stages, the last stage and a plain forward pass are timed in each round, in rotating order. Ratios of the
median times are printed.

With --units heads or neurons, passes that read these units are timed in turns with passes that read the
ordinary stages; all passes go on to the class scores. The median and the quartiles, over rounds, of the ratio
of CPU times are printed. --model bench.stages.Encoder is a network of PyTorch's own encoder layers.
"""

import sys
from argparse import Namespace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.meters import in_turns
from static_dynamic.command import Options, command
from static_dynamic.models import VideoNetwork, build_model

# Input of a network that is given by the import path of its class.
INPUT = {"frames": 8, "sampling_rate": 1, "size": 224, "crop": 224, "mean": [0.5] * 3, "std": [0.25] * 3}


@command
def main() -> None:
    """Time forward passes that read one stage, all stages or none, and print the ratios."""
    parser = Options(__doc__)
    parser.add_argument("--model", default="slowfast_r50_8x8")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--units", choices=("heads", "neurons"))
    given = parser.parse_args()
    net = build(given.model)
    spec = net.input_spec
    inputs = net.example_input(torch.randn, given.batch)
    if given.units:
        return compare_units(net, build(given.model, units=given.units), inputs, given)
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


class Encoder(nn.Module):
    """Tubelets of 2 x 16 x 16, then six encoder layers of PyTorch with fused attention, and a classifier."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv3d(3, 384, (2, 16, 16), (2, 16, 16))
        layers = (nn.TransformerEncoderLayer(384, 6, 1536, batch_first=True) for _ in range(6))
        self.blocks = nn.ModuleList(layers)
        self.head = nn.Linear(384, 400)

    def forward(self, x: Tensor) -> Tensor:
        """Map a clip (B, 3, T, H, W) to logits (B, 400)."""
        x = self.patches(x).flatten(2).mT  # (B, N, 384)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=1))


def build(name: str, **options: Any) -> VideoNetwork:
    """Build a network with random weights by its name, or by the import path of its class."""
    if "." in name:
        return build_model("custom", network=name, input=INPUT, **options)
    return build_model(name, **options)


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
