"""Find run folders on disk, and report the progress of each run."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from static_dynamic.analysis.run.arrays import STATUS_NAME, open_array
from static_dynamic.analysis.run.feature_files import FEATURES_TABLE
from static_dynamic.analysis.run.locks import ERROR_NAME, LOCK_NAME, is_locked
from static_dynamic.analysis.run.manifest import IMPORTED, has_run, read_manifest
from static_dynamic.analysis.run.store import DONE, REPORT_NAME, SKIPPED, TO_DO, Store
from static_dynamic.errors import DamagedRun, UserError, one_line

log = logging.getLogger(__name__)

# Largest number of characters of an error message in the table of task=status.
REASON_WIDTH = 100
# Last files that task=profile, evaluate_vos and features write: if one of them exists, the run is done.
LAST_FILES = (REPORT_NAME, "sequences.csv", FEATURES_TABLE)


def finished_runs(cfg: DictConfig, task: str) -> list[Path]:
    """Return the run folders that the option ``runs`` lists; raise UserError if the list is empty."""
    if not cfg.runs:
        raise UserError(f"task={task} needs the folder of a finished run: give runs=[FOLDER]")
    return [Path(folder) for folder in cfg.runs]


def undamaged(folders: Sequence[Path]) -> tuple[list[Path], list[DamagedRun]]:
    """Check all files of run folders; return the undamaged folders, and the errors of damaged folders."""
    whole, errors = [], []
    for folder in folders:
        try:
            Store.open(folder).verify()
            whole.append(folder)
        except DamagedRun as error:
            log.warning("left out: %s", error)
            errors.append(error)
    return whole, errors


def find_runs(folder: Path) -> list[Path]:
    """Return a sorted list of all run folders below a folder, including folders that hold only a lock."""
    return sorted({path.parent for name in (LOCK_NAME, STATUS_NAME) for path in folder.rglob(name)})


def progress_of(folder: Path) -> dict:
    """Return a run's state (running, failed, damaged, done, ...), numbers of views, and error message."""
    status = np.zeros(0, np.uint8)
    shard, imported, reason = None, False, ""
    if has_run(folder):
        try:
            status, identity = _status_of(folder)
            shard, imported = identity.get("shard"), identity["model"]["init"] == IMPORTED
        except DamagedRun as error:
            reason = one_line(error, REASON_WIDTH)
    done, skipped = (int((status == value).sum()) for value in (DONE, SKIPPED))
    left = int((status == TO_DO).sum())
    if reason:
        state = "damaged"
    elif is_locked(folder):
        state = "running"
    elif (folder / ERROR_NAME).exists():
        text = (folder / ERROR_NAME).read_text(encoding="utf-8", errors="replace").strip()
        state, reason = "failed", one_line(text, REASON_WIDTH)
    elif left:
        state = "stopped"
    elif shard:
        state = "to be merged"
    else:
        state = "done" if imported or any((folder / name).exists() for name in LAST_FILES) else "stopped"
    counts = {"views": len(status), "done": done, "skipped": skipped, "left": left}
    return {"state": state, **counts, "why": reason}


def _status_of(folder: Path) -> tuple[NDArray, dict]:
    """Return the status of each view of a run (an empty array without views), and the run's identity."""
    manifest = read_manifest(folder)
    identity = manifest["identity"]
    if "stages" not in manifest:
        return np.zeros(0, np.uint8), identity
    shard = identity.get("shard")
    rows = shard["end"] - shard["first"] if shard else manifest["counts"]["views"]
    return open_array(folder / STATUS_NAME, np.uint8, (rows,), "r"), identity
