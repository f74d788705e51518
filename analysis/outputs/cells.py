"""Write the variance parts of each cell (``cells.csv``, ``cell_units.parquet``), if the run has cells."""

import logging

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
from PIL import Image
from tqdm import tqdm

from static_dynamic.analysis.estimate.cells import differences, estimate_cells, layer_row, unit_rows
from static_dynamic.analysis.estimate.tables import write_table
from static_dynamic.analysis.outputs.registry import FinishedRun, register
from static_dynamic.analysis.run.mean_frame import MEAN_FRAME
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.show.cells import draw_cells, format_regions
from static_dynamic.files import atomic_path

log = logging.getLogger(__name__)


@register("cells", order=16, applies=lambda run: "cells" in run.manifest)
def write_cells(run: FinishedRun) -> None:
    """Write tables and figures of the parts by cell; print the parts of the regions of masks."""
    store = Store.open(run.folder)
    tested = bool(run.manifest["cells"]["regions"])
    rows: list[dict] = []
    paired: list[dict] = []
    stages = len(run.manifest["cells"]["stages"])
    with atomic_path(run.folder / "cell_units.parquet") as temporary:
        writer = None
        results = estimate_cells(store, run.options.n_permutations, run.options.seed)
        for of_stage in tqdm(results, desc="cells", total=stages, unit="stage", leave=None):
            rows += [layer_row(result, tested) for result in of_stage]
            paired += differences(of_stage) if tested else []
            units = pd.concat([unit_rows(result) for result in of_stage], ignore_index=True)
            table = pyarrow.Table.from_pandas(units, preserve_index=False)
            writer = writer or pyarrow.parquet.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
        if writer is None:
            temporary.touch()
        else:
            writer.close()
    if not rows:
        (run.folder / "cell_units.parquet").unlink()
        log.warning("cells: there are no parts by cell, because the run has no parts (pairs=paper has none)")
        return
    cells = pd.DataFrame(rows)
    write_table(run.folder / "cells.csv", cells)
    frame = run.folder / MEAN_FRAME
    draw_cells(cells, np.asarray(Image.open(frame)) if frame.exists() else None, run.folder, run.name)
    if tested:
        table = pd.DataFrame(paired)
        write_table(run.folder / "cell_differences.csv", table)
        own = run.options.stg is None or cells["stage"] == run.stage
        print("\nparts of the variance by region (%; cells.csv)\n")
        print(format_regions(cells[own] if run.options.stg is not None else cells, table))
