"""How near a style trained on a few real key frames comes to an artist's frames that it never saw.

    python -m bench.fewshot DATA [--minutes 12] [--config small] [--held 050 250] [--log_folder DIR]

``DATA`` holds ``input``, ``output`` and ``mask`` with images of the same stems. All but the held-out ones are
trained on;
on those the mean absolute difference from the artist's frame is printed, of the untouched input and of
the stylized input: over the whole frame, and within the mask.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from static_dynamic.datasets.frames import FrameFolder
from static_dynamic.stylize.patches import load_key_frames, to_image
from static_dynamic.stylize.pictures import contact_sheet, run_once
from static_dynamic.stylize.sequences import write_image
from static_dynamic.stylize.train import Plan, train
from static_dynamic.stylize.training_config import read_training_config

FOLDERS = ("input", "output", "mask")


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--config", default="small")
    parser.add_argument("--held", nargs="+", default=["050", "250"], help="stems of the held-out frames")
    parser.add_argument("--log_folder", type=Path, help="keep the training here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "pairs_train"
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True)
            for name in FrameFolder(given.data / folder).names:
                if Path(name).stem not in given.held:
                    shutil.copyfile(given.data / folder / name, root / folder / name)
        generator = train(
            Plan(
                config=read_training_config(given.config),
                data_root=root,
                log_folder=given.log_folder or Path(temporary) / "log",
                minutes=given.minutes,
            )
        )
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
    print(
        f"{len(frames) - len(rows)} pairs, {len(rows)} held out, {given.minutes:g} minutes, "
        f"config={given.config}, {torch.get_num_threads()} threads"
    )
    whole_before, whole_after, before, after = np.mean(measured, axis=0)
    for name, was, became in (
        ("whole frame", whole_before, whole_after),
        ("within mask", before, after),
    ):
        print(f"{name}   L1 {was:6.2f} -> {became:6.2f}   lowered by {1 - became / was:.1%}   (bound 40 %)")


if __name__ == "__main__":
    main()
