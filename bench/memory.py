"""Measure how much the peak memory of extraction grows with the number of clips.

    python -m bench.memory [--clips 50]

A trivial network with five stages of 2,048 units reads frames that are already in memory, so that any
growth comes from extraction. Each number of clips is measured in a separate process.
"""

import multiprocessing
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.inputs import CACHE, STYLES, CachedClips, new_store, stages_of
from bench.meters import peak_memory
from static_dynamic.analysis.run.extraction import extract
from static_dynamic.command import Options, command
from static_dynamic.datasets import Clip, make_views
from static_dynamic.models import InputSpec, Stage, Tap, VideoNetwork

UNITS, SIDE, FRAMES = 2048, 32, 16


class Wide(VideoNetwork):
    """Network with five stages of `UNITS` units each; every activation is the mean of the input pixels."""

    stages = {f"stage{k}": Stage(UNITS, (Tap(f"units.{k}"),)) for k in range(5)}
    input_spec = InputSpec(8, 2, SIDE, SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)

    def __init__(self):
        super().__init__()
        self.units = nn.ModuleList(nn.Identity() for _ in self.stages)

    def forward(self, x):
        """Map clips (batch, 3, frames, height, width) to activations (batch, UNITS)."""
        means = x.mean(dim=(1, 2, 3, 4))[:, None, None, None, None].expand(-1, UNITS, 1, 1, 1)
        for unit in self.units:
            means = unit(means)
        return means.flatten(1)


def measure(clips: int, answer) -> None:
    """Extract activations of `clips` clips; send peak memory and activation size (GiB) to pipe `answer`."""
    listed = tuple(Clip(f"c{i:06d}", "video", 0, FRAMES, cluster=f"c{i:06d}") for i in range(clips))
    CACHE["video"] = np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
    views, pairs = make_views(listed, STYLES, {"rgb": 8}, n_sample_frames=FRAMES)
    source = CachedClips("cached", Path(), STYLES, listed)
    net = Wide().eval()
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        store = new_store(folder, stages_of(net), views, pairs)
        with peak_memory(cpu) as peak:
            extract(net, source, views, store, device=cpu, batch_size=8, num_workers=1)
        answer.send((peak[0], sum(store.activations(stage).nbytes for stage in store.stages) / 2**30))


@command
def main() -> None:
    """Print the peak memory of extraction for few clips and for 16 times as many clips."""
    parser = Options(__doc__)
    parser.add_argument("--clips", type=int, default=50, help="clips of the small run (large run: 16 times)")
    few = parser.parse_args().clips
    context = multiprocessing.get_context("spawn")
    for clips in (few, 16 * few):
        ours, theirs = context.Pipe()
        process = context.Process(target=measure, args=(clips, theirs))
        process.start()
        held, written = ours.recv()
        process.join()
        print(f"{clips:6d} clips: peak memory {held:.3f} GiB, {written:.3f} GiB of activations written")


if __name__ == "__main__":
    sys.exit(main())
