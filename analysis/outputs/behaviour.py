"""Write how the prediction changes under a new style and under altered frame orders (``behaviour.csv``).

Beside each change stands the part of the last stage that the change takes away: appearance for a new style,
motion for shuffled frames.
"""

import logging

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.altered_orders import FURTHER_ORDERS
from static_dynamic.analysis.estimate.behaviour import NEW_STYLE, estimate_behaviour, why_no_scores
from static_dynamic.analysis.outputs.registry import FinishedRun, register
from static_dynamic.analysis.run.manifest import LOGITS
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.show.text import format_behaviour
from static_dynamic.datasets.orders import SHUFFLED

log = logging.getLogger(__name__)

# Change of a view -> variance part (column of ``layers.csv``) that this change removes.
PART_OF_CHANGE = {NEW_STYLE: "appearance", SHUFFLED: "motion"} | {
    order: column.name for order, column in FURTHER_ORDERS.items()
}


@register("behaviour", order=15)
def write_behaviour(run: FinishedRun) -> None:
    """Write and print how style and frame order change predictions; without class scores, log the reason."""
    store = Store.open(run.folder)
    if LOGITS not in store.names:
        log.info("behaviour.csv is left out, because there are no class scores: %s", why_no_scores(store))
        return
    table = add_parts(estimate_behaviour(run.folder), run.estimate.layers, run.shown[-1])
    write_table(run.folder / "behaviour.csv", table)
    print(f"\n{format_behaviour(table)}")


def add_parts(table: pd.DataFrame, layers: pd.DataFrame, stage: str) -> pd.DataFrame:
    """Add columns for the variance part that each change removes: stage, name, value and bounds."""
    row = layers.set_index("stage").loc[stage]
    parts = table["change"].map(PART_OF_CHANGE)
    values = {
        f"part_value{end}": [row.get(f"{part}{end}", np.nan) for part in parts]
        for end in ("", "_low", "_high")
    }
    return table.assign(stage=stage, part=parts, **values)
