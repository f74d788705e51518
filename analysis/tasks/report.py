"""Task ``report``: write one HTML page for each finished run."""

import logging

from omegaconf import DictConfig

from static_dynamic.analysis.run.progress import finished_runs
from static_dynamic.analysis.show.report.page import write_report
from static_dynamic.errors import DamagedRun, UserError

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Write ``report.html`` into the folder of each run; a damaged run does not stop the other reports."""
    folders, errors = finished_runs(cfg, "report"), []
    for folder in folders:
        try:
            print(f"written: {write_report(folder)}")
        except DamagedRun as error:
            log.warning("no report: %s", error)
            errors.append(error)
    if errors:
        raise UserError(f"{len(errors)} of {len(folders)} runs have no report; the first error: {errors[0]}")
