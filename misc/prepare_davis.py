"""Prepare a DAVIS download for networks that take images and optical flow.

    python misc/prepare_davis.py DAVIS                                    write into the DAVIS folder
    python misc/prepare_davis.py DAVIS --out PREPARED --short_side 240    write a smaller copy
    python misc/prepare_davis.py DAVIS --sequences blackswan libby --style shipped

DAVIS holds JPEGImages/480p, Annotations/480p and ImageSets/480p. Writes the flow to the next and the
previous frame (FlowImages_gap1, FlowImages_gap-1) and the frames in four styles (JPEGImages/STYLE). Flow is
computed between unstylized grey frames with DIS optical flow and drawn with the Middlebury colour wheel.
Existing files are kept, so that the same command resumes an interrupted one.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import cast

import cv2
from omegaconf import OmegaConf

from static_dynamic import configs
from static_dynamic.command import Options, command, positive
from static_dynamic.datasets.davis import FLOW_FOLDERS, RESOLUTION, other_split, read_split
from static_dynamic.datasets.frames import FrameFolder, read_image
from static_dynamic.datasets.numbering import is_image
from static_dynamic.datasets.write import encode, fit, in_threads
from static_dynamic.device import DEVICES, choose_device
from static_dynamic.errors import UserError, nearest
from static_dynamic.files import atomic_path, write_text
from static_dynamic.stylize.apply import make_style
from static_dynamic.stylize.flow import colour_flow, dense_flow
from static_dynamic.stylize.generate import claim, generate
from static_dynamic.stylize.jobs import SAME, make_jobs
from static_dynamic.stylize.sequences import Video, write_image

FRAMES, MASKS, LISTS = (Path(kind, RESOLUTION) for kind in ("JPEGImages", "Annotations", "ImageSets"))
STEPS = dict(zip(FLOW_FOLDERS, (1, -1), strict=True))
# Hidden file that records the --short_side with which a copy was made.
SIZE_NOTE = ".short_side"


def write_flow(root: Path, name: str) -> None:
    """Compute the missing flow images of one sequence."""
    video = Video(name, FrameFolder(root / FRAMES / name))
    for folder, step in STEPS.items():
        files = {t: root / folder / name / f"{stem}.png" for t, stem in enumerate(video.stems)}
        with_neighbour = range(max(0, -step), len(files) - max(0, step))
        to_do = [t for t in with_neighbour if not files[t].exists()][::step]
        for t, frame, other in video.neighbours(to_do, step):
            write_image(files[t], colour_flow(dense_flow(frame, other)))


def copy_sequence(source: Path, out: Path, short_side: int | None, name: str) -> None:
    """Copy the frames and masks of one sequence; with `short_side`, scale the copies down to this side."""
    for kind, shrink in ((FRAMES, smaller_frame), (MASKS, smaller_mask)):
        for file in sorted((source / kind / name).glob("*")):
            target = out / kind / name / file.name
            if is_image(file.name) and not target.exists():
                with atomic_path(target) as temporary:
                    temporary.write_bytes(shrink(file, short_side) if short_side else file.read_bytes())


def smaller_frame(file: Path, short_side: int) -> bytes:
    """Scale a frame down and encode the result as jpg."""
    return encode(fit(read_image(file), short_side), ".jpg")


def smaller_mask(file: Path, short_side: int) -> bytes:
    """Scale a mask down by nearest neighbour, which keeps the object ids; encode the result as png."""
    mask = read_image(file)
    height, width = fit(mask, short_side).shape[:2]
    return encode(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), ".png")


def copy_all(source: Path, out: Path, short_side: int | None, names: list[str], workers: int) -> None:
    """Copy the split lists and the sequences `names`; raise UserError if `out` has frames of another size."""
    note, text = out / SIZE_NOTE, f"{short_side}\n"
    if note.exists() and note.read_text() != text:
        raise UserError(f"{out} was made with --short_side {note.read_text().strip()}: give another --out")
    write_text(note, text)
    for file in (source / LISTS).glob("*.txt"):
        write_text(out / LISTS / file.name, file.read_text(encoding="utf-8"))
    in_threads(partial(copy_sequence, source, out, short_side), names, workers, "copy", "sequence")


def write_styles(root: Path, names: list[str], given: argparse.Namespace) -> int:
    """Write the frames of the sequences in every style; return the number of unreadable frames."""
    rows = cast(dict, OmegaConf.to_container(configs.row("style", given.style).styles))
    folders = configs.row("dataset", "StylizedDAVIS").style_folders
    lost = 0
    for k, row in rows.items():
        if not 0 < int(k) < len(folders):
            raise UserError(f"--style {given.style}: dataset.style_folders has no folder for style {k}")
        target = root / FRAMES.parent / folders[int(k)]
        style = make_style(row, choose_device(given.device))
        claim(target, {"style": style.identity, "naming": SAME})
        jobs = [job for name in names for job in make_jobs(root / FRAMES / name, target, naming=SAME)]
        skipped = generate(jobs, style, batch_size=given.batch_size, workers=given.workers)
        for entry in skipped:
            print(f"left out: {entry.video} frame {entry.frame or 'all'} ({entry.count}): {entry.reason}")
        lost += sum(entry.count for entry in skipped)
        print(f"{target}: style {k} of {given.style}, {len(jobs)} sequences")
    return lost


def sequences_of(root: Path, split: str, wanted: list[str] | None) -> list[str]:
    """List the requested sequences of a split, or all sequences of the split that are on disk.

    Raises UserError if no sequence, or not every requested sequence, is on disk.
    """
    listed = dict.fromkeys(sequence for sequence, _ in read_split(root, split))
    for name in wanted or ():
        if name not in listed:
            hint = other_split(root, name, "--split ")
            close = "" if hint else nearest(name, listed)
            raise UserError(f"--sequences {name}{close}: not in split {split}{hint}")
    names = [name for name in wanted or listed if (root / FRAMES / name).is_dir()]
    if not names or len(names) < len(wanted or ()):
        raise UserError(
            f"{root / FRAMES} lacks the frames of {', '.join(wanted or listed)}: unpack DAVIS again"
        )
    return names


@command
def main() -> int:
    """Write flow images and stylized frames for a split of DAVIS; return 1 if frames were left out."""
    parser = Options(__doc__)
    parser.add_argument("davis", type=Path, help="folder of the DAVIS 2016 download")
    parser.add_argument("--out", type=Path, help="write a copy to this folder (default: write into DAVIS)")
    parser.add_argument("--short_side", type=positive, help="with --out: largest short side of a frame")
    parser.add_argument("--split", default="val", help="name of a list in ImageSets/480p")
    parser.add_argument("--sequences", nargs="+", help="names of sequences (default: all on disk)")
    parser.add_argument("--style", default="builtin", help="four styles: builtin (default) or shipped")
    parser.add_argument("--device", help=f"for trained styles: {DEVICES} (default: a GPU if present)")
    parser.add_argument("--batch_size", type=positive, default=8, help="frames per batch")
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", type=positive, default=cores, help="threads (default: one per core)")
    given = parser.parse_args()
    root = given.out or given.davis
    if given.short_side and not given.out:
        raise UserError("--short_side needs --out DIR, because the frames in DAVIS are not changed")
    names = sequences_of(given.davis, given.split, given.sequences)
    if given.out:
        copy_all(given.davis, root, given.short_side, names, given.workers)
    in_threads(partial(write_flow, root), names, given.workers, "flow", "sequence")
    lost = write_styles(root, names, given)
    print(f"{root}: {len(names)} sequences with flow and styles")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
