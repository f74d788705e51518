"""Scores, shares and classes of units: ``layers.csv``, ``units.parquet``, ``profile.png``, and a table on stdout."""

from __future__ import annotations

from static_dynamic.analysis.estimate.tables import write_tables
from static_dynamic.analysis.outputs.registry import FinishedRun, register
from static_dynamic.analysis.show import figures
from static_dynamic.analysis.show.text import format_layers


@register("layers", order=10)
def write_layers(run: FinishedRun) -> None:
    """Write the tables of all stages; draw and print the stages shown together, or print the one asked for."""
    write_tables(run.folder, run.estimate)
    layers = run.estimate.layers.set_index("stage").loc[run.shown].reset_index()
    figures.draw_profile(layers, run.folder / "profile.png", run.name)
    print(
        format_layers(layers if run.options.stg is None else layers[layers["stage"] == run.stage], run.name)
    )
