"""Find run folders on disk, and report the progress of each run."""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from static_dynamic.analysis.run.locks import ERROR_NAME, LOCK_NAME, is_locked
from static_dynamic.analysis.run.store import (
    DONE,
    IMPORTED,
    REPORT_NAME,
    SKIPPED,
    STATUS_NAME,
    TO_DO,
    has_run,
    read_manifest,
)
from static_dynamic.errors import UserError

# The table of task=status shows this many characters of an error message.
REASON_WIDTH = 100
# Last files that task=profile and task=evaluate_vos write: if one of these files exists, the run is done.
LAST_FILES = (REPORT_NAME, "sequences.csv")


def finished_runs(cfg: DictConfig, task: str) -> list[Path]:
    """Return the run folders that the option ``runs`` lists; raise UserError if the list is empty."""
    if not cfg.runs:
        raise UserError(f"task={task} needs the folder of a finished run: give runs=[FOLDER]")
    return [Path(folder) for folder in cfg.runs]


def find_runs(folder: Path) -> list[Path]:
    """Return a sorted list of all run folders below a folder, including folders that hold only a lock."""
    return sorted({path.parent for name in (LOCK_NAME, STATUS_NAME) for path in folder.rglob(name)})


def progress_of(folder: Path) -> dict:
    """Return a run's state (running, failed, done, ...), numbers of views, and error message if any."""
    status = np.zeros(0, np.uint8)
    shard, imported = None, False
    if has_run(folder) and (folder / STATUS_NAME).exists():
        status = np.load(folder / STATUS_NAME, mmap_mode="r")
        identity = read_manifest(folder)["identity"]
        shard, imported = identity.get("shard"), identity.get("model", {}).get("init") == IMPORTED
    done, skipped = (int((status == value).sum()) for value in (DONE, SKIPPED))
    left = int((status == TO_DO).sum())
    reason = ""
    if is_locked(folder):
        state = "running"
    elif (folder / ERROR_NAME).exists():
        state, reason = "failed", (folder / ERROR_NAME).read_text().strip()[:REASON_WIDTH]
    elif left:
        state = "stopped"
    elif shard:
        state = "to be merged"
    else:
        state = "done" if imported or any((folder / name).exists() for name in LAST_FILES) else "stopped"
    counts = {"views": len(status), "done": done, "skipped": skipped, "left": left}
    return {"state": state, **counts, "why": reason}
