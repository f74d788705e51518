"""Make small stylized data sets in the layout of the paper's data sets, to try the pipeline.

    python misc/prepare_examples.py VIDEOS ANNOTATIONS OUT [--datasets ssv2,Diving48] [--number 8]
    python main.py --stylized_data_dir OUT/ssv2 --dataset ssv2 --model i3d_inception --stg 5

Your videos are rendered in the built-in styles and take the ids of published annotation entries. Annotation
files are searched below ANNOTATIONS and copied whole. Each video takes the first free entry that does not
need more frames than the video has. Otherwise the video takes the free entry that needs fewest frames, and
plays forwards and backwards until it has enough frames. Existing videos are kept.
"""

import argparse
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from static_dynamic import configs
from static_dynamic.command import Options, command, positive
from static_dynamic.datasets.annotations import LAYOUTS, Annotated
from static_dynamic.datasets.discovery import find_video, require_videos
from static_dynamic.datasets.frames import open_frames
from static_dynamic.datasets.rates import resample
from static_dynamic.datasets.write import fit, in_threads, read_in_parts, write_folder
from static_dynamic.errors import UserError
from static_dynamic.stylize.exemplars import render


def render_video(
    source: Path, indices: np.ndarray, targets: dict[int, Path], names: DictConfig, short_side: int
) -> None:
    """Render the frames at `indices` of one video in each style; skip styles whose target folder exists."""
    wanted, where = np.unique(indices, return_inverse=True)
    frames = [fit(frame, short_side) for frame in read_in_parts(open_frames(source), wanted)]
    for style, target in targets.items():
        if not target.exists():
            appearance = configs.row("style", "builtin").styles[style]
            rendered = [render(frame, appearance) for frame in frames]
            write_folder((rendered[i] for i in where), target, names.pattern, names.first)


def copy_annotations(row: DictConfig, source: Path, root: Path) -> None:
    """Find a data set's annotation files below `source` and copy the files to the data set's root."""
    root.mkdir(parents=True, exist_ok=True)
    for kind, names in row.annotations.items():
        found = next((path for name in names for path in sorted(source.rglob(name))), None)
        if found is not None:
            shutil.copyfile(found, root / found.name)
        elif kind == "list":
            raise UserError(f"{source} holds no {' or '.join(names)}, which dataset={row.name} needs")


def assign(entries: list[Annotated], available: list[int], fps: float) -> list[tuple[Annotated, int]]:
    """Choose an annotated clip for each video; return a list of (clip, number of frames).

    `available` lists the number of frames of each video.
    """
    # `needs` holds the number of frames that each annotation needs; 0 means that any number suffices.
    needs = {e.id: (e.frames or 0) if e.seconds is None else int(fps * e.seconds[1]) for e in entries}
    free, chosen = dict.fromkeys(entries), []
    for count in available:
        fitting = (e for e in free if needs[e.id] <= count)
        entry = next(fitting, None) or min(free, key=lambda e: needs[e.id], default=None)
        if entry is None:
            raise UserError(
                f"{len(available)} videos, but only {len(entries)} annotated clips: give a smaller --number"
            )
        del free[entry]
        chosen.append((entry, needs[entry.id] or count))
    return chosen


def jobs_of(name: str, given: argparse.Namespace) -> list[partial[None]]:
    """Copy one data set's annotations; return a list of functions, each of which renders one video."""
    root = given.out / name
    row = configs.row("dataset", name)
    row.root = str(root)
    if not row.get("annotations"):
        known = ", ".join(n for n in configs.rows("dataset") if "annotations" in configs.row("dataset", n))
        raise UserError(f"dataset {name!r} has no annotations (data sets with annotations: {known})")
    copy_annotations(row, given.annotations, root)
    entries = [e for e in LAYOUTS[row.layout](row, root, []) if not e.filtered and not e.broken]
    videos = [find_video(given.videos, video) for video in require_videos(given.videos)]
    plans = []
    for path in videos[: given.number]:
        frames = open_frames(path)
        shown = np.arange(len(frames))
        if row.fps:
            shown = resample(len(frames), frames.fps or row.fps, row.fps, frames.times)
        plans.append((path, shown[: given.frames]))
    jobs = []
    styles = configs.row("style", "builtin").styles
    chosen = assign(entries, [len(shown) for _, shown in plans], row.fps or 0.0)
    for (path, shown), (entry, count) in zip(plans, chosen, strict=True):
        back_and_forth = np.concatenate([shown, shown[-2:0:-1]])
        targets = {style: root / f"style_{style}" / entry.names[0] for style in styles}
        indices = np.resize(back_and_forth, count)
        jobs.append(partial(render_video, path, indices, targets, row.frames, given.short_side))
    return jobs


@command
def main() -> None:
    """Make the example data sets; for each data set, print the command that analyses it."""
    parser = Options(__doc__)
    parser.add_argument("videos", type=Path, help="folder of videos")
    parser.add_argument("annotations", type=Path, help="folder that holds the annotation files")
    parser.add_argument("out", type=Path, help="folder of the data sets")
    parser.add_argument("--datasets", default="StylizedActivityNet,ssv2,Diving48", help="separated by commas")
    parser.add_argument("--number", type=positive, default=8, help="largest number of videos")
    parser.add_argument("--frames", type=positive, default=64, help="largest number of frames per video")
    parser.add_argument("--short_side", type=positive, default=256, help="in pixels")
    parser.add_argument("--workers", type=positive, default=None, help="threads (default: one per core)")
    given = parser.parse_args()
    jobs = [job for name in given.datasets.split(",") for job in jobs_of(name, given)]
    in_threads(lambda job: job(), jobs, given.workers, "render styles", "video")
    for name in given.datasets.split(","):
        print(f"python main.py --stylized_data_dir {given.out / name} --dataset {name}")


if __name__ == "__main__":
    sys.exit(main())
