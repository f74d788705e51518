"""Compute the Class Feature Pyramid of one clip, with the flags of Stergiou et al.'s code.

    python misc/class_feature_pyramids.py --num_classes 400 --model_weights mfnet.pth --model_name mfnet \\
        --frame_dir FRAMES --frames_start 1 --frames_end 17 --label 5 --threshold 0.6 --backprop_depth 3

FRAMES is a folder of images with names of the form --fname_convention, a folder with frames.db, or a video
file. --frames_start is the first frame of the clip, --frames_end the frame after the last one, by the numbers
in file names, or by positions from 0 in a video file. For outputs see `python main.py task=saliency --help`.
"""

import argparse
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from static_dynamic.analysis.explain.explain_clips import explain_clips
from static_dynamic.command import Options, command, positive
from static_dynamic.configs import CONFIG_DIR, rows
from static_dynamic.datasets.frames import FrameFolder, ImageSequence, VideoFile, open_frames
from static_dynamic.errors import UserError, nearest


@command
def main() -> None:
    """Translate the command line flags to options of ``task=saliency`` and run this task."""
    parser = Options(__doc__)
    names = "name in Stergiou et al.'s code (mfnet, i3d, resnet50 ...) or any file name in configs/model"
    parser.add_argument("--model_name", default="i3d", help=names)
    parser.add_argument("--num_classes", type=positive, default=400)
    parser.add_argument("--model_weights", required=True, help="checkpoint file, or: pretrained")
    parser.add_argument("--frame_dir", type=Path, required=True, help="folder of images or video file")
    parser.add_argument("--frames_start", type=int, help="number of the first frame")
    parser.add_argument("--frames_end", type=int, help="number of the frame after the last one")
    parser.add_argument("--fname_convention", default="frame_{:010d}.jpg")
    parser.add_argument("--label", help="number or name of the class (default: the predicted class)")
    parser.add_argument("--threshold", type=float, default=0.65, help="theta, from 0 to 1")
    parser.add_argument("--backprop_depth", type=int, default=3, help="number of levels")
    kernels = "kernels to draw: all, or the K strongest of layer L: topK_inL"
    parser.add_argument("--visualisation_method", default="all", help=kernels)
    parser.add_argument("--tubes_vis_method", help="ignored, as in Stergiou et al.'s code")
    parser.add_argument("--base_output_dir", type=Path, default=Path("visualisations"), help="output folder")
    parser.add_argument("--only_dep_graph", action="store_true", help="compute the pyramid, draw no figures")
    parser.add_argument("--rules", default="corrected", help="corrected or original (published, with errors)")
    parser.add_argument("--device", help="cpu, cuda, or the number of a GPU")
    explain_clips(configuration(parser.parse_args()))


def configuration(given: argparse.Namespace) -> DictConfig:
    """Translate the command line flags to the configuration of ``task=saliency``."""
    first, last = frame_range(given)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("config", ["task=saliency", f"model={network(given.model_name)}"])
    values = {
        "checkpoint": given.model_weights,
        "device": given.device,
        "model.num_classes": given.num_classes,
        "cfp.rules": given.rules,
        "cfp.theta": given.threshold,
        "cfp.depth": given.backprop_depth,
        "cfp.select": given.visualisation_method,
        "task.input": str(given.frame_dir),
        "task.outdir": str(given.base_output_dir),
        "task.label": given.label,
        "task.start": first,
        "task.end": last,
        "task.pictures": not given.only_dep_graph,
    }
    for key, value in values.items():
        OmegaConf.update(cfg, key, value)
    return cfg


def network(name: str) -> str:
    """Translate a network name of Stergiou et al.'s code to a file name in ``configs/model``."""
    known = rows("model")
    for row in (f"cfp_{name}", name):
        if row in known:
            return row
    raise UserError(f"unknown --model_name {name!r}{nearest(name, known)}")


def frame_range(given: argparse.Namespace) -> tuple[int, int | None]:
    """Return the position of a clip's first frame and the position after its last frame (None: no limit).

    Raises UserError if a requested frame number is missing.
    """
    if not given.frame_dir.exists():
        raise UserError(f"--frame_dir {given.frame_dir} does not exist")
    frames = open_frames(given.frame_dir)
    first, last = given.frames_start, given.frames_end
    if isinstance(frames, VideoFile):
        return first or 0, last
    position_of = frame_positions(frames, given.fname_convention)
    if not position_of:
        raise UserError(
            f"{given.frame_dir} holds no frames whose names match --fname_convention {given.fname_convention}"
        )
    first = min(position_of) if first is None else first
    numbers = range(first, first + 1 if last is None else last)
    missing = next((number for number in numbers if number not in position_of), None)
    if missing is not None or not numbers:
        raise UserError(
            f"--frames_start {first} --frames_end {last}: {given.frame_dir} has frames "
            f"{min(position_of)} to {max(position_of)}"
            + ("" if missing is None else f", and no frame {missing}")
        )
    positions = [position_of[number] for number in numbers]
    if positions != list(range(positions[0], positions[0] + len(positions))):
        raise UserError(
            f"{given.frame_dir} holds images between frames {first} and {last} whose names do not match "
            f"--fname_convention {given.fname_convention}"
        )
    return positions[0], None if last is None else positions[-1] + 1


def frame_positions(frames: ImageSequence, convention: str) -> dict[int, int]:
    """Map frame numbers to frame positions; skip images whose name does not match `convention`."""
    numbered = enumerate(frames.numbers)
    if not isinstance(frames, FrameFolder):
        return {number: position for position, number in numbered}
    try:
        return {n: position for position, n in numbered if convention.format(n) == frames.names[position]}
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise UserError(
            f"--fname_convention {convention} is not a pattern such as frame_{{:010d}}.jpg"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
