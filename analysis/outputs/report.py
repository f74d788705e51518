"""``report.html``: the run as one page. It is written last, because it shows the other tables and figures."""

from static_dynamic.analysis.outputs.registry import FinishedRun, register
from static_dynamic.analysis.show.report.page import write_report


@register("report", order=90)
def write_page(run: FinishedRun) -> None:
    """Write the report page."""
    write_report(run.folder)
