"""Check that a resumed run has the same pixels, network and software as when it began.

Two clips that are on disk are read again; their frames and activations must be those of the run. Files whose
size or time changed since the run began are decoded again, and their frames must be the same.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.run.forward import (
    BF16_TOLERANCE,
    FP32_TOLERANCE,
    Inputs,
    Reader,
    count_views,
    map_tensors,
)
from static_dynamic.analysis.run.manifest import differences
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.run.tables import read_table, write_unlisted
from static_dynamic.assets import versions
from static_dynamic.datasets import ClipList
from static_dynamic.datasets.loader import Decoded
from static_dynamic.datasets.workers import loader
from static_dynamic.errors import UserError
from static_dynamic.models import InputSpec
from static_dynamic.models.source_code import source_hashes
from static_dynamic.spacing import evenly_spaced

log = logging.getLogger(__name__)

# Number of finished clips that a resumed run computes again, to check that nothing changed.
CLIPS_AGAIN = 2
INPUTS_NAME = "inputs.parquet"
WAY_OUT = "restore what changed, or give another save_dir to begin anew"


def require_unchanged(
    reader: Reader,
    clips: ClipList,
    views: pd.DataFrame,
    store: Store,
    inputs_of: Callable[[list[Decoded]], Inputs],
    batch_rows: int,
    clip_timeout: float,
    num_workers: int,
) -> None:
    """Compute some finished clips again; raise UserError, naming what changed, if activations differ.

    The parameters are those of `extract`; `inputs_of` makes a network input from a decoded batch.
    """
    spec, done = reader.net.input_spec, store.done()
    clip_of = views["clip"].to_numpy()
    for clip in dict.fromkeys(clip_of[done[evenly_spaced(CLIPS_AGAIN, len(done))]]):
        # start of the clip's first batch
        first = done[clip_of[done] == clip][0] // batch_rows * batch_rows
        rows = done[(done >= first) & (done < first + batch_rows) & (clip_of[done] == clip)]
        (batch,) = loader(clips.batches(views, rows, len(rows), spec), min(num_workers, 1), clip_timeout)
        require_same_pixels(batch, store)
        again = read_padded(reader, inputs_of(batch), batch_rows // clips.rows_per_view)
        order = np.concatenate([decoded.rows for decoded in batch])
        require_same_rows(reader, store, str(clip), order, again)


def read_padded(reader: Reader, inputs: Inputs, size: int) -> dict[str, NDArray]:
    """Compute activations of a few views; repeat the views to fill a batch of `size` views, as in the run."""
    n = count_views(inputs)
    repeated = torch.arange(max(n, size), device=reader.device) % n
    rows = reader.read(map_tensors(inputs, lambda x: x[repeated]))
    per_view = len(next(iter(rows.values()))) // len(repeated)
    return {stage: values[: n * per_view].float().cpu().numpy() for stage, values in rows.items()}


def require_same_pixels(batch: list[Decoded], store: Store) -> None:
    """Raise UserError if a frame that the run has read before is unreadable now or has other pixels."""
    for decoded in batch:
        place = f"clip {decoded.clip}, style {decoded.style}"
        if decoded.digests is None:
            raise UserError(
                f"{place} was read when the run in {store.path} began, and cannot be read now "
                f"({decoded.error}): {WAY_OUT}"
            )
        if store.pixels is None:
            continue
        before = store.pixels[decoded.rows - store.first]
        if ((before != decoded.digests) & (before != 0)).any():
            raise UserError(f"the pixels of {place} changed since the run in {store.path} began: {WAY_OUT}")


def require_same_rows(
    reader: Reader, store: Store, clip: str, rows: NDArray, again: dict[str, NDArray]
) -> None:
    """Raise UserError if recomputed activations differ from those on disk by more than a tolerance.

    With the same versions of all packages, the relative error may be as large as for other kernels
    (`FP32_TOLERANCE`); with other versions, activations must be equal bit by bit.
    """
    same_versions = not differences(store.manifest.get("versions", {}), versions())
    tolerance = (BF16_TOLERANCE if reader.bf16 else FP32_TOLERANCE) if same_versions else 0.0
    for stage, values in again.items():
        old = store.activations(stage)[rows - store.first].astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = (
                np.sqrt(np.square(values - old).mean() / np.square(old).mean())
                if (values != old).any()
                else 0
            )
        if not error <= tolerance:
            raise UserError(
                f"{store.path}: clip {clip} has other activations at {stage} than when the run began "
                f"(relative error {error:.2g}), because {what_changed(reader, store)}: {WAY_OUT}"
            )


def what_changed(reader: Reader, store: Store) -> str:
    """Return a text that lists known differences between the process that began the run and this process."""
    now = {"versions": versions(), "network_code": source_hashes(reader.net)}
    before = {key: store.manifest.get(key, {}) for key in now}
    found = differences({"": before["versions"]}, {"": now["versions"]})
    modules = [name for name, sha in now["network_code"].items() if before["network_code"].get(name) != sha]
    if modules and before["network_code"]:
        found.append(f"the code of the network changed ({', '.join(modules)})")
    return "; ".join(text.lstrip(".") for text in found) or "the code, the weights or the device changed"


def input_files(clips: ClipList) -> pd.DataFrame:
    """Return size and modification time (nanoseconds) of each file or folder with frames."""
    rows = []
    for video in dict.fromkeys(clip.video for clip in clips.clips):
        for style in clips.styles:
            for path in clips.paths_of(video, style):
                try:
                    found = path.stat()
                    size = 0 if path.is_dir() else found.st_size
                    rows.append((video, style, path.name, size, found.st_mtime_ns))
                except OSError:
                    rows.append((video, style, path.name, -1, 0))
    return pd.DataFrame(rows, columns=["video", "style", "file", "size", "time"])


def require_same_files(
    clips: ClipList,
    views: pd.DataFrame,
    store: Store,
    spec: InputSpec,
    clip_timeout: float,
    num_workers: int,
) -> None:
    """Decode files of finished views again if they changed on disk; raise UserError if pixels changed.

    At the beginning of a run, the sizes and times of all files are written to ``inputs.parquet``.
    """
    file: Path = store.path / INPUTS_NAME
    now = input_files(clips)
    if file.exists():
        before = read_table(file, now.columns)
        rows = changed_rows(before, now, views, store.done())
        if len(rows):
            log.warning(
                "files of %d finished views have another size or time than when the run began: their frames "
                "are compared",
                len(rows),
            )
            batches = loader(
                clips.batches(views, rows, 8 * clips.rows_per_view, spec), num_workers, clip_timeout
            )
            for batch in tqdm(batches, desc="compare frames", total=-(-len(rows) // 8), unit="batch"):
                require_same_pixels(batch, store)
    elif len(store.done()):
        # earlier versions wrote no ``inputs.parquet``, so changed files are unknown
        return
    write_unlisted(file, now)


def changed_rows(before: pd.DataFrame, now: pd.DataFrame, views: pd.DataFrame, done: NDArray) -> NDArray:
    """Return the row numbers in `done` whose video files differ between the tables `before` and `now`."""
    both = now.merge(before, how="left", on=list(now.columns), indicator=True)
    changed = both.loc[both["_merge"] != "both", ["video", "style"]]
    keys = pd.MultiIndex.from_frame(views[["video", "style"]].iloc[done])
    return done[keys.isin(pd.MultiIndex.from_frame(changed))]
