"""Decode every frame of a stylized data set, in parallel, and list its faults.

    python misc/check_dataset.py ROOT [--styles 1,2,3,4] [--dataset ssv2]
    python misc/check_dataset.py ROOT --dataset StylizedDAVIS [--normal_data_root DAVIS]

Lists missing styles and frames, files that do not decode, and videos whose size or frame rate differs between
styles or from most videos. With --dataset it also lists clips of the annotations whose video is unusable. Of
DAVIS it checks the frames in all styles, the masks and the optical flow.
Exit status: 0 no fault, 1 faults found, 2 nothing to check.
"""

import argparse
import sys
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic import configs
from static_dynamic.command import Options, command, positive
from static_dynamic.datasets import list_clips
from static_dynamic.datasets.check import check_videos
from static_dynamic.datasets.check_davis import check_davis, styles_on_disk
from static_dynamic.datasets.clips import parse_styles, style_folder
from static_dynamic.errors import UserError


@command
def main() -> int:
    """List the faults of the data set; return 1 if a fault was found, else 0."""
    parser = Options(__doc__)
    parser.add_argument("root", type=Path, help="folder with the folders style_1, style_2 ...")
    parser.add_argument("--styles", help="comma-separated list of style ids (default: all styles in ROOT)")
    parser.add_argument("--dataset", help="also check the annotations of this data set")
    parser.add_argument("--workers", type=positive, default=None, help="processes (default: one per core)")
    parser.add_argument("--normal_data_root", type=Path, help="folder of the DAVIS download (default: ROOT)")
    given = parser.parse_args()
    row = configs.row("dataset", given.dataset) if given.dataset else None
    if row is not None and row.layout == "davis":
        return check_sequences(row, given)
    styles = chosen_styles(given.root, given.styles)
    folders = {style: style_folder(given.root, style) for style in styles}
    faults, notes, videos, frames = check_videos(folders, given.workers)
    print(*notes, sep="\n", end="\n" if notes else "")
    if row is not None:
        row.root = str(given.root)
        clips = list_clips(row, styles, on_error="skip")
        faults += [f"{clip}: {reason}" for clip, reason in clips.skipped]
        print(f"{given.dataset}: {len(clips.clips)} clips")
        for reason, ids in clips.filtered_by_reason.items():
            print(f"left out, {reason}: {len(ids)} clips ({', '.join(ids[:3])}{', ...' if ids[3:] else ''})")
    print(*dict.fromkeys(faults), sep="\n", end="\n" if faults else "")
    print(f"{given.root}: {videos} videos in {len(styles)} styles, {frames} frames, {len(faults)} faults")
    return 1 if faults else 0


def check_sequences(row: DictConfig, given: argparse.Namespace) -> int:
    """List the faults of a DAVIS data set; return 1 if a fault was found, else 0."""
    row.root = str(given.root)
    row.original_data_root = str(given.normal_data_root or given.root)
    styles = parse_styles(given.styles) if given.styles else styles_on_disk(row)
    if not styles:
        raise UserError(
            f"{given.root} has no folder JPEGImages/{row.style_folders[0]}: "
            "give the folder of a DAVIS download"
        )
    faults, notes, videos, images = check_davis(row, styles, given.workers)
    print(*notes, *faults, sep="\n", end="\n" if notes or faults else "")
    print(f"{given.root}: {videos} videos in {len(styles)} styles, {images} images, {len(faults)} faults")
    return 1 if faults else 0


def chosen_styles(root: Path, text: str | None) -> tuple[int, ...]:
    """Parse a comma-separated list of style ids; if `text` is None, list the ids of all styles in `root`."""
    try:
        present = sorted(int(path.name.removeprefix("style_")) for path in root.glob("style_*"))
        styles = tuple(map(int, text.split(","))) if text else tuple(present)
    except ValueError as error:
        raise UserError(f"style ids must be integers: {text or sorted(root.glob('style_*'))}") from error
    missing = [style for style in styles if style not in present]
    if missing or not styles:
        raise UserError(f"{root} has no style_{missing[0] if missing else '1'} (folder of stylized videos)")
    return styles


if __name__ == "__main__":
    sys.exit(main())
