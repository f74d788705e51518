"""Write the result files of Kowal et al.'s code for video object segmentation, in ``SAVE_DIR/vos_models``.

    final/MODEL/MODEL_final_SEED.txt     one line per stage: dimensions, then percentages
    idv_scores/MODEL/STAGE.npy           (units, 3) float64: shares of each unit, of the last seed that ran
    joint_encoding/MODEL/STAGE.parquet   unit, dynamic score, static score, class
    stats_tables/MODEL/STAGE_SEED.csv    UNIT,A,B,C,D: correlation of a unit over pairs that share only
                                         dynamics, only appearance, neither, both; without dead units

A stage is ``place,stream``, as in ``layer1,app_stream``.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.estimator import FACTORS
from static_dynamic.analysis.estimate.moments import Moments
from static_dynamic.analysis.estimate.tables import RunEstimate
from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.show.text import dimensions_of
from static_dynamic.files import atomic_path, write_text

# Number of units computed at once: the pairs of all units of a stage would take gigabytes of memory.
BLOCK = 256


def write_vos_results(
    folder: Path, name: str, seed: int, result: RunEstimate, stages: list[str], joint_encoding: bool
) -> Path:
    """Write the result files of one run, replacing older files; return the path of the text file."""
    layers = result.layers.set_index("stage").loc[stages]
    units = dict(list(result.units.groupby("stage")))
    for stage in stages:
        shares = units[stage][[f"share_{factor}" for factor in FACTORS]].to_numpy(np.float64)
        with atomic_path(folder / "idv_scores" / name / f"{stage}.npy") as temporary:
            np.save(temporary, shares)
        if joint_encoding:
            scores = {factor: units[stage][f"score_{factor}"] for factor in FACTORS[:2]}
            table = pd.DataFrame({"unit": units[stage]["unit"], **scores, "class": units[stage]["class"]})
            write_table(folder / "joint_encoding" / name / f"{stage}.parquet", table)
    text = ""
    for stage, row in layers.iterrows():
        dims, percent = dimensions_of(row)
        text += f"Stage: {stage} , Dimensions: {dims} {percent}\n"
    path = folder / "final" / name / f"{name}_final_{seed:03d}.txt"
    write_text(path, text)
    return path


def write_statistics(folder: Path, name: str, seed: int, run: Path, result: RunEstimate) -> None:
    """Write tables of each unit's correlation per kind of pair; ``misc/plot_stats_fromtable.py`` reads them.

    If a run has no pairs that share neither factor, which is common with ``pairs=paper``, nothing is written.
    """
    store = Store.open(run)
    members = np.stack(pairs_sharing_neither(store.views))  # (2, pairs)
    a, b = members[:, (store.status[members] == DONE).all(axis=0)]
    if not len(a):
        return
    for stage, units in result.units.groupby("stage", sort=False):
        neither = correlations(store.activations(stage), a, b)
        # frames that share both factors are identical: correlation 1
        both = np.ones(len(neither))
        shared = units[["score_dynamic", "score_static"]].to_numpy()
        table = np.column_stack([units["unit"], shared, neither, both])
        alive = np.isfinite(table).all(axis=1)
        lines = [",".join([str(int(unit)), *map("{:.6g}".format, scores)]) for unit, *scores in table[alive]]
        write_text(folder / "stats_tables" / name / f"{stage}_{seed}.csv", "\n".join(lines) + "\n")


def pairs_sharing_neither(views: pd.DataFrame) -> tuple[NDArray, NDArray]:
    """Return the rows of the first and of the second members of all pairs that differ in style and in flow.

    The first member is a frame with its original flow, the second the same frame in another style with
    jittered flow.
    """
    rows = views.reset_index(names="row")[["row", "clip", "style", "flow"]]
    # Number the frames within each view, because some networks read two frames per view (two table rows).
    rows["frame"] = rows.groupby(["clip", "style", "flow"]).cumcount()
    plain, jittered = rows[rows["flow"] == 0], rows[rows["flow"] > 0]
    pairs = plain.merge(jittered, on=["clip", "frame"], suffixes=("_a", "_b")).query("style_a != style_b")
    return pairs["row_a"].to_numpy(), pairs["row_b"].to_numpy()


def correlations(rows: NDArray, a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Return each unit's correlation between rows `a` and rows `b` of the activations; NaN for dead units."""
    found = []
    for start in range(0, rows.shape[1], BLOCK):
        part = rows[:, start : start + BLOCK].astype(np.float64)
        found.append(Moments.of_pairs(part[a], part[b], np.zeros(len(a)), 1).unit_scores()[0])
    return np.concatenate(found)
