"""Stylize videos: folders of frames, video files, or a folder of many of them.

    python main.py task=stylize checkpoint=FILE task.input=VIDEOS task.outdir=ROOT
    python main.py task=stylize style=shipped dataset=Diving48 stylized_data_dir=ROOT
    python -m stylize.generate --checkpoint F --data_root D --dir_input I --outdir O --device cpu

Decoding, the network and encoding overlap. The same command goes on where an earlier one stopped, to the
same files. Exit status: 0 all done; 1 some frames could not be read: named, counted and left out; 2 an
error that stopped it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.command import Options, command
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path, write_text
from static_dynamic.stylize.apply import PRECISIONS, Style, make_style
from static_dynamic.stylize.jobs import SAME, Chunk, Job, Skipped, finish, make_jobs
from static_dynamic.stylize.training_config import GUIDES

log = logging.getLogger(__name__)

SKIPPED_FILE = "skipped.json"  # beside the frames of a video that lost some
IDENTITY_FILE = ".stylize.json"  # of a style's folder: what made it
JPEG_QUALITY = 95
DEFAULT_NAMING = "%06d.jpg"


def generate(jobs: list[Job], style: Style, *, batch_size: int, workers: int = 2) -> list[Skipped]:
    """Stylize the jobs that are not done yet; return what was left out, also by earlier runs.

    Raises
    ------
    UserError
        A frame could not be written; what was written before is whole, and the same call goes on.
    """
    skipped: list[Skipped] = []
    waiting: deque[Callable[[], None]] = deque()
    with (
        ThreadPoolExecutor(workers) as decoders,
        ThreadPoolExecutor(workers) as encoders,
        tqdm(desc="stylize", unit="frame", smoothing=0.05) as bar,
    ):
        pieces = _pieces(jobs, batch_size, skipped, bar)
        try:
            for piece, frames in _ahead(decoders, pieces, 2 * workers):
                if isinstance(piece, Job):
                    waiting.append(partial(_finish, piece, skipped))
                else:
                    for write in _stylized(piece, frames, style):
                        waiting.append(encoders.submit(write).result)
                    waiting.append(partial(bar.update, len(piece.indices)))
                # so many frames may wait for the disk
                while len(waiting) > 2 * workers + 2 * batch_size:
                    waiting.popleft()()
            while waiting:
                waiting.popleft()()
        except OSError as error:
            raise UserError(
                f"{error.filename or 'a frame'} could not be written ({error.strerror}): make room, "
                "and give the same command again to go on"
            ) from error
        finally:
            # what was not begun is left; what was begun is written whole
            decoders.shutdown(cancel_futures=True)
            encoders.shutdown(cancel_futures=True)
    return skipped


def _pieces(
    jobs: list[Job], size: int, skipped: list[Skipped], bar: tqdm
) -> Iterator[tuple[Chunk | Job, Callable[[], dict]]]:
    """Every chunk to read, and each job after its last chunk; the bar's total grows from the mean."""
    opened = total = 0
    for done, job in enumerate(jobs):
        if job.target.exists() and job.folder != job.target:
            skipped += [Skipped(**entry) for entry in _read_skipped(job)]
            continue
        try:
            chunks = list(job.chunks(size))
        except BadFrames as error:
            log.warning("%s: %s", job.name, error)
            skipped.append(Skipped(job.name, None, 1, str(error)))
            continue
        total, opened = total + sum(len(chunk.indices) for chunk in chunks), opened + 1
        bar.total = round(total + (len(jobs) - done - 1) * total / opened)
        yield from ((chunk, chunk.read) for chunk in chunks)
        yield job, dict


def _ahead(
    pool: ThreadPoolExecutor, tasks: Iterable[tuple[Chunk | Job, Callable[[], dict]]], count: int
) -> Iterator[tuple[Chunk | Job, dict]]:
    """Run tasks in a pool, `count` of them ahead; their results in order."""
    running: deque[tuple[Chunk | Job, Future]] = deque()
    for label, task in tasks:
        running.append((label, pool.submit(task)))
        if len(running) > count:
            label, future = running.popleft()
            yield label, future.result()
    while running:
        label, future = running.popleft()
        yield label, future.result()


def _stylized(
    chunk: Chunk, frames: dict[int, NDArray | BadFrames], style: Style
) -> Iterator[Callable[[], None]]:
    """Run the network on a chunk; yield what writes each of its frames."""
    job = chunk.job
    bad = {i: frame for i, frame in frames.items() if isinstance(frame, BadFrames)}
    for reason in dict.fromkeys(bad.values()):
        numbers = [i for i, error in bad.items() if error is reason]
        log.warning("%s, frame %d: %s", job.name, numbers[0] + 1, reason)
        job.skipped.append(Skipped(job.name, numbers[0] + 1, len(numbers), str(reason)))
    good = {i: frame for i, frame in frames.items() if i not in bad}
    for shape in dict.fromkeys(frame.shape for frame in good.values()):
        alike = [i for i, frame in good.items() if frame.shape == shape]
        result = style(np.stack([good[i] for i in alike]))
        for position, i in enumerate(alike):
            yield partial(_write_one, job.folder / job.names[i], result, position)


def _write_one(path: Path, result: Callable[[], NDArray], position: int) -> None:
    write_frame(path, result()[position])


def write_frame(path: Path, image: NDArray[np.uint8]) -> None:
    """Write one RGB frame, whole or not at all; its ending says the format."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix.lower() in (".jpg", ".jpeg") else []
    done, data = cv2.imencode(path.suffix, image[..., ::-1], settings)
    if not done:
        raise RuntimeError(f"{path}: the image was not encoded")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _finish(job: Job, skipped: list[Skipped]) -> None:
    """Close a job whose frames are all written, and add what it lost."""
    skipped += job.skipped
    note = job.folder / SKIPPED_FILE
    if job.skipped:
        write_text(note, json.dumps([asdict(entry) for entry in job.skipped], indent=2) + "\n")
    else:
        note.unlink(missing_ok=True)  # of a run before the input was mended
    # of a video without any readable frame nothing is made: the next run tries again
    if any((job.folder / name).exists() for name in job.names):
        finish(job)


def _read_skipped(job: Job) -> list[dict]:
    path = job.target / SKIPPED_FILE
    return json.loads(path.read_text()) if path.exists() else []


def claim(folder: Path, identity: dict) -> None:
    """Note what makes the frames of a style's folder.

    Raises
    ------
    UserError
        Something else made those that are there.
    """
    path = folder / IDENTITY_FILE
    text = json.dumps(identity, sort_keys=True) + "\n"
    if not path.exists():
        write_text(path, text)
    elif path.read_text() != text:
        raise UserError(
            f"{folder} holds frames of another style or other options: give another outdir, or delete it"
        )


def stylize(
    source: Path,
    targets: dict[Path, Style],
    *,
    naming: str,
    first: int = 1,
    guides: tuple[Path, ...] = (),
    batch_size: int = 8,
    workers: int = 2,
    shard: int = 0,
    num_shards: int = 1,
    in_place: bool = False,
    videos: frozenset[str] | None = None,
) -> int:
    """Stylize the videos at `source` (of those the `videos` named), once for each target folder; print what
    was done and left out; return the exit status."""
    status = 0
    for target, style in targets.items():
        if style.guides != len(guides):
            raise UserError(f"{target.name}: the generator takes {style.guides} guides, {len(guides)} given")
        jobs = make_jobs(
            source,
            target,
            naming=naming,
            first=first,
            guides=guides,
            shard=shard,
            num_shards=num_shards,
            in_place=in_place,
            videos=videos,
        )
        claim(target, {"style": style.identity, "naming": naming, "first": first, "quality": JPEG_QUALITY})
        skipped = generate(jobs, style, batch_size=batch_size, workers=workers)
        for entry in skipped:
            print(f"left out: {entry.video} frame {entry.frame or 'all'} ({entry.count}): {entry.reason}")
        lost = sum(entry.count for entry in skipped)
        print(
            f"{target}: {len(jobs)} videos, {lost} left out" if skipped else f"{target}: {len(jobs)} videos"
        )
        status |= bool(skipped)
    return status


@command
def main() -> int:
    """Run from the command line, with the original's options and ours."""
    parser = Options(__doc__, prog="python -m stylize.generate")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data_root", type=Path, default=Path())
    parser.add_argument("--dir_input", required=True, help="frames, a video, or videos, in data_root")
    parser.add_argument("--outdir", type=Path, required=True)
    parser.add_argument("--device")
    for guide in GUIDES:
        parser.add_argument(f"--{guide}", help="guide images of the same names, in data_root")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=max(2, (os.cpu_count() or 2) // 2))
    parser.add_argument("--precision", choices=sorted(PRECISIONS))
    parser.add_argument("--naming", default=SAME, help="same (default), or a form like %%06d.jpg")
    parser.add_argument("--num_shards", type=int, default=1)
    parser.add_argument("--shard", type=int, default=0)
    given = parser.parse_args()
    style = make_style({"checkpoint": given.checkpoint}, choose_device(given.device), given.precision)
    return stylize(
        given.data_root / given.dir_input,
        {given.outdir: style},
        naming=given.naming,
        guides=tuple(given.data_root / d for g in GUIDES if (d := getattr(given, g))),
        batch_size=given.batch_size,
        workers=given.workers,
        shard=given.shard,
        num_shards=given.num_shards,
        in_place=True,
    )


if __name__ == "__main__":
    sys.exit(main())
