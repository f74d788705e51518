"""Compute optical flow, filter videos along time, and draw guide images for the stylization of videos.

    python -m stylize.temporal flow      --input FRAMES --output DIR
    python -m stylize.temporal bilateral --input FRAMES --output DIR
    python -m stylize.temporal guide     --input FRAMES --masks MASKS --output DIR

FRAMES is a folder of images, a video file, or a folder that holds several videos in either form. Existing
files are kept, so that after an interruption the same command resumes. Texler et al.'s code has Windows
executables for these steps.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.command import Options, command, positive
from static_dynamic.datasets.frames import FrameFolder
from static_dynamic.datasets.numbering import frame_numbers
from static_dynamic.errors import UserError
from static_dynamic.files import write_text
from static_dynamic.stylize.bilateral import bilateral
from static_dynamic.stylize.flow import colour_flow, dense_flow, write_flo
from static_dynamic.stylize.guides import draw_disks, sample_points, track
from static_dynamic.stylize.sequences import Video, find_videos, write_image

SUFFIXES = {"flo": ".flo", "colour": ".png"}
# DIRECTIONS: flow direction -> (step, folder per file format); a flow leads from frame t to t + step.
# Folders of .flo files are named as in Texler et al.'s tool, folders of colour images as in VOS data sets.
# The flow to the previous frame is named "forward", because this flow warps the previous frame forward.
DIRECTIONS = {
    "forward": (-1, {"flo": "flow_fwd", "colour": "FlowImages_gap-1"}),
    "backward": (+1, {"flo": "flow_bwd", "colour": "FlowImages_gap1"}),
}


def track_all(video: Video, keys: dict[int, NDArray]) -> dict[int, dict[int, NDArray]]:
    """Track each key frame's points through a video; return {key frame: {frame: points (N, 2)}}.

    The video is decoded at most twice, once per direction.
    """
    tracks = {key: {key: points} for key, points in keys.items()}
    runs = {+1: range(min(keys), len(video.frames) - 1), -1: range(max(keys), 0, -1)}
    for step, indices in runs.items():
        for t, frame, other in video.neighbours(indices, step):
            flow = dense_flow(frame, other)
            for key, positions in tracks.items():
                if (t - key) * step >= 0:
                    positions[t + step] = track(positions[t], flow)
    return tracks


def run_flow(args: argparse.Namespace) -> None:
    """Write optical flow as .flo files (flow_fwd/, flow_bwd/) and colour images (FlowImages_gap-1/, ...)."""
    keep_settings(args.output, "flow", {"full": args.full})
    writers = {"flo": write_flo, "colour": lambda path, flow: write_image(path, colour_flow(flow, args.full))}
    for video in find_videos(args.input):
        stems = video.stems
        for name in args.directions:
            step, folder_names = DIRECTIONS[name]
            folders = {form: args.output / folder_names[form] / video.name for form in args.forms}
            first = 0 if step > 0 else len(stems) - 1
            # `missing`: frame index -> {file format: path of the missing file}
            missing = {}
            for t in range(first, len(stems) - 1 - first, step):
                files = {form: folders[form] / f"{stems[t]}{SUFFIXES[form]}" for form in args.forms}
                missing[t] = {form: path for form, path in files.items() if not path.exists()}
            todo = [t for t, files in missing.items() if files]
            pairs = video.neighbours(todo, step)
            for t, frame, other in progress(pairs, f"{name} flow", video, len(missing), len(todo)):
                flow = dense_flow(frame, other)
                for form, path in missing[t].items():
                    writers[form](path, flow)


def run_bilateral(args: argparse.Namespace) -> None:
    """Filter videos along time with a bilateral filter; write each frame as a PNG file of the same name."""
    keep_settings(args.output, "bilateral", {"window": args.window, "divisor": args.divisor})
    for video in find_videos(args.input):
        targets = [args.output / video.name / f"{stem}.png" for stem in video.stems]
        todo = [t for t, path in enumerate(targets) if not path.exists()]
        if not todo:
            continue
        # The first filtered frame needs `window` earlier frames, so decoding starts `window` frames earlier.
        start = max(0, todo[0] - args.window)
        frames = (frame for _, frame in video.read(range(start, len(targets))))
        filtered = enumerate(bilateral(frames, args.window, args.divisor), start=start)
        for t, frame in progress(filtered, "bilateral", video, len(targets), len(targets) - start):
            if not targets[t].exists() and t >= todo[0]:
                write_image(targets[t], frame)


def run_guide(args: argparse.Namespace) -> None:
    """Write guide images, one folder per spot size: input_gdisko_gauss_r10_s15/ (radius 10, sigma 15), ..."""
    keep_settings(args.output, "guide", {"radius": args.radius, "seed": args.seed})
    for video in find_videos(args.input):
        stems = video.stems
        folder = f"input_gdisko_gauss_r{args.radius:g}"
        files = [
            (t, sigma, args.output / f"{folder}_s{sigma:g}" / video.name / f"{stem}.png")
            for t, stem in enumerate(stems)
            for sigma in dict.fromkeys(args.sigmas)
        ]
        todo = [(t, sigma, path) for t, sigma, path in files if not path.exists()]
        if not todo:
            continue
        masks = key_masks(args.masks / video.name, stems)
        height, width = next(video.read([0]))[1].shape[:2]
        rng = np.random.default_rng(args.seed)
        keys, colours = {}, {}
        for key, mask in masks.items():
            if mask.shape != (height, width):
                path, size = args.masks / video.name, f"{width}x{height} pixels"
                raise UserError(f"{path}: scale the mask of frame {stems[key]} to the frame's size of {size}")
            keys[key] = sample_points(mask, args.radius, rng)
            colours[key] = rng.uniform(size=(len(keys[key]), 3)).astype(np.float32)
        tracks = track_all(video, keys)
        # draw the points of the first key frame last, on top
        order = sorted(keys, reverse=True)
        all_colours = np.concatenate([colours[key] for key in order])
        for t, sigma, path in progress(todo, "guides", video, len(files), len(todo)):
            points = np.concatenate([tracks[key][t] for key in order])
            write_image(path, draw_disks(points, all_colours, sigma, height, width))


def key_masks(folder: Path, stems: Sequence[str]) -> dict[int, NDArray[np.uint8]]:
    """Read the key frames' masks, named by frame number; return {frame index: mask (H, W)}.

    Raises UserError if there is no mask, or a mask whose number no frame has.
    """
    frames = FrameFolder(folder)
    if not folder.is_dir() or not frames.names:
        raise UserError(f"--masks {folder} holds no images: add a mask per key frame, named as the frame")
    numbers = frame_numbers([*stems, *frames.names], folder)
    positions = {number: t for t, number in enumerate(numbers[: len(stems)])}
    masks = {}
    for i, (name, number) in enumerate(zip(frames.names, numbers[len(stems) :], strict=True)):
        if number not in positions:
            raise UserError(f"no frame has the number of mask {folder / name}: name the mask like a frame")
        # Masks may be coloured, so the brightest channel is used.
        masks[positions[number]] = frames.read([i])[0].max(-1)
    return masks


def keep_settings(output: Path, command: str, settings: dict) -> None:
    """Record a command's settings in the folder `output`; raise UserError if other settings are recorded."""
    path = output / f"{command}.json"
    if path.exists() and (known := json.loads(path.read_text())) != settings:
        raise UserError(f"{output} was made with {known}, not {settings}: give another --output")
    write_text(path, json.dumps(settings) + "\n")


def progress(items: Iterable, what: str, video: Video, total: int, todo: int) -> Iterable:
    """Show a progress bar that starts at the number of files that exist already."""
    label = f"{what} {video.name}".rstrip()
    return tqdm(items, desc=label, unit="frame", total=total, initial=total - todo, disable=not todo)


def number_above_zero(text: str) -> float:
    """Parse an option's value as a finite number above zero, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"a number above zero is expected, not {text}")
    return value


def parser() -> Options:
    """Make the argument parser of the commands flow, bilateral and guide."""
    top = Options(str(__doc__).partition("\n\n")[0], prog="python -m stylize.temporal")
    commands = top.add_subparsers(required=True, metavar="flow | bilateral | guide")

    def add(name: str, function) -> Callable[..., argparse.Action]:
        about = function.__doc__.splitlines()[0]
        with_defaults = argparse.ArgumentDefaultsHelpFormatter
        sub = commands.add_parser(name, help=about, description=about, formatter_class=with_defaults)
        sub.set_defaults(run=function)
        videos = "folder of frames, video file, or folder of videos"
        sub.add_argument("--input", type=Path, required=True, help=videos)
        sub.add_argument("--output", type=Path, required=True, help="folder; existing files are kept")
        return sub.add_argument

    flow = add("flow", run_flow)
    which = "forward: to the previous frame, as in Texler et al.'s tool; backward: to the next frame"
    flow("--directions", nargs="+", choices=DIRECTIONS, default=list(DIRECTIONS), help=which)
    flow("--forms", nargs="+", choices=SUFFIXES, default=list(SUFFIXES), help="kinds of files")
    full = "length in pixels that gets full colour (None: the longest vector of each frame)"
    flow("--full", type=number_above_zero, help=full)
    blur = add("bilateral", run_bilateral)
    blur("--window", type=positive, default=15, help="frames on either side")
    blur("--divisor", type=number_above_zero, default=16.0, help="colour sigma is sqrt(3) 255 / divisor")
    guide = add("guide", run_guide)
    guide("--masks", type=Path, required=True, help="masks of the key frames, named as the frames")
    radius, sigmas = "smallest distance of two points in pixels", "sizes of the spots in pixels"
    guide("--radius", type=number_above_zero, default=10.0, help=radius)
    guide("--sigmas", type=number_above_zero, nargs="+", default=[10.0, 15.0], help=sigmas)
    guide("--seed", type=int, default=1, help="of points and colours")
    return top


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run one of the commands ``flow``, ``bilateral`` and ``guide``."""
    args = parser().parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    sys.exit(main())
