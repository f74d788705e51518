"""Decompose the variance of units by source (video, style, frame order); write tables and a figure."""

from static_dynamic.analysis.estimate.variance import estimate_variance
from static_dynamic.analysis.outputs.registry import FinishedRun, register
from static_dynamic.analysis.show import figures
from static_dynamic.analysis.show.text import format_variance


def has_every_view(run: FinishedRun) -> bool:
    """Return whether a run has several clips, each shown in every style and in two frame orders."""
    options = run.options
    shuffled = options.app_shuffle and not options.use_normal_app and not run.takes_flow
    return options.pairs == "factorial" and shuffled and run.manifest["counts"]["clips"] > 1


@register("variance", order=40, applies=has_every_view)
def write_variance(run: FinishedRun) -> None:
    """Decompose the variance of units by source; write tables and a figure, and print each source's share."""
    options = run.options
    estimate = estimate_variance(run.folder, progress=True)
    estimate.write(run.folder, "variance_")
    layers = estimate.layers[estimate.layers["stage"].isin(run.shown)]
    figures.draw_variance(
        layers, run.folder / "variance.png", f"{options.model.name} on {options.dataset.name}"
    )
    if options.stg is not None:
        layers = layers[layers["stage"] == run.stage]
    print("\nvariance of units by source (%; intervals in variance_layers.csv)\n")
    print(format_variance(layers))
