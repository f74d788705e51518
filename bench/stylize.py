"""Measure the speed of stylization in frames per second, on frames of 340 x 256.

    python -m bench.stylize [--rounds N] [--device cpu]

Stylization reads JPEG frames, runs a generator of the shipped size and writes JPEG frames. It is compared
to (a) the published program's way, a loop over single images with a generator of the published size, and
(b) the bare network at its best batch size. All sides run in each round.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from static_dynamic.command import Options, command
from static_dynamic.datasets.frames import read_image
from static_dynamic.device import DEVICES, choose_device
from static_dynamic.stylize import build_generator
from static_dynamic.stylize.apply import make_style
from static_dynamic.stylize.checkpoints import save_generator
from static_dynamic.stylize.generate import generate
from static_dynamic.stylize.jobs import make_jobs
from static_dynamic.stylize.sequences import write_image
from static_dynamic.stylize.training_config import read_training_config

WIDTH, HEIGHT = 340, 256
BATCHES = {"cpu": (1, 4, 8), "cuda": (8, 16, 32, 64, 128)}
BARE = {"cpu": 8, "cuda": 1024}  # frames per round for the bare network
LOOP = {"cpu": 2, "cuda": 64}  # frames per round for the loop over single images


@command
def main() -> None:
    """Measure and print."""
    parser = Options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help=DEVICES)
    parser.add_argument("--workers", type=int, default=2, help="threads that decode, and as many that encode")
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--frames", type=int, default=32, help="frames per video")
    given = parser.parse_args()
    device = choose_device(given.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        styles = {}
        for config in ("light", "reference_P"):
            net = build_generator(**read_training_config(config).generator.args)
            save_generator(net, folder / f"{config}.safetensors")
            styles[config] = make_style({"checkpoint": folder / f"{config}.safetensors"}, device)
        rng = np.random.default_rng(0)
        for video in range(given.videos):
            (folder / "in" / str(video)).mkdir(parents=True)
            for i in range(given.frames):
                image = cv2.resize(rng.integers(0, 256, (16, 20, 3), np.uint8), (WIDTH, HEIGHT))
                write_image(folder / "in" / str(video) / f"{i:06d}.jpg", image)
        sources = sorted((folder / "in").rglob("*.jpg"))
        first = read_image(sources[0])

        def bare(size: int) -> float:
            batch = np.repeat(first[None], size, axis=0)
            begin = time.perf_counter()
            waits = [styles["light"](batch) for _ in range(max(1, BARE[device.type] // size))]
            [wait() for wait in waits]
            return size * len(waits) / (time.perf_counter() - begin)

        def loop(config: str, count: int) -> float:
            begin = time.perf_counter()
            for path in sources[:count]:
                image = styles[config](np.array(read_image(path))[None])()[0]
                write_image(folder / "loop" / f"{path.stem}.png", image)
            return count / (time.perf_counter() - begin)

        def pipeline(size: int, run: int) -> float:
            jobs = make_jobs(folder / "in", folder / f"out{run}", naming="%06d.jpg")
            begin = time.perf_counter()
            generate(jobs, styles["light"], batch_size=size, workers=given.workers)
            return len(sources) / (time.perf_counter() - begin)

        best = max(BATCHES[device.type], key=bare)
        loop("reference_P", 1)
        spent = {"pipeline": 0.0, "bare": 0.0, "reference": 0.0, "light": 0.0}
        for run in range(given.rounds):
            spent["pipeline"] += 1 / pipeline(best, run)
            spent["bare"] += 1 / bare(best)
            spent["reference"] += 1 / loop("reference_P", LOOP[device.type])
            spent["light"] += 1 / loop("light", 4 * LOOP[device.type])
    rates = {name: given.rounds / seconds for name, seconds in spent.items()}
    gain, efficiency = (rates["pipeline"] / rates[other] for other in ("reference", "bare"))
    lines = {
        "stylization, shipped size": f"{rates['pipeline']:8.2f}",
        "bare network, shipped size": f"{rates['bare']:8.2f}",
        "single images, published size": f"{rates['reference']:8.2f}",
        "single images, shipped size": f"{rates['light']:8.2f}",
        "(a) stylization / published way": f"{gain:8.2f}   (bound 2)",
        "(b) stylization / bare network": f"{efficiency:8.2f}   (GPU: bound 0.9)",
    }
    threads = torch.get_num_threads()
    print(f"{WIDTH}x{HEIGHT}, {given.device}, {threads} threads, batch size {best}, frames/s:")
    for name, value in lines.items():
        print(f"{name:<40}{value}")


if __name__ == "__main__":
    sys.exit(main())
