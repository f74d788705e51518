"""Stylize videos, given as folders of frames, as video files, or as a folder of several videos.

    python main.py task=stylize checkpoint=FILE task.input=VIDEOS task.outdir=ROOT
    python main.py task=stylize style=shipped dataset=Diving48 stylized_data_dir=ROOT
    python -m stylize.generate --checkpoint F --data_root D --dir_input I --outdir O --device cpu

Decoding, network and encoding run at the same time. After an interruption the same command resumes and
writes the same files. Exit status: 0 if all frames are done; 1 if some frames could not be read (these frames
are reported and left out); 2 for an error that stopped the command.
"""

import json
import logging
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from static_dynamic.command import Options, command
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.device import DEVICES, choose_device
from static_dynamic.errors import UserError
from static_dynamic.files import write_text
from static_dynamic.stylize.apply import PRECISIONS, Style, make_style
from static_dynamic.stylize.flow import Frame
from static_dynamic.stylize.jobs import SAME, Chunk, Job, Result, Skipped, make_jobs
from static_dynamic.stylize.sequences import JPEG_QUALITY, write_image
from static_dynamic.stylize.training_config import GUIDES

log = logging.getLogger(__name__)

# SKIPPED_FILE lists the frames of a video that were left out
SKIPPED_FILE = "skipped.json"
# IDENTITY_FILE records the weights and options that made the frames
IDENTITY_FILE = ".stylize.json"
DEFAULT_NAMING = "%06d.jpg"
# BATCH_SIZE: default number of frames per forward pass
BATCH_SIZE = 8
# OLD_PRECISIONS maps values of `--precision` in version 0.1 to the present values.
OLD_PRECISIONS = {"float32": "fp32", "float16": "fp16"}

Task = tuple[Chunk | Job, Callable[[], dict[int, Result]]]
"""A chunk and the function that reads it, or a job and a function that does nothing."""


def generate(jobs: list[Job], style: Style, *, batch_size: int, workers: int = 2) -> list[Skipped]:
    """Stylize the videos of the unfinished jobs; return a list of the frames skipped because of errors.

    Raises UserError if a frame cannot be written. Files that were written before are complete, and the same
    call resumes.
    """
    skipped: list[Skipped] = []
    waiting: deque[Callable[[], object]] = deque()
    with (
        ThreadPoolExecutor(workers) as decoders,
        ThreadPoolExecutor(workers) as encoders,
        tqdm(desc="stylize", unit="frame", smoothing=0.05) as bar,
    ):
        tasks = _tasks(jobs, batch_size, skipped, bar)
        try:
            for item, frames in _prefetch(decoders, tasks, 2 * workers):
                if isinstance(item, Job):
                    waiting.append(partial(_finish, item, skipped))
                else:
                    for write in _stylized(item, frames, style):
                        waiting.append(encoders.submit(write).result)
                    waiting.append(partial(bar.update, len(item.indices)))
                # Limit the number of stylized frames that wait in memory to be written.
                while len(waiting) > 2 * workers + 2 * batch_size:
                    waiting.popleft()()
            while waiting:
                waiting.popleft()()
        except OSError as error:
            file, reason = error.filename or "a frame", error.strerror
            raise UserError(f"cannot write {file} ({reason}); run the same command to resume") from error
        finally:
            # Cancel the tasks that have not started; running tasks finish the files that they are writing.
            decoders.shutdown(cancel_futures=True)
            encoders.shutdown(cancel_futures=True)
    return skipped


def _tasks(jobs: list[Job], size: int, skipped: list[Skipped], bar: tqdm) -> Iterator[Task]:
    """Yield for each job (one video in one style) the chunks of frames to read, and then the job itself.

    The lengths of unopened videos are unknown, so the progress bar's total is extrapolated from the mean
    length of the opened videos.
    """
    opened = total = 0
    for done, job in enumerate(jobs):
        if job.target.exists() and job.folder != job.target:
            note = job.target / SKIPPED_FILE
            skipped += [Skipped(**entry) for entry in json.loads(note.read_text())] if note.exists() else []
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


def _prefetch(
    pool: ThreadPoolExecutor, tasks: Iterable[Task], count: int
) -> Iterator[tuple[Chunk | Job, dict[int, Result]]]:
    """Run tasks in a thread pool, prefetching at most `count` tasks; yield the results in order."""
    submitted = ((item, pool.submit(task)) for item, task in tasks)
    running: deque[tuple[Chunk | Job, Future]] = deque(islice(submitted, count))
    while running:
        running.extend(islice(submitted, 1))
        item, future = running.popleft()
        yield item, future.result()


def _stylized(chunk: Chunk, frames: dict[int, Result], style: Style) -> Iterator[Callable[[], None]]:
    """Stylize a chunk of frames; yield one function per frame that writes the stylized frame to disk."""
    job = chunk.job
    bad = {i: frame for i, frame in frames.items() if isinstance(frame, BadFrames)}
    for reason in dict.fromkeys(bad.values()):
        numbers = [i for i, error in bad.items() if error is reason]
        log.warning("%s, frame %d: %s", job.name, numbers[0] + 1, reason)
        job.skipped.append(Skipped(job.name, numbers[0] + 1, len(numbers), str(reason)))
    good = {i: frame for i, frame in frames.items() if not isinstance(frame, BadFrames)}
    for shape in dict.fromkeys(frame.shape for frame in good.values()):
        of_shape = [i for i, frame in good.items() if frame.shape == shape]
        result = style(np.stack([good[i] for i in of_shape]))
        for position, i in enumerate(of_shape):
            yield partial(_write_one, job.folder / job.names[i], result, position)


def _write_one(path: Path, result: Callable[[], Frame], position: int) -> None:
    write_image(path, result()[position])


def _finish(job: Job, skipped: list[Skipped]) -> None:
    """Write the list of a finished video's skipped frames; rename the temporary folder to ``target``."""
    skipped += job.skipped
    note = job.folder / SKIPPED_FILE
    if job.skipped:
        write_text(note, json.dumps([asdict(entry) for entry in job.skipped], indent=2) + "\n")
    else:
        # delete the list of skipped frames of an earlier run
        note.unlink(missing_ok=True)
    # If no frame of a video is readable, the video's job stays unfinished and the next run repeats the job.
    if job.folder == job.target or not any((job.folder / name).exists() for name in job.names):
        return
    # another process has written this video: discard the copy
    if job.target.exists():
        shutil.rmtree(job.folder)
    else:
        job.folder.rename(job.target)


def claim(folder: Path, identity: dict) -> None:
    """Record a style's weights and options in `folder`; raise UserError if `folder` records others."""
    path = folder / IDENTITY_FILE
    text = json.dumps(identity, sort_keys=True) + "\n"
    if not path.exists():
        write_text(path, text)
    elif path.read_text() != text:
        raise UserError(f"{folder} was made with other options or weights: delete {folder} or change outdir")


def stylize(
    source: Path,
    targets: dict[Path, Style],
    *,
    naming: str,
    first: int = 1,
    guides: tuple[Path, ...] = (),
    batch_size: int = BATCH_SIZE,
    workers: int = 2,
    **selection: Any,
) -> int:
    """Stylize the videos at `source` in every style of `targets`; print a summary; return the exit status.

    For the parameters and the `selection` (shard, num_shards, in_place, videos) see `make_jobs`.
    """
    status = 0
    for target, style in targets.items():
        if style.guides != len(guides):
            raise UserError(f"{target.name} needs {style.guides} guide folders, but {len(guides)} were given")
        jobs = make_jobs(source, target, naming=naming, first=first, guides=guides, **selection)
        claim(target, {"style": style.identity, "naming": naming, "first": first, "quality": JPEG_QUALITY})
        skipped = generate(jobs, style, batch_size=batch_size, workers=workers)
        for entry in skipped:
            print(f"left out: {entry.video} frame {entry.frame or 'all'} ({entry.count}): {entry.reason}")
        lost = f", {sum(entry.count for entry in skipped)} left out" if skipped else ""
        print(f"{target}: {len(jobs)} videos{lost}")
        status |= bool(skipped)
    return status


@command
def main() -> int:
    """Run the command ``python -m stylize.generate``, which accepts the options of Texler et al.'s script."""
    parser = Options(__doc__, prog="python -m stylize.generate")
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="trained generator")
    add("--data_root", type=Path, default=Path(), help="folder that the other folders are relative to")
    add("--dir_input", required=True, help="folder of frames, video file, or folder of videos, in data_root")
    add("--outdir", type=Path, required=True, help="folder of the stylized frames")
    add("--device", help=f"{DEVICES} (default: a GPU if there is one)")
    for guide in GUIDES:
        add(f"--{guide}", help="folder of guide images with the names of the frames, in data_root")
    add("--batch_size", type=int, default=BATCH_SIZE, help="frames per forward pass (default: %(default)s)")
    workers = max(2, (os.cpu_count() or 2) // 2)
    add("--workers", type=int, default=workers, help="threads that decode, and as many that encode")
    about = "number format of the network (default: fp16 on a GPU, else fp32)"
    add("--precision", type=lambda p: OLD_PRECISIONS.get(p, p), choices=list(PRECISIONS), help=about)
    add("--naming", default=SAME, help="same (default: as the input), or a pattern like %%06d.jpg")
    add("--num_shards", type=int, default=1, help="parts that the videos are split into, one per command")
    add("--shard", type=int, default=0, help="part that this command does, counted from 0")
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
