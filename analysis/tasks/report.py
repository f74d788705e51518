"""Task ``report``: write one HTML page for each finished run."""

from omegaconf import DictConfig

from static_dynamic.analysis.run.progress import finished_runs
from static_dynamic.analysis.show.report.page import write_report


def run(cfg: DictConfig) -> None:
    """Write ``report.html`` into the folder of each run in ``cfg.runs``."""
    for folder in finished_runs(cfg, "report"):
        print(f"written: {write_report(folder)}")
