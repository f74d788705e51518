"""Measure how well a style that is trained on a few key frames reproduces the artist's held-out frames.

    python -m bench.fewshot DATA [--minutes 12] [--config small] [--held 050 250] [--log_folder DIR]

``DATA`` holds the folders ``input``, ``output`` and ``mask`` with images of the same stems. A style is
trained on all frames except the held-out ones. For the held-out frames the mean absolute error (of 255) to
the artist's frame is printed, for the input and for the stylized input, over the whole frame and within the
mask.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from static_dynamic.command import Options, command
from static_dynamic.datasets.frames import FrameFolder
from static_dynamic.stylize.patches import load_key_frames
from static_dynamic.stylize.pictures import contact_sheet, run_once, to_image
from static_dynamic.stylize.sequences import write_image
from static_dynamic.stylize.train import Plan, train
from static_dynamic.stylize.training_config import read_training_config

FOLDERS = ("input", "output", "mask")


@command
def main() -> None:
    """Train a style on all but the held-out frames, and print the errors of the held-out frames."""
    parser = Options(__doc__)
    parser.add_argument("data", type=Path, help="folder with input, output and mask")
    parser.add_argument("--minutes", type=float, default=12, help="training time")
    parser.add_argument("--config", default="small", help="training configuration")
    parser.add_argument("--held", nargs="+", default=["050", "250"], help="stems of the held-out frames")
    parser.add_argument("--log_folder", type=Path, help="keep the files of the training in this folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "pairs_train"
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True)
            for name in FrameFolder(given.data / folder).names:
                if Path(name).stem not in given.held:
                    shutil.copyfile(given.data / folder / name, root / folder / name)
        config, log = read_training_config(given.config), given.log_folder or Path(temporary) / "log"
        generator = train(Plan(config=config, data_root=root, log_folder=log, minutes=given.minutes))
    frames = load_key_frames(*(given.data / folder for folder in FOLDERS), guides=[])
    measured, rows = [], []
    for frame in frames:
        if frame.name not in given.held:
            continue
        shown = [to_image(frame.pre), run_once(generator, frame.pre), to_image(frame.post)]
        before, after = (np.abs(image.astype(float) - shown[2]).mean(-1) for image in shown[:2])
        inside = frame.mask[0].numpy() > 0
        measured.append([before.mean(), after.mean(), before[inside].mean(), after[inside].mean()])
        rows.append(shown)
    if given.log_folder:
        write_image(given.log_folder / "held_out.png", contact_sheet(rows))
    pairs, threads = len(frames) - len(rows), torch.get_num_threads()
    setting = f"{given.minutes:g} minutes, config={given.config}, {threads} threads"
    print(f"{pairs} pairs, {len(rows)} held out, {setting}")
    # `errors` has the rows whole frame and mask, and the columns unstylized input and stylized input.
    errors = np.mean(measured, axis=0).reshape(2, 2)
    for name, (was, became) in zip(("whole frame", "within mask"), errors, strict=True):
        change = f"{was:6.2f} -> {became:6.2f}   reduced by {1 - became / was:.1%}"
        print(f"{name}   error {change}   (bound 40 %)")


if __name__ == "__main__":
    sys.exit(main())
