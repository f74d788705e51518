"""Task ``status``: print the progress of all runs below a folder."""

from collections import Counter
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.run.progress import find_runs, progress_of
from static_dynamic.analysis.show.text import align
from static_dynamic.errors import UserError


def run(cfg: DictConfig) -> None:
    """Print the state of each run below ``cfg.save_dir``, and how many of its views are done."""
    root = Path(cfg.save_dir)
    rows = [{"run": str(folder.relative_to(root)), **progress_of(folder)} for folder in find_runs(root)]
    if not rows:
        raise UserError(f"no run below {root}: give the folder that holds the runs as save_dir=FOLDER")
    print(align(rows))
    states = Counter(row["state"] for row in rows)
    total, left = (sum(row[key] for row in rows) for key in ("views", "left"))
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    print(f"\n{len(rows)} runs: {counts}; {total - left} of {total} views are read")
