"""Extract the frames of videos to OUT/VIDEO/000001.jpg and so on, at the frame rate of a data set.

    python misc/prepare_frames.py downloads data/style_0 --dataset StylizedActivityNet --prefix v_
    python misc/prepare_frames.py downloads data/style_0 --fps 12 --names image_%05d.jpg --first 0

SOURCE holds video files, or folders of images with --from_fps, with or without class folders. Videos whose
frame folder exists are skipped, so that the same command resumes an interrupted one. Unreadable videos are
listed and give exit status 1.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from static_dynamic import configs
from static_dynamic.command import Options, command, positive
from static_dynamic.datasets.discovery import find_video, require_videos
from static_dynamic.datasets.frames import BadFrames, open_frames
from static_dynamic.datasets.rates import resample
from static_dynamic.datasets.write import fit, frame_name, in_threads, read_in_parts, write_folder
from static_dynamic.errors import UserError


def extract(given: argparse.Namespace, name: str) -> str | None:
    """Extract the frames of one video; return an error message if this fails, else None."""
    path = Path(name)
    target = given.out / path.parent / f"{given.prefix}{path.name}"
    if target.exists():
        return None
    try:
        frames = open_frames(find_video(given.source, name))
        fps = frames.fps or given.from_fps
        indices = np.arange(len(frames))
        if given.fps is not None:
            if not fps:
                return f"{name}: the frame rate is unknown: give --from_fps"
            indices = resample(len(frames), fps, given.fps, frames.times)
        shown = (fit(frame, given.short_side) for frame in read_in_parts(frames, indices))
        write_folder(shown, target, given.names, given.first, given.quality)
    except BadFrames as error:
        return str(error)
    return None


@command
def main() -> int:
    """Extract the frames of all videos; return 1 if a video is unreadable."""
    parser = Options(__doc__)
    parser.add_argument("source", type=Path, help="folder of videos")
    parser.add_argument("out", type=Path, help="folder of the frames")
    parser.add_argument("--dataset", help="use the --fps, --names and --first of this data set")
    parser.add_argument("--fps", type=float, help="frames per second (default: every frame)")
    parser.add_argument("--from_fps", type=float, help="frames per second of folders of images in SOURCE")
    parser.add_argument("--names", help="pattern of the frame names (default: %%06d.jpg)")
    parser.add_argument("--first", type=int, help="number of the first frame (default: 1)")
    parser.add_argument("--prefix", default="", help="prefix for the names of the videos")
    parser.add_argument("--short_side", type=positive, help="scale larger frames down to this short side")
    parser.add_argument("--quality", type=int, default=95, help="jpg quality")
    parser.add_argument("--workers", type=positive, default=None, help="threads (default: one per core)")
    given = parser.parse_args()
    row = configs.row("dataset", given.dataset) if given.dataset else {}
    default = {"fps": row.get("fps"), "pattern": "%06d.jpg", "first": 1, **(row.get("frames") or {})}
    given.names = default["pattern"] if given.names is None else given.names
    given.first = default["first"] if given.first is None else given.first
    given.fps = default["fps"] if given.fps is None else given.fps
    if given.fps is not None and given.fps <= 0:
        raise UserError(f"--fps {given.fps:g} is not a positive number")
    frame_name(given.names, given.first)
    names = require_videos(given.source)
    done = in_threads(partial(extract, given), names, given.workers, "extract", "video")
    faults = [fault for fault in done if fault]
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{given.out}: {len(names) - len(faults)} of {len(names)} videos")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
