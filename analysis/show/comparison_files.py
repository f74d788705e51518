"""Write a comparison of runs to files: csv, Markdown, LaTeX and figures."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from static_dynamic.analysis.estimate.comparison import Comparison
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.show.comparison_figures import FIGURES
from static_dynamic.analysis.show.comparison_latex import comparison_files
from static_dynamic.analysis.show.comparison_tables import as_markdown
from static_dynamic.analysis.show.figure_style import save
from static_dynamic.files import write_text


def write_comparison(comparison: Comparison, folder: Path, formats: Sequence[str]) -> None:
    """Write every table and figure of a comparison; equal comparisons give byte-identical files."""
    for name in ("runs", "layers", "differences", "sweep"):
        write_table(folder / f"{name}.csv", getattr(comparison, name))
    if len(comparison.probes):
        write_table(folder / "probes.csv", comparison.probes)
    if len(comparison.regions):
        write_table(folder / "regions.csv", comparison.regions)
    if len(comparison.ablation):
        write_table(folder / "ablation.csv", comparison.ablation)
    write_text(folder / "comparison.md", as_markdown(comparison))
    for name, text in comparison_files(comparison).items():
        write_text(folder / name, text)
    for suffix, (name, draw) in product(formats, FIGURES.items()):
        figure = draw(comparison)
        # `figure` is None if the runs lack the data for this figure
        if figure is not None:
            save(figure, folder / f"{name}.{suffix}")
