"""What extraction holds in memory, for few clips and for many: it should not depend on how many there are.

    python -m bench.memory [--clips 50]

A network of five stages of 2,048 units that costs next to nothing reads frames that are in memory, so that
what grows with the number of clips is all that is seen. Each size has a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.__main__ import new_store, peak_of
from bench.videos import STYLES, WARM, WarmClips
from static_dynamic.analysis.run.extraction import extract
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import Clip, make_views
from static_dynamic.models import InputSpec, Stage, Tap, VideoNetwork

UNITS, SIDE, FRAMES = 2048, 32, 16


class Wide(VideoNetwork):
    """Five stages of many units, all means of the input's pixels."""

    stages = {f"stage{k}": Stage(UNITS, (Tap(f"units.{k}"),)) for k in range(5)}
    input_spec = InputSpec(8, 2, SIDE, SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)

    def __init__(self):
        super().__init__()
        self.units = nn.ModuleList(nn.Identity() for _ in self.stages)

    def forward(self, x):
        means = x.mean(dim=(1, 2, 3, 4))[:, None, None, None, None].expand(-1, UNITS, 1, 1, 1)
        for unit in self.units:
            means = unit(means)
        return means.flatten(1)


def measure(clips: int, answer) -> None:
    """Send the GiB that were held at most, and the GiB that were written."""
    listed = tuple(Clip(f"c{i:06d}", "video", 0, FRAMES, cluster=f"c{i:06d}") for i in range(clips))
    WARM["video"] = np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
    views, pairs = make_views(listed, STYLES, {"rgb": 8}, n_sample_frames=FRAMES)
    source = WarmClips("warm", Path(), STYLES, listed)
    net = Wide().eval()
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        store: Store = new_store(folder, net, views, pairs)
        with peak_of(cpu) as peak:
            extract(net, source, views, store, device=cpu, batch_size=8, num_workers=1)
        answer.send((peak[0], sum(store.activations(stage).nbytes for stage in store.stages) / 2**30))


def main() -> None:
    """Measure two sizes and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=50)
    few = parser.parse_args().clips
    processes = multiprocessing.get_context("spawn")
    for clips in (few, 16 * few):
        ours, theirs = processes.Pipe()
        process = processes.Process(target=measure, args=(clips, theirs))
        process.start()
        held, written = ours.recv()
        process.join()
        print(f"{clips:6d} clips: {held:.3f} GiB held, {written:.3f} GiB of activations written")


if __name__ == "__main__":
    main()
