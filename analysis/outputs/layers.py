"""Write the scores of all stages (``layers.csv``, ``profile.png``) and of all units (``units.parquet``)."""

from static_dynamic.analysis.estimate.tables import write_tables
from static_dynamic.analysis.outputs.registry import FinishedRun, register
from static_dynamic.analysis.show import figures
from static_dynamic.analysis.show.stage_text import format_layers


@register("layers", order=10)
def write_layers(run: FinishedRun) -> None:
    """Write score tables and a figure; print the scores of the main stages, or only of the stage ``stg``."""
    write_tables(run.folder, run.estimate)
    layers = run.estimate.layers.set_index("stage").loc[run.shown].reset_index()
    figures.draw_profile(layers, run.folder / "profile.png", run.name)
    if run.options.stg is not None:
        layers = layers[layers["stage"] == run.stage]
    print(format_layers(layers, run.name))
