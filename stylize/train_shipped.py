"""Train the four styles that are shipped in ``stylize/styles``.

    python -m stylize.train_shipped [--styles watercolour ...] [--steps N]

Key frames: the middle frames of shots of the films that the embedded data set fetches, rendered in the
built-in styles. Everything follows from the seed; another number of threads or another version of torch
rounds differently. A style that was stopped goes on; one that is there is kept until its file is deleted.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from static_dynamic import configs
from static_dynamic.assets import cache_dir, fetch
from static_dynamic.command import Options, command
from static_dynamic.datasets.frames import open_frames
from static_dynamic.datasets.shots import find_shots
from static_dynamic.stylize.checkpoints import load_generator, save_generator
from static_dynamic.stylize.embedded import scale
from static_dynamic.stylize.exemplars import render
from static_dynamic.stylize.patches import to_tensor
from static_dynamic.stylize.pictures import contact_sheet, run_once, write_image
from static_dynamic.stylize.train import Plan, train
from static_dynamic.stylize.training_config import read_recipe

FOLDER = Path(__file__).parent / "styles"
# name -> its row in configs/style/builtin.yaml
STYLES = {"watercolour": 1, "charcoal": 2, "neon": 3, "screenprint": 4}
SOURCES = {"bigbuckbunny": 3, "carphone": 2, "bikes": 3, "transnet_test": 6}  # asset -> key frames
UNSEEN = {"bigbuckbunny": 4}  # frames of the sheet, between the key frames; a film that may be shown
STEPS, SEED = 3000, 1


def key_frames(assets: dict[str, int], place: float = 0.5) -> list[NDArray[np.uint8]]:
    """Frames at one place of each shot (0 its start, 1 its end), of shots spread over each film, as the
    embedded data set crops and scales them."""
    dataset, frames = configs.row("dataset", "embedded"), []
    crops = {source.asset: source.crop for source in dataset.sources}
    for asset, count in assets.items():
        path = fetch(asset)
        shots = find_shots(path)
        # a film of few shots is cut into pieces in place of them
        pieces = [
            (a + (b - a) * i // count, a + (b - a) * (i + 1) // count)
            for a, b in shots
            for i in range(count if len(shots) < count else 1)
        ]
        chosen = np.linspace(0, len(pieces) - 1, count).round().astype(int)
        wanted = [round(a + place * (b - 1 - a)) for a, b in (pieces[i] for i in chosen)]
        pictures = open_frames(path).read(wanted)
        left, top, width, height = crops[asset] or (0, 0, *pictures.shape[2:0:-1])
        pictures = pictures[:, top : top + height, left : left + width]
        frames += [scale(picture, dataset.short_side) for picture in pictures]
    return frames


def train_style(name: str, row: dict, steps: int) -> None:
    """Train one style from rendered key frames into ``stylize/styles``."""
    log_folder = cache_dir() / "styles" / f"{name}-{steps}"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / name
        for i, frame in enumerate(key_frames(SOURCES)):
            write_image(root / "input" / f"{i:03d}.png", frame)
            write_image(root / "output" / f"{i:03d}.png", render(frame, row))
        plan = Plan(
            recipe=read_recipe("light"),
            data_root=root,
            log_folder=log_folder,
            log_interval=steps,
            steps=steps,
            seed=SEED,
        )
        generator = train(plan)
    save_generator(generator, FOLDER / f"{name}.safetensors", half=True)
    rows = [
        [frame, run_once(generator, to_tensor(frame)), render(frame, row)]
        for frame in key_frames(UNSEEN, place=0.2)
    ]
    write_image(log_folder / "unseen.png", contact_sheet(rows))


def write_sheet() -> None:
    """Show the styles that are there on frames that none was trained on."""
    files = [path for name in STYLES if (path := FOLDER / f"{name}.safetensors").exists()]
    generators = [load_generator(path) for path in files]
    rows = [
        [frame, *(run_once(generator, to_tensor(frame)) for generator in generators)]
        for frame in key_frames(UNSEEN, place=0.2)
    ]
    write_image(FOLDER / "sheet.jpg", contact_sheet(rows, height=128))


@command
def main() -> None:
    """Train what is not there yet."""
    parser = Options(__doc__, prog="python -m stylize.train_shipped")
    parser.add_argument("--styles", nargs="+", choices=list(STYLES), default=list(STYLES))
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    rows = configs.row("style", "builtin").styles
    for name in given.styles:
        if not (FOLDER / f"{name}.safetensors").exists():
            train_style(name, dict(rows[STYLES[name]]), given.steps)
    write_sheet()


if __name__ == "__main__":
    sys.exit(main())
