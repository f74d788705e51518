"""Figure and text table of probes: how well variables are decoded from each stage, and from controls."""

from pathlib import Path

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.probe import Probes
from static_dynamic.analysis.estimate.probe_features import ALL, ALTERED, COMPARED_PARTS, UNTRAINED
from static_dynamic.analysis.show.figure_style import (
    PAGE,
    draw_band,
    new_panels,
    part_line,
    print_style,
    save,
    stage_ticks,
)
from static_dynamic.analysis.show.text import align, value_and_bounds, with_interval

# Features that a variable is decoded from -> (name in the legend, line style, whether intervals are drawn).
CURVES: dict[str, tuple[str, dict, bool]] = {
    ALL: ("all units", {"color": "#000000", "marker": "o", "linewidth": 2}, True),
    ALTERED: ("altered order", {"color": "#E69F00", "marker": "v", "linestyle": "--"}, True),
    UNTRAINED: ("untrained network", {"color": "#999999", "marker": "x", "linestyle": ":"}, True),
    **{
        f"{part} units": (f"quarter with most {part}", part_line(part) | {"linewidth": 1}, False)
        for part in COMPARED_PARTS
    },
}
COLUMNS = 3


@print_style
def draw_probes(probes: Probes, path: Path) -> None:
    """Draw the decodability of each variable by stage, from all units and from the controls."""
    groups = list(probes.stages.groupby("variable", sort=False))
    columns = min(COLUMNS, len(groups))
    rows = -(-len(groups) // columns)
    figure, panels = new_panels(len(groups), columns, (PAGE, 1.75 * rows + 0.7))
    lowest = min(-0.1, float(probes.stages["decodability"].min()) - 0.05)
    for axes, (variable, table) in zip(panels, groups, strict=True):
        stages = list(dict.fromkeys(table["stage"]))
        for name, (label, style, has_band) in CURVES.items():
            own = table[table["features"] == name]
            if own.empty:
                continue
            at = [stages.index(stage) for stage in own["stage"]]
            values = value_and_bounds(own, "decodability")
            if not has_band:
                values[1:] = np.nan
            draw_band(axes, at, values, label=label, **style)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(title=variable, ylim=(lowest, 1.05))
        stage_ticks(axes, stages, 5.8 / columns)
    figure.supylabel("decodability (0: chance, 1: no error)")
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4, frameon=False)
    save(figure, path)


def format_probes(probes: Probes) -> str:
    """Return two text tables: decodability of variables at each stage, and controls at the best stages."""
    stages = probes.stages[probes.stages["features"] == ALL]
    by_stage, controls = [], []
    for _, row in probes.variables.iterrows():
        own = stages[stages["variable"] == row["variable"]]
        cells = {"variable": row["variable"]}
        cells |= {line["stage"]: with_interval(line, "decodability", 1, 2) for _, line in own.iterrows()}
        first = str(row["first_stage"]) or "none"
        if row["first_stage_low"] != row["first_stage_high"]:
            first += f" [{row['first_stage_low']}, {row['first_stage_high']}]"
        p = "-" if pd.isna(row["p_family"]) else f"{row['p_family']:.3f}"
        by_stage.append(cells | {"p": p, "appears at": first})
        best = probes.stages[
            (probes.stages["variable"] == row["variable"]) & (probes.stages["stage"] == row["best_stage"])
        ]
        found = {"variable": row["variable"], "best stage": row["best_stage"]}
        for _, line in best.iterrows():
            label = CURVES[line["features"]][0]
            found[label] = with_interval(line, "decodability", 1, 2)
        controls.append(found)
    return "\n\n".join(
        [
            "decodability of variables in held-out videos (0: chance, 1: no error), with 95 % intervals;\n"
            "appears at: first stage with half of the largest decodability",
            align(by_stage),
            "controls at the best stage",
            align(pd.DataFrame(controls).fillna("-")),
        ]
    )
