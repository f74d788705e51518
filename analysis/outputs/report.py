"""``report.html``: the run as one page, written last because it shows the tables and figures of the others."""

from __future__ import annotations

from static_dynamic.analysis.outputs.registry import FinishedRun, register
from static_dynamic.analysis.show.report.page import write_report


@register("report", order=90)
def write_page(run: FinishedRun) -> None:
    """Write the report."""
    write_report(run.folder)
