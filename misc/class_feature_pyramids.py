"""Class Feature Pyramids with the flags of the original program.

    python misc/class_feature_pyramids.py --num_classes 400 --model_weights mfnet.pth --model_name mfnet \\
        --frame_dir FRAMES --frames_start 1 --frames_end 17 --label 5 --threshold 0.6 --backprop_depth 3

FRAMES is a folder of images named as --fname_convention says, a folder with frames.db, or a video file;
frames_start and frames_end (not among them) are the numbers in those names, of a video file positions from 0.
All else is as with `python main.py task=saliency`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from static_dynamic.analysis.tasks import saliency
from static_dynamic.command import Options, command, positive
from static_dynamic.configs import CONFIG_DIR, rows
from static_dynamic.datasets.frames import FrameFolder, Frames, VideoFile, open_frames
from static_dynamic.errors import UserError, nearest


@command
def main() -> None:
    """Explain one clip."""
    parser = Options(__doc__)
    parser.add_argument("--model_name", default="i3d", help="resnet50, ..., or any row of configs/model")
    parser.add_argument("--num_classes", type=positive, default=400)
    parser.add_argument("--model_weights", required=True, help="a checkpoint, or pretrained")
    parser.add_argument("--frame_dir", type=Path, required=True)
    parser.add_argument("--frames_start", type=int)
    parser.add_argument("--frames_end", type=int)
    parser.add_argument("--fname_convention", default="frame_{:010d}.jpg")
    parser.add_argument("--label", help="number or name of the class; none: what the network says")
    parser.add_argument("--threshold", type=float, default=0.65)
    parser.add_argument("--backprop_depth", type=int, default=3)
    parser.add_argument("--visualisation_method", default="all", help="all, or topK_inL")
    parser.add_argument("--tubes_vis_method", help="without effect, as in the original")
    parser.add_argument("--base_output_dir", type=Path, default=Path("visualisations"))
    parser.add_argument("--only_dep_graph", action="store_true", help="no pictures")
    parser.add_argument("--rules", default="corrected", help="original: with its flaws")
    parser.add_argument("--device", help="cpu, cuda, or the number of a GPU")
    saliency.run(configuration(parser.parse_args()))


def configuration(given: argparse.Namespace) -> DictConfig:
    """The flags as the configuration of ``task=saliency``."""
    first, last = stretch(given)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("config", ["task=saliency", f"model={network(given.model_name)}"])
    values = {
        "checkpoint": given.model_weights,
        "device": given.device,
        "model": {"num_classes": given.num_classes},
        "cfp": {
            "rules": given.rules,
            "theta": given.threshold,
            "depth": given.backprop_depth,
            "select": given.visualisation_method,
        },
        "task": {
            "input": str(given.frame_dir),
            "outdir": str(given.base_output_dir),
            "label": given.label,
            "start": first,
            "end": last,
            "pictures": not given.only_dep_graph,
        },
    }
    return OmegaConf.merge(cfg, values)


def network(name: str) -> str:
    """The row of ``configs/model`` that one of the original's names means."""
    known = rows("model")
    if f"cfp_{name}" in known:
        return f"cfp_{name}"
    if name in known:
        return name
    raise UserError(f"unknown --model_name {name!r}{nearest(name, known)}")


def stretch(given: argparse.Namespace) -> tuple[int, int | None]:
    """Positions of the first frame and the one behind the last.

    Raises
    ------
    UserError
        Where a frame of those numbers is not there.
    """
    if not given.frame_dir.exists():
        raise UserError(f"--frame_dir {given.frame_dir} does not exist")
    frames = open_frames(given.frame_dir)
    first, last = given.frames_start, given.frames_end
    if isinstance(frames, VideoFile):
        return first or 0, last
    there = frame_keys(frames, given.fname_convention)
    if not there:
        raise UserError(
            f"{given.frame_dir} holds no frames named as --fname_convention {given.fname_convention}"
        )
    first = min(there) if first is None else first
    numbers = range(first, first + 1 if last is None else last)
    missing = next((number for number in numbers if number not in there), None)
    if missing is not None or not numbers:
        raise UserError(
            f"--frames_start {first} --frames_end {last}: {given.frame_dir} has frames "
            f"{min(there)} to {max(there)}" + ("" if missing is None else f", and no frame {missing}")
        )
    positions = [there[number] for number in numbers]
    if positions != list(range(positions[0], positions[0] + len(positions))):
        raise UserError(f"{given.frame_dir} holds other frames between {first} and {last}")
    return positions[0], None if last is None else positions[-1] + 1


def frame_keys(frames: Frames, convention: str) -> dict[int, int]:
    """Number in the name of each frame -> its position; of a folder those alone that keep to the
    convention."""
    numbered = enumerate(frames.numbers)
    if not isinstance(frames, FrameFolder):
        return {number: position for position, number in numbered}
    try:
        return {n: position for position, n in numbered if convention.format(n) == frames.names[position]}
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise UserError(
            f"--fname_convention {convention}: give a pattern such as frame_{{:010d}}.jpg"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
