"""Activations on disk: one memory-mapped ``.npy`` a stage, one row a view, and what says where they come
from.

    RUN/manifest.json       what was asked for (``identity``), stages, versions, counts, skipped inputs; last
    RUN/views.parquet       the row number, clip, style, order and frames of each view
    RUN/pairs.parquet       the row numbers a, b of each pair, its factor, clip and cluster
    RUN/status.npy          per view: 0 to do, 1 done, 2 skipped
    RUN/activations/*.npy   (views, units) float32

Rows are flushed before their status, so that a killed run knows exactly what it has.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from configs import UserError
from configs.files import atomic_path, write_text

TO_DO, DONE, SKIPPED = 0, 1, 2
COMMIT_SECONDS = 5.0


class Store:
    """One run folder; see the module's text for its files."""

    def __init__(self, path: Path, mode: str):
        self.path = path
        self.manifest = read_manifest(path)
        self.stages: dict[str, dict] = self.manifest["stages"]
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
        """Open a run folder to go on with it; made first where it is not there.

        Raises
        ------
        UserError
            Where the folder holds a run that asked for something else; the line says what differs.
        """
        if not (path / "manifest.json").exists():
            path.mkdir(parents=True, exist_ok=True)
            (path / "activations").mkdir(exist_ok=True)
            for stage, about in manifest["stages"].items():
                open_memmap(cls._file(path, stage), "w+", np.float32, (len(views), about["units"])).flush()
            for name, table in (("views", views), ("pairs", pairs)):
                with atomic_path(path / f"{name}.parquet") as temporary:
                    table.to_parquet(temporary, index=False)
            open_memmap(path / "status.npy", "w+", np.uint8, (len(views),)).flush()
            write_text(path / "manifest.json", to_json(manifest))
        store = cls(path, "r+")
        changed = differences(store.manifest["identity"], manifest["identity"])
        if changed:
            raise UserError(
                f"{path} holds a run that differs from what is asked for now ({'; '.join(changed)}): "
                "give another save_dir or remove that folder"
            )
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
        return np.flatnonzero(~self._finished)

    def write(self, rows: NDArray, activations: dict[str, NDArray]) -> None:
        """Keep the activations of some views; on disk for good within seconds, or at `commit`."""
        for stage, values in activations.items():
            self._rows[stage][rows] = values
        self._pending.append(rows)
        self._finished[rows] = True
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def skip(self, rows: NDArray, clip: str, reason: str) -> None:
        """Leave views out, named with the reason in the manifest."""
        if (self.status[rows] == SKIPPED).all():
            return  # by the run that this one goes on with
        self.manifest["skipped_views"].append({"clip": clip, "views": rows.tolist(), "reason": reason})
        write_text(self.path / "manifest.json", to_json(self.manifest))
        self.status[rows] = SKIPPED
        self._finished[rows] = True
        self.status.flush()

    def commit(self) -> None:
        """Flush rows, then their status."""
        if self._pending:
            for rows in self._rows.values():
                rows.flush()
            self.status[np.concatenate(self._pending)] = DONE
            self.status.flush()
        self._pending, self._committed = [], time.monotonic()

    def require_finished(self) -> None:
        """Raise where views are still to be read."""
        left = len(self.to_do())
        if left:
            raise UserError(
                f"{self.path}: {left} of {len(self.status)} views are still to be read: "
                "run the same command again"
            )

    def finished_pairs(self) -> pd.DataFrame:
        """The pairs of which both members were read."""
        done = self.status == DONE
        return self.pairs[done[self.pairs["a"].to_numpy()] & done[self.pairs["b"].to_numpy()]].reset_index(
            drop=True
        )


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
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is damaged ({error}): remove the folder and run again") from error


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
