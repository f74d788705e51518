"""Train the four style generators that are part of this project (folder ``stylize/styles``).

    python -m stylize.train_shipped [--styles watercolour ...] [--steps N]

The key frames are the middle frames of shots of the built-in data set's films, rendered in the built-in
styles. The result depends on the seed only, apart from rounding errors, which depend on the number of threads
and the version of torch. An interrupted training resumes. A style whose file exists is not trained again.
"""

import sys
import tempfile
from pathlib import Path

from static_dynamic import configs
from static_dynamic.assets import cache_dir, fetch
from static_dynamic.command import Options, command
from static_dynamic.datasets.frames import open_frames
from static_dynamic.datasets.shots import find_shots
from static_dynamic.spacing import evenly_spaced
from static_dynamic.stylize.checkpoints import load_generator, save_generator
from static_dynamic.stylize.embedded import crop_and_scale
from static_dynamic.stylize.exemplars import render
from static_dynamic.stylize.flow import Frame
from static_dynamic.stylize.pictures import contact_sheet, run_once, to_tensor
from static_dynamic.stylize.sequences import write_image
from static_dynamic.stylize.train import Plan, train
from static_dynamic.stylize.training_config import read_training_config

FOLDER = Path(__file__).parent / "styles"
# STYLES: trained style -> id of the image filter (configs/style/builtin.yaml) that the generator imitates.
STYLES = {"watercolour": 1, "charcoal": 2, "neon": 3, "screenprint": 4}
# SOURCES: film -> number of key frames.
SOURCES = {"bigbuckbunny": 3, "carphone": 2, "bikes": 3, "transnet_test": 6}
# UNSEEN: film whose licence allows publication -> number of frames on the contact sheet.
UNSEEN = {"bigbuckbunny": 4}
STEPS, SEED = 3000, 1


def key_frames(assets: dict[str, int], place: float = 0.5) -> list[Frame]:
    """Read one frame per shot, from evenly spaced shots of each film; crop and scale the frames.

    `assets` maps the name of a film to the number of its frames. `place` is the position of a frame in its
    shot: 0 is the start, 1 the end.
    """
    dataset = configs.row("dataset", "embedded")
    frames: list[Frame] = []
    crops = {source.asset: source.crop for source in dataset.sources}
    for asset, count in assets.items():
        path = fetch(asset)
        shots = find_shots(path)
        # If a film has fewer than `count` shots, each shot is cut into `count` pieces.
        pieces = [
            (a + (b - a) * i // count, a + (b - a) * (i + 1) // count)
            for a, b in shots
            for i in range(count if len(shots) < count else 1)
        ]
        chosen = [pieces[i] for i in evenly_spaced(count, len(pieces))]
        wanted = [round(a + place * (b - 1 - a)) for a, b in chosen]
        frames += crop_and_scale(open_frames(path).read(wanted), crops[asset], dataset.short_side)
    return frames


def train_style(name: str, row: dict, steps: int) -> None:
    """Train one generator on key frames made by an image filter; save the generator in ``stylize/styles``."""
    log_folder = cache_dir() / "styles" / f"{name}-{steps}"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / name
        for i, frame in enumerate(key_frames(SOURCES)):
            write_image(root / "input" / f"{i:03d}.png", frame)
            write_image(root / "output" / f"{i:03d}.png", render(frame, row))
        config = read_training_config("light")
        generator = train(Plan(config, root, log_folder, log_interval=steps, steps=steps, seed=SEED))
    save_generator(generator, FOLDER / f"{name}.safetensors", half=True)
    frames = key_frames(UNSEEN, place=0.2)
    rows = [[frame, run_once(generator, to_tensor(frame)), render(frame, row)] for frame in frames]
    write_image(log_folder / "unseen.png", contact_sheet(rows))


def write_sheet() -> None:
    """Draw the contact sheet: frames that were not used for training, in each trained style."""
    files = [path for name in STYLES if (path := FOLDER / f"{name}.safetensors").exists()]
    generators = [load_generator(path) for path in files]
    rows = [
        [frame, *(run_once(generator, to_tensor(frame)) for generator in generators)]
        for frame in key_frames(UNSEEN, place=0.2)
    ]
    write_image(FOLDER / "sheet.jpg", contact_sheet(rows, height=128))


@command
def main() -> None:
    """Train the styles whose files do not exist, and draw the contact sheet."""
    parser = Options(__doc__, prog="python -m stylize.train_shipped")
    names = list(STYLES)
    parser.add_argument(
        "--styles", nargs="+", choices=names, default=names, help="styles to train (default: all)"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps (default: %(default)s)")
    given = parser.parse_args()
    rows = configs.row("style", "builtin").styles
    for name in given.styles:
        if not (FOLDER / f"{name}.safetensors").exists():
            train_style(name, dict(rows[STYLES[name]]), given.steps)
    write_sheet()


if __name__ == "__main__":
    sys.exit(main())
