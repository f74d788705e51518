"""Write the variance parts of each attention head (``heads.csv``), if the run was made with ``units=heads``.

The units of a stage are the dimensions of its heads. A head's parts are the means over its live units, with
intervals from the jackknife over videos, as the parts of a layer are.
"""

from collections.abc import Iterator

import pandas as pd

from static_dynamic.analysis.estimate.altered_orders import AlteredOrders
from static_dynamic.analysis.estimate.tables import write_table
from static_dynamic.analysis.outputs.registry import FinishedRun, register
from static_dynamic.analysis.run.store import Store

LEVEL = 0.95


def has_heads(run: FinishedRun) -> bool:
    """Return whether the units of a run are attention heads, and the run has variance parts."""
    heads = any("heads" in about for about in run.manifest["stages"].values())
    return heads and bool(run.estimate.layers["content"].notna().any())


@register("heads", order=15, applies=has_heads)
def write_heads(run: FinishedRun) -> None:
    """Write one row per stage and head: variance parts with intervals, and the p-value of motion."""
    write_table(run.folder / "heads.csv", pd.DataFrame(head_rows(run)))


def head_rows(run: FinishedRun) -> Iterator[dict]:
    """Yield one row per head; ``first_unit`` and ``last_unit`` are unit numbers as in ``units.parquet``."""
    store, options = Store.open(run.folder), run.options
    orders = AlteredOrders.of_run(store, options.n_boot, options.n_permutations, options.seed)
    for stage, about in store.stages.items():
        count = about.get("heads")
        if not count:
            continue
        size = about["units"] // count
        activations = store.activations(stage)
        for head in range(count):
            first, end = head * size, (head + 1) * size
            place = {"stage": stage, "head": head, "first_unit": first, "last_unit": end - 1, "units": size}
            yield place | orders.columns(activations[:, first:end], LEVEL)[0]
