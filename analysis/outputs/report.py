"""HTML report of a run: ``report.html``, written last because it shows all other tables and figures."""

from static_dynamic.analysis.outputs.registry import FinishedRun, register
from static_dynamic.analysis.show.report.page import write_report


@register("report", order=90)
def write_page(run: FinishedRun) -> None:
    """Write ``report.html`` into the folder of the run."""
    write_report(run.folder)
