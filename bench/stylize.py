"""Measure the speed of stylization in frames per second, on frames of 340 x 256.

    python -m bench.stylize [--rounds N] [--device cpu]

Stylization reads JPEG frames, runs a generator of the shipped size and writes JPEG frames. Baselines are (a)
a loop over single images with a generator of the published size, as in Texler et al.'s code, and (b) the bare
network at its best batch size. Stylization and baselines run in each round.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from bench.meters import in_turns
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
BARE = {"cpu": 8, "cuda": 1024}  # frames per round
LOOP = {"cpu": 2, "cuda": 64}  # frames per round


@command
def main() -> None:
    """Time stylization and its two baselines, and print frames per second and ratios."""
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

        def bare(size: int) -> None:
            waits = [styles["light"](batch) for batch in np.array_split(frames, len(frames) // size)]
            [wait() for wait in waits]

        def loop(config: str, count: int) -> None:
            for path in sources[:count]:
                image = styles[config](np.array(read_image(path))[None])()[0]
                write_image(folder / "loop" / f"{path.stem}.png", image)

        def pipeline(size: int) -> None:
            jobs = make_jobs(folder / "in", Path(tempfile.mkdtemp(dir=folder)) / "out", naming="%06d.jpg")
            generate(jobs, styles["light"], batch_size=size, workers=given.workers)

        frames = np.repeat(read_image(sources[0])[None], BARE[device.type], axis=0)
        sizes = in_turns({size: partial(bare, size) for size in BATCHES[device.type]}, 1)
        best = min(sizes, key=lambda size: sizes[size][0, 0])
        count = LOOP[device.type]
        cases = {
            "pipeline": (partial(pipeline, best), len(sources)),
            "bare": (partial(bare, best), len(frames)),
            "reference": (partial(loop, "reference_P", count), count),
            "light": (partial(loop, "light", 4 * count), 4 * count),
        }
        times = in_turns({name: work for name, (work, _) in cases.items()}, given.rounds)
    rates = {name: given.rounds * cases[name][1] / times[name][:, 0].sum() for name in cases}
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
