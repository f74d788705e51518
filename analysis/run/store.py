"""Activations on disk: one memory-mapped ``.npy`` file per stage, with one row per view (network input).

    RUN/manifest.json       options that decide the activations (``identity``), stages, versions, counts,
                            skipped inputs, hashes of the two tables; created last
    RUN/views.parquet       row number, clip, style, order and frame numbers of each view
    RUN/pairs.parquet       row numbers a, b of each pair, its factor, clip and cluster
    RUN/status.npy          per view: 0 to do, 1 done, 2 skipped, 3 not needed (option ``until``)
    RUN/activations/*.npy   (views, units) float32; NaN until the view is done, so also for skipped views
                            (zero in runs that version 0.1.0 created)
    RUN/activations/logits.npy   (views, classes) float32: class scores, if the manifest has ``class_scores``
    RUN/checksums.npy       (views, files) uint32: CRC-32 of each row of each file of activations
    RUN/pixels.npy          per view: CRC-32 of the decoded frames; 0 until done
    RUN/SHA256SUMS          hashes of the tables of results
    RUN/.lock               held by the process that writes here
    RUN/error.txt           why the run stopped; removed when it resumes
    RUN/report.html         written last of all tables and figures

Rows and checksums are flushed before their status, so a resumed run knows exactly which rows are on disk. A
shard has the tables of the whole run, but only its own rows of the arrays (``identity.shard``). Runs of
earlier versions have no checksums and no ``pixels.npy``; their rows are read unchecked.
"""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.run.arrays import (
    CHECKSUMS_NAME,
    PIXELS_NAME,
    STATUS_NAME,
    activation_file,
    checksums_of,
    create_files,
    fill_with_nan,
    first_damaged,
    open_array,
    release,
    reserve_space,
)
from static_dynamic.analysis.run.manifest import (
    CELLS,
    columns_of,
    has_run,
    read_manifest,
    require_same_run,
    write_manifest,
)
from static_dynamic.analysis.run.tables import TABLES, read_table
from static_dynamic.errors import DamagedRun, UserError

TO_DO, DONE, SKIPPED, NOT_NEEDED = 0, 1, 2, 3
REPORT_NAME = "report.html"
COMMIT_SECONDS = 5.0
VIEW_COLUMNS = ("clip", "video", "cluster", "label", "style", "order")
PAIR_COLUMNS = ("a", "b", "factor", "clip", "cluster")


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
        end = self.shard["end"] if self.shard else self.manifest["counts"]["views"]
        columns, rows = columns_of(self.manifest), end - self.first
        self.pairs = self._table(TABLES[1], PAIR_COLUMNS)
        self.status = open_array(path / STATUS_NAME, np.uint8, (rows,), mode)
        self._rows = {
            name: open_array(activation_file(path, name), np.float32, (rows, count), mode)
            for name, count in columns.items()
        }
        self._checksums: np.memmap | None = None
        self._pixels: np.memmap | None = None
        # runs of earlier versions have no checksums
        if (path / CHECKSUMS_NAME).exists():
            self._checksums = open_array(path / CHECKSUMS_NAME, np.uint32, (rows, len(columns)), mode)
            self._pixels = open_array(path / PIXELS_NAME, np.uint32, (rows,), mode)
        self._require_consistent()
        # `fresh` is True until `extract` has checked that the run can be resumed
        self.fresh = True
        # stages whose rows were compared with their checksums
        self._checked: set[str] = set()
        # `_finished` is True also for views that are not flushed yet
        self._finished = self.status != TO_DO
        self._uncommitted: list[NDArray] = []
        self._committed = time.monotonic()

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a run for reading; raise UserError if the folder has no run, DamagedRun if it is damaged."""
        return cls(Path(path), "r")

    @classmethod
    def create_or_resume(cls, path: Path, manifest: dict, views: pd.DataFrame, pairs: pd.DataFrame) -> Store:
        """Open a run for writing; create it if the folder holds no run. The caller must lock the folder.

        Raises UserError if the folder holds a run with other options, or if the disk is too small.
        """
        if has_run(path):
            require_same_run(path, manifest["identity"])
        else:
            manifest = create_files(path, manifest, views, pairs)
            for name in columns_of(manifest):
                fill_with_nan(activation_file(path, name))
            write_manifest(path, manifest)
        store = cls(path, "r+")
        reserve_space([path / STATUS_NAME, *(activation_file(path, name) for name in store.names)])
        return store

    @cached_property
    def views(self) -> pd.DataFrame:
        """Table of the whole run's views: row i describes the view whose activations are in row i."""
        views = self._table(TABLES[0], VIEW_COLUMNS)
        if len(views) != self.manifest["counts"]["views"]:
            raise self._damaged(f"{TABLES[0]} has {len(views)} rows")
        return views

    def activations(self, stage: str) -> NDArray:
        """Return the memory-mapped float32 activations of one stage. Shape: (views, units).

        Raises UserError for an unknown stage, DamagedRun for a row that does not have its checksum.
        """
        if stage not in self._rows:
            raise UserError(f"{self.path} has no stage {stage!r} (stages: {', '.join(self.stages)})")
        if stage not in self._checked and self._checksums is not None:
            sums = self._checksums[:, list(self._rows).index(stage)]
            wrong = first_damaged(self._rows[stage], np.flatnonzero(self.status == DONE), sums)
            if wrong is not None:
                raise self._damaged(f"the activations of {stage} differ from their checksum in row {wrong}")
            self._checked.add(stage)
        return self._rows[stage]

    def verify(self) -> None:
        """Read every table and every row of a run; raise DamagedRun if one of them is damaged."""
        assert len(self.views)
        for name in self.names:
            self.activations(name)

    @property
    def names(self) -> list[str]:
        """Names of all stages, and ``"logits"`` if the run has class scores."""
        return list(self._rows)

    @property
    def pixels(self) -> NDArray | None:
        """CRC-32 of the decoded frames of each view, 0 if unknown; None in runs of earlier versions."""
        return self._pixels

    @property
    def finished(self) -> int:
        """Number of views that are computed, skipped or not needed."""
        return int(self._finished.sum())

    def to_do(self) -> NDArray:
        """Return the row numbers of the views whose activations are still to be computed."""
        return np.flatnonzero(~self._finished) + self.first

    def done(self) -> NDArray:
        """Return the row numbers of the views whose activations are on disk."""
        return np.flatnonzero(self.status == DONE) + self.first

    def write(self, rows: NDArray, activations: dict[str, NDArray], pixels: NDArray | None = None) -> None:
        """Write activations to the rows `rows` (one row per view); flush the files to disk every few seconds.

        `pixels` (views,) has the CRC-32 of the decoded frames. Views that were skipped before stay skipped,
        even if their files can be read now.
        """
        rows = rows - self.first
        kept = self.status[rows] != SKIPPED
        rows = rows[kept]
        for k, (stage, stored) in enumerate(self._rows.items()):
            stored[rows] = activations[stage][kept]
            if self._checksums is not None:
                self._checksums[rows, k] = checksums_of(stored[rows])
        if self._pixels is not None and pixels is not None:
            self._pixels[rows] = pixels[kept]
        self._uncommitted.append(rows)
        self._finished[rows] = True
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def skip(self, rows: NDArray, clip: str, reason: str) -> None:
        """Mark the views of a clip as skipped; list the views, with the reason, in the manifest."""
        own = rows - self.first
        if (self.status[own] == SKIPPED).all():
            # the clip was skipped, and listed in the manifest, before this run was resumed
            return
        entry = {"clip": clip, "views": rows.tolist(), "reason": reason}
        others = [e for e in self.manifest["skipped_views"] if e["views"] != entry["views"]]
        self.update_manifest(skipped_views=sorted([*others, entry], key=lambda e: e["views"]))
        self._leave_out(own, SKIPPED)

    def leave_rest(self) -> None:
        """Mark all views that are still to be computed as not needed."""
        self._leave_out(np.flatnonzero(~self._finished), NOT_NEEDED)

    def copy_shard(self, shard: Store) -> None:
        """Copy the activations and the status of a finished shard into this run."""
        own = slice(shard.first, shard.first + len(shard.status))
        for stage, rows in self._rows.items():
            rows[own] = shard.activations(stage)
            rows.flush()
        if self._checksums is not None and self._pixels is not None:
            done = shard.status == DONE
            for k, rows in enumerate(self._rows.values()):
                self._checksums[own, k][done] = checksums_of(rows[own][done])
            self._pixels[own] = 0 if shard.pixels is None else shard.pixels
            self._flush_checksums()
        self.status[own] = shard.status
        self.status.flush()
        self._finished[own] = True

    def update_manifest(self, **entries) -> None:
        """Set entries of the manifest, in memory and on disk."""
        self.manifest.update(entries)
        write_manifest(self.path, self.manifest)

    def commit(self) -> None:
        """Flush activations to disk, then mark their views as done."""
        if self._uncommitted:
            for name, rows in self._rows.items():
                # cells are many times larger than stages, and are not read again before the end
                (release if name.endswith(CELLS) else np.memmap.flush)(rows)
            self._flush_checksums()
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

    def _leave_out(self, own: NDArray, status: int) -> None:
        """Set the status of the rows `own` without activations; row 0 is the first row of this store."""
        for sums in (self._checksums, self._pixels):
            if sums is not None:
                sums[own] = 0
        self._flush_checksums()
        self.status[own] = status
        self._finished[own] = True
        self.status.flush()

    def _flush_checksums(self) -> None:
        for sums in (self._checksums, self._pixels):
            if sums is not None:
                sums.flush()

    def _table(self, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
        """Read ``views.parquet`` or ``pairs.parquet``."""
        return read_table(self.path / name, columns, self.manifest.get("files_sha256", {}).get(name))

    def _damaged(self, wrong: str) -> DamagedRun:
        return DamagedRun(f"{self.path} is damaged ({wrong}): remove this folder and run again")

    def _require_consistent(self) -> None:
        """Raise DamagedRun if pairs refer to missing rows, or if the status contradicts other files."""
        members = self.pairs[["a", "b"]].to_numpy()
        if members.dtype.kind != "i" or ((members < 0) | (members >= self.manifest["counts"]["views"])).any():
            raise self._damaged(f"{TABLES[1]} names views that do not exist")
        if self.status.max(initial=0) > NOT_NEEDED:
            raise self._damaged(f"{STATUS_NAME} holds {self.status.max()}")
        if self._checksums is None:
            return
        listed = np.zeros(len(self.status), bool)
        for entry in self.manifest["skipped_views"]:
            own = np.array(entry["views"], int) - self.first
            listed[own[(own >= 0) & (own < len(listed))]] = True
        if (listed < (self.status == SKIPPED)).any():
            raise self._damaged(f"{STATUS_NAME} marks views as skipped that the manifest does not list")
        summed = self._checksums.all(axis=1)
        if (summed < (self.status == DONE)).any() or (summed & (self.status == NOT_NEEDED)).any():
            raise self._damaged(f"{STATUS_NAME} does not fit {CHECKSUMS_NAME}")
