"""Activations on disk: one memory-mapped ``.npy`` file per stage, with one row per view (network input).

    RUN/manifest.json       options that decide the activations (``identity``), stages, versions, counts,
                            skipped inputs; created last, so a folder without manifest holds no run
    RUN/views.parquet       row number, clip, style, order and frame numbers of each view
    RUN/pairs.parquet       row numbers a, b of each pair, its factor, clip and cluster
    RUN/status.npy          per view: 0 to do, 1 done, 2 skipped, 3 not needed (option ``until``)
    RUN/activations/*.npy   (views, units) float32; NaN until the view is done, so also for skipped views
                            (zero in runs that version 0.1.0 created)
    RUN/activations/logits.npy   (views, classes) float32: class scores, if the manifest has ``class_scores``
    RUN/.lock               held by the process that writes here
    RUN/error.txt           why the run stopped; removed when it resumes
    RUN/report.html         written last of all tables and figures

Rows are flushed before their status, so a resumed run knows exactly which rows are on disk. A shard has the
tables of the whole run, but only its own rows of status and activations (``identity.shard``).
"""

from __future__ import annotations

import errno
import json
import os
import time
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

from static_dynamic.errors import UserError
from static_dynamic.files import DISK_FULL, atomic_path, name_in_disk_full_error, write_text

TO_DO, DONE, SKIPPED, NOT_NEEDED = 0, 1, 2, 3
MANIFEST_NAME, STATUS_NAME, REPORT_NAME = "manifest.json", "status.npy", "report.html"
# Value of ``identity.model.init`` in runs whose activations `import_activations` wrote.
IMPORTED = "imported"
# Name of the class scores in `Store.activations` and in `VideoNetwork.read`.
LOGITS = "logits"
COMMIT_SECONDS = 5.0
# Whole files of activations are written in blocks of this many numbers, to limit memory.
NUMBERS_AT_A_TIME = 2**22


class Store:
    """Reads and writes the activations of one run. A shard's rows are numbered as in the whole run."""

    def __init__(self, path: Path, mode: Literal["r", "r+"]):
        self.path = path
        self.manifest = read_manifest(path)
        if "stages" not in self.manifest:
            raise UserError(f"{path} holds no activations: give the folder of a task=profile run")
        self.stages: dict[str, dict] = self.manifest["stages"]
        self.shard: dict | None = self.manifest["identity"].get("shard")
        self.first: int = self.shard["first"] if self.shard else 0
        self.pairs = pd.read_parquet(path / "pairs.parquet")
        try:
            self.status = np.load(path / STATUS_NAME, mmap_mode=mode)
            self._rows = {
                name: np.load(activation_file(path, name), mmap_mode=mode)
                for name in columns_of(self.manifest)
            }
        except (OSError, ValueError) as error:
            raise UserError(
                f"the activations in {path} are damaged ({error}): remove this folder and run again"
            ) from error
        for name, columns in columns_of(self.manifest).items():
            if self._rows[name].shape != (len(self.status), columns):
                raise UserError(
                    f"in {path}, the activations of {name} have another shape than manifest.json says: "
                    "remove this folder and run again"
                )
        self._finished = self.status != TO_DO  # `_finished` includes views not yet on disk
        self._uncommitted: list[NDArray] = []
        self._committed = time.monotonic()

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a run folder for reading; raise UserError if the folder holds no run, or a damaged run."""
        return cls(Path(path), "r")

    @classmethod
    def create_or_resume(cls, path: Path, manifest: dict, views: pd.DataFrame, pairs: pd.DataFrame) -> Store:
        """Open a run for writing; create it if the folder holds no run. The caller must lock the folder.

        Raises UserError if the folder holds a run with other options, or if the disk is too small.
        """
        if has_run(path):
            require_same_run(path, manifest["identity"])
        else:
            create_files(path, manifest, views, pairs)
            for name in columns_of(manifest):
                fill_with_nan(activation_file(path, name))
            write_text(path / MANIFEST_NAME, to_json(manifest))
        store = cls(path, "r+")
        reserve_space([path / STATUS_NAME, *(activation_file(path, name) for name in store.names)])
        return store

    @cached_property
    def views(self) -> pd.DataFrame:
        """Table of views; row i describes row i of the activations of the whole run."""
        return pd.read_parquet(self.path / "views.parquet")

    def activations(self, stage: str) -> NDArray:
        """Return the memory-mapped float32 activations of one stage. Shape: (views, units)."""
        if stage not in self._rows:
            raise UserError(f"{self.path} has no stage {stage!r} (stages: {', '.join(self.stages)})")
        return self._rows[stage]

    @property
    def names(self) -> list[str]:
        """Names of all stages, and ``"logits"`` if the run has class scores."""
        return list(self._rows)

    @property
    def finished(self) -> int:
        """Number of views that are computed, skipped or not needed."""
        return int(self._finished.sum())

    def to_do(self) -> NDArray:
        """Return the row numbers of the views whose activations are still to be computed."""
        return np.flatnonzero(~self._finished) + self.first

    def write(self, rows: NDArray, activations: dict[str, NDArray]) -> None:
        """Write activations to the rows `rows` (one row per view); flush the files to disk every few seconds.

        Views that were skipped before stay skipped, even if their files can be read now.
        """
        rows = rows - self.first
        kept = self.status[rows] != SKIPPED
        rows = rows[kept]
        for stage, values in activations.items():
            self._rows[stage][rows] = values[kept]
        self._uncommitted.append(rows)
        self._finished[rows] = True
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def skip(self, rows: NDArray, clip: str, reason: str) -> None:
        """Mark the views of a clip as skipped, and list the views in the manifest with the reason."""
        own = rows - self.first
        if (self.status[own] == SKIPPED).all():
            return  # the clip was skipped before this run was resumed
        entry = {"clip": clip, "views": rows.tolist(), "reason": reason}
        others = [e for e in self.manifest["skipped_views"] if e["views"] != entry["views"]]
        self.update_manifest(skipped_views=sorted([*others, entry], key=lambda e: e["views"]))
        self.status[own] = SKIPPED
        self._finished[own] = True
        self.status.flush()

    def leave_rest(self) -> None:
        """Mark all views that are still to be computed as not needed."""
        self.status[~self._finished] = NOT_NEEDED
        self._finished[:] = True
        self.status.flush()

    def copy_shard(self, shard: Store) -> None:
        """Copy the activations and the status of a finished shard into this run."""
        own = slice(shard.first, shard.first + len(shard.status))
        for stage, rows in self._rows.items():
            rows[own] = shard.activations(stage)
            rows.flush()
        self.status[own] = shard.status
        self.status.flush()
        self._finished[own] = True

    def update_manifest(self, **entries) -> None:
        """Set entries of the manifest, in memory and on disk."""
        self.manifest.update(entries)
        write_text(self.path / MANIFEST_NAME, to_json(self.manifest))

    def commit(self) -> None:
        """Flush activations to disk, then mark the views as done, so every view marked as done is on disk."""
        if self._uncommitted:
            for rows in self._rows.values():
                rows.flush()
            self.status[np.concatenate(self._uncommitted)] = DONE
            self.status.flush()
        self._uncommitted, self._committed = [], time.monotonic()

    def require_finished(self) -> None:
        """Raise UserError if the activations of a view are missing, or if the folder holds only a shard."""
        left = len(self.to_do())
        if left:
            raise UserError(
                f"{left} of {len(self.status)} views in {self.path} are not computed yet: "
                "run the command of this run again"
            )
        if self.shard:
            raise UserError(
                f"{self.path} is shard {self.shard['index']} of {self.shard['of']}: "
                "merge the shards first (task=merge)"
            )

    def finished_pairs(self) -> pd.DataFrame:
        """Return the pairs of views for which both members have activations."""
        done = self.status == DONE
        both = done[self.pairs["a"].to_numpy()] & done[self.pairs["b"].to_numpy()]
        return self.pairs[both].reset_index(drop=True)


def activation_file(path: Path, stage: str) -> Path:
    """Return the path of the file with the activations of one stage of the run in folder `path`."""
    return path / "activations" / f"{stage.replace('/', '--')}.npy"


def columns_of(manifest: dict) -> dict[str, int]:
    """Return the number of columns of each file of activations: units per stage, and classes of "logits"."""
    classes = manifest.get("class_scores", {}).get("classes")
    units = {stage: about["units"] for stage, about in manifest["stages"].items()}
    return units | ({LOGITS: classes} if classes else {})


def create_files(path: Path, manifest: dict, views: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Write all files of a new run but the manifest; status and activations are full of zeros.

    Raises UserError if the disk is too small.
    """
    shard = manifest["identity"].get("shard")
    rows = shard["end"] - shard["first"] if shard else len(views)
    (path / "activations").mkdir(parents=True, exist_ok=True)
    files = {activation_file(path, name): columns for name, columns in columns_of(manifest).items()}
    for file, columns in files.items():
        create_zeros(file, np.float32, (rows, columns))
    for name, table in (("views", views), ("pairs", pairs)):
        with atomic_path(path / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    create_zeros(path / STATUS_NAME, np.uint8, (rows,))
    reserve_space([path / STATUS_NAME, *files])


def create_zeros(file: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Create a ``.npy`` file of zeros that can be memory-mapped; overwrite an existing file."""
    with name_in_disk_full_error(file):
        open_memmap(file, "w+", dtype, shape).flush()


def fill_with_nan(file: Path) -> None:
    """Set all numbers of a float32 ``.npy`` file to NaN."""
    stored = np.load(file, mmap_mode="r")
    block = np.full(min(stored.size, NUMBERS_AT_A_TIME), np.nan, np.float32)
    with name_in_disk_full_error(file), file.open("r+b") as opened:
        opened.seek(stored.offset)
        for start in range(0, stored.size, NUMBERS_AT_A_TIME):
            opened.write(block.data[: stored.size - start])


def reserve_space(files: list[Path]) -> None:
    """Allocate disk space now, because writing a memory-mapped file on a full disk kills the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    for file in files:
        with file.open("r+b") as opened:
            size = os.fstat(opened.fileno()).st_size
            try:
                os.posix_fallocate(opened.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (*DISK_FULL, errno.EFBIG):
                    return  # this file system cannot allocate space in advance, so go on without
                raise UserError(
                    f"no space on the disk for {file} ({size / 2**20:.0f} MiB): free some space and "
                    "give the same command again, or give another save_dir"
                ) from error


def has_run(path: Path) -> bool:
    """Return whether a folder holds a run; ``manifest.json`` is the last file created in a new run folder."""
    return (path / MANIFEST_NAME).exists()


def read_manifest(path: Path) -> dict:
    """Read ``manifest.json`` of a run folder; raise UserError if the file is missing or damaged."""
    file = path / MANIFEST_NAME
    if not has_run(path):
        raise UserError(f"{path} is not a run folder (there is no {MANIFEST_NAME})")
    try:
        manifest = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is damaged ({error}): remove the run folder and run again") from error
    if not isinstance(manifest, dict) or "identity" not in manifest:
        raise UserError(f"{path} is not a run folder (another program wrote {MANIFEST_NAME})")
    return manifest


def require_same_run(path: Path, identity: dict) -> None:
    """Raise UserError if a folder holds a run with other options or inputs than `identity`."""
    if not has_run(path):
        return
    changed = differences(read_manifest(path)["identity"], identity)
    if changed:
        raise UserError(
            f"{path} holds a run with other options ({'; '.join(changed)}): "
            "give another save_dir, or remove this folder"
        )


def to_json(content: dict) -> str:
    """Return a dict as the text of a json file; equal dicts give equal texts."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Return the entries in which two nested dicts differ, as texts like ``seed: 1 there, 2 now``."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} there, {b} now")
    return found
