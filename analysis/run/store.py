"""Activations on disk: one memory-mapped ``.npy`` a stage, one row a view, and what says where they come
from.

    RUN/manifest.json       what was asked for (``identity``), stages, versions, counts, skipped inputs; last
    RUN/views.parquet       the row number, clip, style, order and frames of each view
    RUN/pairs.parquet       the row numbers a, b of each pair, its factor, clip and cluster
    RUN/status.npy          per view: 0 to do, 1 done, 2 skipped
    RUN/activations/*.npy   (views, units) float32
    RUN/.lock               held by the process that writes here
    RUN/error.txt           why the run stopped, until it goes on

Rows are flushed before their status, so that a killed run knows exactly what it has. A shard has the tables
of the whole run, and status and activations of its own rows (``identity.shard``).
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from static_dynamic.errors import UserError
from static_dynamic.files import DISK_FULL, atomic_path, name_in_disk_full_error, remove_leftovers, write_text

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

log = logging.getLogger(__name__)

TO_DO, DONE, SKIPPED = 0, 1, 2
COMMIT_SECONDS = 5.0
# `is_locked` of another process has the lock for a moment, and a killed one while it is being cleared away
LOCK_WAITS = (0.1, 0.3)
LOCK_NAME, ERROR_NAME = ".lock", "error.txt"


class Store:
    """One run folder; see the module's text for its files. Row numbers are those of the whole run."""

    def __init__(self, path: Path, mode: str):
        self.path = path
        self.manifest = read_manifest(path)
        if "stages" not in self.manifest:
            raise UserError(f"{path} holds no activations: give the folder of a run of task=profile")
        self.stages: dict[str, dict] = self.manifest["stages"]
        self.shard: dict | None = self.manifest["identity"].get("shard")
        self.first = self.shard["first"] if self.shard else 0
        self.pairs = pd.read_parquet(path / "pairs.parquet")
        try:
            self.status = np.load(path / "status.npy", mmap_mode=mode)
            self._rows = {stage: np.load(self._file(path, stage), mmap_mode=mode) for stage in self.stages}
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: activations are damaged ({error}): remove the folder and run again"
            ) from error
        for stage, about in self.stages.items():
            if self._rows[stage].shape != (len(self.status), about["units"]):
                raise UserError(
                    f"{path}: activations of {stage} have another shape than the manifest says: "
                    "remove the folder and run again"
                )
        self._finished = self.status != TO_DO  # with what is written and not committed yet
        self._pending: list[NDArray] = []
        self._committed = time.monotonic()

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a run folder to read it.

        Raises
        ------
        UserError
            No run folder, or a damaged one.
        """
        return cls(Path(path), "r")

    @classmethod
    def create_or_resume(cls, path: Path, manifest: dict, views: pd.DataFrame, pairs: pd.DataFrame) -> Store:
        """Open a run folder to go on with it; made first where it is not there. Hold `locked` meanwhile.

        Raises
        ------
        UserError
            Where the folder holds a run that asked for something else (the line says what differs), or the
            disk has no room for the activations.
        """
        shard = manifest["identity"].get("shard")
        rows = shard["end"] - shard["first"] if shard else len(views)
        if not (path / "manifest.json").exists():
            (path / "activations").mkdir(parents=True, exist_ok=True)
            for stage, about in manifest["stages"].items():
                allot(cls._file(path, stage), np.float32, (rows, about["units"]))
            for name, table in (("views", views), ("pairs", pairs)):
                with atomic_path(path / f"{name}.parquet") as temporary:
                    table.to_parquet(temporary, index=False)
            allot(path / "status.npy", np.uint8, (rows,))
            reserve([path / "status.npy", *(cls._file(path, stage) for stage in manifest["stages"])])
            write_text(path / "manifest.json", to_json(manifest))
        store = cls(path, "r+")
        changed = differences(store.manifest["identity"], manifest["identity"])
        if changed:
            raise UserError(
                f"{path} holds a run that differs from what is asked for now ({'; '.join(changed)}): "
                "give another save_dir or remove that folder"
            )
        reserve([path / "status.npy", *(cls._file(path, stage) for stage in store.stages)])
        return store

    @staticmethod
    def _file(path: Path, stage: str) -> Path:
        return path / "activations" / f"{stage.replace('/', '--')}.npy"

    def activations(self, stage: str) -> NDArray:
        """Rows of one stage, (views, units) float32, memory-mapped."""
        if stage not in self._rows:
            raise UserError(f"{self.path} has no stage {stage!r} (stages: {', '.join(self.stages)})")
        return self._rows[stage]

    @property
    def finished(self) -> int:
        """Number of views that were read or skipped."""
        return int(self._finished.sum())

    def to_do(self) -> NDArray:
        """Row numbers of the views that are still to be read."""
        return np.flatnonzero(~self._finished) + self.first

    def write(self, rows: NDArray, activations: dict[str, NDArray]) -> None:
        """Keep the activations of some views; on disk for good within seconds, or at `commit`.

        Views that were left out before stay out, whatever their file yields now.
        """
        rows = rows - self.first
        kept = self.status[rows] != SKIPPED
        rows = rows[kept]
        for stage, values in activations.items():
            self._rows[stage][rows] = values[kept]
        self._pending.append(rows)
        self._finished[rows] = True
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def skip(self, rows: NDArray, clip: str, reason: str) -> None:
        """Leave views out, named with the reason in the manifest, in row order."""
        own = rows - self.first
        if (self.status[own] == SKIPPED).all():
            return  # by the run that this one goes on with
        entry = {"clip": clip, "views": rows.tolist(), "reason": reason}
        others = [e for e in self.manifest["skipped_views"] if e["views"] != entry["views"]]
        self.note(skipped_views=sorted([*others, entry], key=lambda e: e["views"]))
        self.status[own] = SKIPPED
        self._finished[own] = True
        self.status.flush()

    def adopt(self, shard: Store) -> None:
        """Take over the rows of a finished shard."""
        own = slice(shard.first, shard.first + len(shard.status))
        for stage, rows in self._rows.items():
            rows[own] = shard.activations(stage)
            rows.flush()
        self.status[own] = shard.status
        self.status.flush()
        self._finished[own] = True

    def note(self, **entries) -> None:
        """Write entries of the manifest."""
        self.manifest.update(entries)
        write_text(self.path / "manifest.json", to_json(self.manifest))

    def commit(self) -> None:
        """Flush rows, then their status."""
        if self._pending:
            for rows in self._rows.values():
                rows.flush()
            self.status[np.concatenate(self._pending)] = DONE
            self.status.flush()
        self._pending, self._committed = [], time.monotonic()

    def require_finished(self) -> None:
        """Raise where views are still to be read, or the folder holds one shard of a run."""
        left = len(self.to_do())
        if left:
            raise UserError(
                f"{self.path}: {left} of {len(self.status)} views are still to be read: "
                "run the same command again"
            )
        if self.shard:
            raise UserError(
                f"{self.path} is shard {self.shard['index']} of {self.shard['of']}: "
                "merge them first (task=merge)"
            )

    def finished_pairs(self) -> pd.DataFrame:
        """The pairs of which both members were read."""
        done = self.status == DONE
        return self.pairs[done[self.pairs["a"].to_numpy()] & done[self.pairs["b"].to_numpy()]].reset_index(
            drop=True
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the one run that writes to a folder; what a killed run left half-written there is removed.

    The lock belongs to the process and goes with it, however it ends; forked workers do not inherit it.

    Raises
    ------
    UserError
        Where another run writes there.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOCK_NAME).open("a") as file:
        if fcntl is None:
            log.warning("%s cannot be locked on this system: let no other run write there", path)
        elif not take(file, path, LOCK_WAITS):
            raise UserError(
                f"{path}: another run writes there: wait for it (task=status shows how far it is), "
                "or give another save_dir"
            )
        remove_leftovers(path)
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """`locked`, and an error that stops the run is left in ``error.txt`` until the run goes on."""
    with locked(path):
        (path / ERROR_NAME).unlink(missing_ok=True)
        try:
            yield
        except UserError as error:
            with suppress(OSError):  # a disk that is full has no room for that either
                write_text(path / ERROR_NAME, f"{error}\n")
            raise


def take(file, path: Path, waits: tuple[float, ...] = ()) -> bool:
    """Take the lock; False where another process has it, and still has it after some waits (seconds)."""
    for wait in (*waits, None):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                log.warning("%s lies on a file system without locks: let no other run write there", path)
                return True
        if wait is not None:
            time.sleep(wait)
    return False


def is_locked(path: Path) -> bool:
    """Whether some other process writes to a run folder now."""
    try:
        with (path / LOCK_NAME).open("r+") as file:
            return fcntl is not None and not take(file, path)
    except OSError:
        return False  # no lock was ever taken there, or it is not ours to take


def allot(file: Path, kind: type, shape: tuple[int, ...]) -> None:
    """Make a file of zeros that can be mapped, in place of one that a killed run began."""
    with name_in_disk_full_error(file):
        open_memmap(file, "w+", kind, shape).flush()


def reserve(files: list[Path]) -> None:
    """Take the room of files on the disk now: a write to a mapped file finds no other end than a crash where
    the disk is full."""
    if not hasattr(os, "posix_fallocate"):
        return
    for file in files:
        with file.open("r+b") as opened:
            size = os.fstat(opened.fileno()).st_size
            try:
                os.posix_fallocate(opened.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (*DISK_FULL, errno.EFBIG):
                    return  # this file system cannot reserve
                raise UserError(
                    f"no space on the disk for {file} ({size / 2**20:.0f} MiB): free some and give the same "
                    "command again, or give another save_dir"
                ) from error


def read_manifest(path: Path) -> dict:
    """The manifest of a run folder.

    Raises
    ------
    UserError
        No run folder, or a damaged manifest.
    """
    file = path / "manifest.json"
    if not file.exists():
        raise UserError(f"{path} is not a run folder (it has no manifest.json)")
    try:
        manifest = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is damaged ({error}): remove the folder and run again") from error
    if not isinstance(manifest, dict) or "identity" not in manifest:
        raise UserError(f"{path} is not a run folder (its manifest.json is another program's)")
    return manifest


def to_json(content: dict) -> str:
    """The form in which manifests are written: same content, same bytes."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Say which entries differ between two nested dicts, e.g. ``seed: 1 there, 2 now``."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} there, {b} now")
    return found
