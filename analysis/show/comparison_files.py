"""The files of a comparison of runs: csv, Markdown, LaTeX and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from static_dynamic.analysis.estimate.comparison import Comparison
from static_dynamic.analysis.estimate.tables import write_table
from static_dynamic.analysis.show import comparison_figures as figures
from static_dynamic.analysis.show import comparison_latex as latex
from static_dynamic.analysis.show import comparison_tables as tables
from static_dynamic.files import write_text


def write_comparison(comparison: Comparison, folder: Path, formats: Sequence[str]) -> None:
    """Write every table and figure of a comparison; equal comparisons give equal bytes."""
    for name in ("runs", "layers", "differences", "sweep"):
        write_table(folder / f"{name}.csv", getattr(comparison, name))
    write_text(folder / "comparison.md", tables.as_markdown(comparison))
    for name, text in latex.comparison_files(comparison).items():
        write_text(folder / name, text)
    for suffix in formats:
        figures.draw_comparison(comparison, folder, suffix)
