"""Variance parts of each cell: of a cell of a grid, or of a region of masks.

The units of a cell are the stage's units, averaged in this cell alone. Their parts are those of
`decomposition.py`, so a cell is estimated exactly as a layer is. Views in which a region of the masks is
empty are left out of all regions, so that regions are compared on the same views.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.run.arrays import release
from static_dynamic.analysis.run.manifest import CELLS
from static_dynamic.analysis.run.store import DONE, Store

from .altered_orders import AlteredOrder, bounded, first_altered_order, open_order
from .decomposition import PARTS, Decomposition
from .intervals import with_bounds

LEVEL = 0.95


@dataclass(frozen=True)
class CellResult:
    """Parts of the units of one stage in one cell."""

    stage: str
    # columns that name the cell: time, row and column of the grid, or region
    place: dict
    found: Decomposition


def estimate_cells(store: Store, n_flips: int, seed: int) -> Iterator[list[CellResult]]:
    """Yield the results of all cells of one stage after the other; nothing if the run has no parts.

    The test of motion is made for regions, with `n_flips` sign flips, but not for the cells of a grid.
    """
    about = store.manifest["cells"]
    tested = bool(about["regions"])
    for stage, own in about["stages"].items():
        activations = store.activations(f"{stage}{CELLS}")
        order = order_of(store, activations, n_flips if tested else 0, seed)
        if order is None:
            continue
        units = store.stages[stage]["units"]
        results = []
        for cell, place in enumerate(places(about, own["cells"])):
            of_cell = activations[:, cell * units : (cell + 1) * units]
            results.append(CellResult(stage, place, order.decompose(of_cell, tested=tested)))
        yield results
        release(activations)


def order_of(store: Store, activations: NDArray, n_flips: int, seed: int) -> AlteredOrder | None:
    """Return the altered order of the views in which no region is empty; None if no clip has such views."""
    seen = np.zeros(len(activations), bool)
    for start in range(0, len(seen), 256):
        seen[start : start + 256] = np.isfinite(activations[start : start + 256]).all(axis=1)
    done = (store.status == DONE) & seen
    return open_order(store, done, first_altered_order(store.views), 0, n_flips, [seed, 20])


def places(about: dict, cells: int) -> list[dict]:
    """Return, for each cell, the columns that name it, from the entry ``cells`` of a manifest."""
    if about["regions"]:
        return [{"region": region} for region in about["regions"]]
    index = np.unravel_index(np.arange(cells), about["grid"])
    return pd.DataFrame(dict(zip(("time", "row", "column"), index, strict=True))).to_dict("records")


def layer_row(result: CellResult, tested: bool) -> dict:
    """Return one row of ``cells.csv``: parts of a cell with 95 % intervals over videos.

    Parts are fractions of the variance in this cell; ``variance`` is its mean over units, by which the
    variances of cells can be compared.
    """
    found = result.found
    row = {"stage": result.stage, **result.place, "units": int((found.variance > 0).sum())}
    row |= {"videos": found.videos, "variance": float(found.variance.mean())}
    row |= bounded(PARTS, found.layer.estimate, found.bounds(found.layer, LEVEL))
    return row | ({"p_motion": found.p_layer} if tested else {})


def unit_rows(result: CellResult) -> pd.DataFrame:
    """Return the parts of each unit in one cell, with their standard errors."""
    found = result.found
    numbers = {"variance": found.variance, **dict(zip(PARTS, found.units, strict=True))}
    numbers |= {f"{part}_error": error for part, error in zip(PARTS, found.errors, strict=True)}
    columns = {name: values.astype(np.float32) for name, values in numbers.items()}
    return pd.DataFrame(
        {"stage": result.stage, **result.place, "unit": np.arange(len(found.variance)), **columns}
    )


def differences(results: list[CellResult]) -> Iterator[dict]:
    """Yield the difference of each part between two regions of a stage, with intervals paired by video."""
    for right, left in combinations(results, 2):
        both = {"stage": left.stage, "left": left.place["region"], "right": right.place["region"]}
        for k, part in enumerate(PARTS):
            one, other = left.found.layer, right.found.layer
            paired = type(one)(
                one.estimate[k : k + 1] - other.estimate[k : k + 1],
                one.deviation[:, k : k + 1] - other.deviation[:, k : k + 1],
            )
            low, high = left.found.bounds(paired, LEVEL)
            yield both | {"part": part} | with_bounds("difference", paired.estimate[0], low[0], high[0])
