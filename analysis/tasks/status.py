"""Task ``status``: what the runs below a folder have done, and what is left."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from static_dynamic.analysis.run.store import DONE, ERROR_NAME, SKIPPED, is_locked, read_manifest
from static_dynamic.analysis.show.report.page import REPORT_NAME
from static_dynamic.analysis.show.text import align
from static_dynamic.errors import UserError

REASON_WIDTH = 100
# by a profile; by an evaluation of masks, which reads no views
WRITTEN_LAST = (REPORT_NAME, "sequences.csv")


def run(cfg: DictConfig) -> None:
    """Print how far each run below ``cfg.save_dir`` is."""
    folder = Path(cfg.save_dir)
    # a run that has just begun holds a lock before it has anything else
    found = {path.parent for name in (".lock", "status.npy") for path in folder.rglob(name)}
    if not found:
        raise UserError(f"no run below {folder}: give save_dir=DIR")
    rows = [look(path) | {"run": str(path.relative_to(folder))} for path in sorted(found)]
    print(align([{"run": row.pop("run"), **row} for row in rows]))
    states = Counter(row["state"] for row in rows)
    total, left = (sum(row[key] for row in rows) for key in ("views", "left"))
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    print(f"\n{len(rows)} runs: {counts}; {total - left} of {total} views are read")


def look(folder: Path) -> dict:
    """One row of the table: state, views, done, skipped, left, and why it stopped."""
    status = np.zeros(0, np.uint8)
    shard = None
    if all((folder / name).exists() for name in ("manifest.json", "status.npy")):
        status = np.load(folder / "status.npy", mmap_mode="r")
        shard = read_manifest(folder)["identity"].get("shard")
    done, skipped = (int((status == value).sum()) for value in (DONE, SKIPPED))
    left = len(status) - done - skipped
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
        state = "done" if any((folder / name).exists() for name in WRITTEN_LAST) else "stopped"
    counts = {"views": len(status), "done": done, "skipped": skipped, "left": left}
    return {"state": state, **counts, "why": reason}
