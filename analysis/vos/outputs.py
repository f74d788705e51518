"""Results of video object segmentation networks in the original's files, below ``SAVE_DIR/vos_models``.

    final/MODEL/MODEL_final_SEED.txt     a line a stage: dimensions, then percent
    idv_scores/MODEL/STAGE.npy           (units, 3) float64 shares of each unit; those of the last seed
    joint_encoding/MODEL/STAGE.parquet   unit, its dynamic and static score, its class
    stats_tables/MODEL/STAGE_SEED.csv    UNIT,A,B,C,D: correlation over pairs that share dynamics only,
                                         appearance only, neither, both; without dead units

A stage is ``place,stream``, as in ``layer1,app_stream``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.bootstrap import RunEstimate
from static_dynamic.analysis.estimate.estimator import (
    FACTORS,
    covariance_and_variance,
    moments,
    unit_correlations,
)
from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.files import atomic_path, write_text

# every unit of a stage at once, for all pairs, would be gigabytes
UNITS_AT_ONCE = 256


def write_vos_results(
    folder: Path, name: str, seed: int, result: RunEstimate, stages: list[str], joint_encoding: bool
) -> Path:
    """Write the files of one run, whole, in place of those of an earlier one; return the file of lines."""
    layers = result.layers.set_index("stage").loc[stages]
    units = dict(list(result.units.groupby("stage")))
    for stage in stages:
        shares = units[stage][[f"share_{factor}" for factor in FACTORS]].to_numpy(np.float64)
        with atomic_path(folder / "idv_scores" / name / f"{stage}.npy") as temporary:
            np.save(temporary, shares)
        if joint_encoding:
            scores = {factor: units[stage][f"score_{factor}"] for factor in FACTORS[:2]}
            table = pd.DataFrame({"unit": units[stage]["unit"], **scores, "class": units[stage]["class"]})
            with atomic_path(folder / "joint_encoding" / name / f"{stage}.parquet") as temporary:
                table.to_parquet(temporary, index=False)
    lines = folder / "final" / name / f"{name}_final_{seed:03d}.txt"
    write_text(lines, "".join(stage_line(stage, row) for stage, row in layers.iterrows()))
    return lines


def write_statistics(folder: Path, name: str, seed: int, run: Path, result: RunEstimate) -> None:
    """Write the tables that ``misc/plot_stats_fromtable.py`` draws.

    Pairs that share neither are a frame in one style and in another with its flow jittered. A run in which no
    clip was seen in both (``pairs=paper`` shows few of them so) has no such tables.
    """
    store = Store.open(run)
    members = np.stack(pairs_sharing_neither(pd.read_parquet(run / "views.parquet")))  # (2, pairs)
    a, b = members[:, (store.status[members] == DONE).all(axis=0)]
    if not len(a):
        return
    for stage, units in result.units.groupby("stage", sort=False):
        neither = correlations(store.activations(stage), a, b)
        both = np.ones(len(neither))  # a frame with itself
        shared = units[["score_dynamic", "score_static"]].to_numpy()
        table = np.column_stack([units["unit"], shared, neither, both])
        alive = np.isfinite(table).all(axis=1)
        lines = [f"{int(unit)}," + ",".join(f"{score:.6g}" for score in of) for unit, *of in table[alive]]
        write_text(folder / "stats_tables" / name / f"{stage}_{seed}.csv", "\n".join(lines) + "\n")


def pairs_sharing_neither(views: pd.DataFrame) -> tuple[NDArray, NDArray]:
    """Row numbers of both members: every frame in one style with its flow as it is, and in another with its
    flow jittered."""
    looks = views.reset_index(names="row")[["row", "clip", "style", "flow"]]
    looks["place"] = looks.groupby(["clip", "style", "flow"]).cumcount()  # of networks that see two frames
    plain, jittered = looks[looks["flow"] == 0], looks[looks["flow"] > 0]
    met = plain.merge(jittered, on=["clip", "place"], suffixes=("_a", "_b")).query("style_a != style_b")
    return met["row_a"].to_numpy(), met["row_b"].to_numpy()


def correlations(rows: NDArray, a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Correlation of each unit over pairs of rows, as `static_dynamic.analysis.estimate.estimator` has it; NaN where a unit is dead."""
    found = []
    for start in range(0, rows.shape[1], UNITS_AT_ONCE):
        part = rows[:, start : start + UNITS_AT_ONCE].astype(np.float64)
        covariance, variance, _ = covariance_and_variance(moments(part[a], part[b], np.zeros(len(a)), 1))
        found.append(unit_correlations(covariance, variance)[0])
    return np.concatenate(found)


def stage_line(stage: str, row: pd.Series) -> str:
    """The original's line of one stage."""
    dims = [int(row[f"dims_{factor}"]) for factor in FACTORS]
    percent = [float(row[f"dims_percent_{factor}"]) for factor in FACTORS]
    return f"Stage: {stage} , Dimensions: {dims} {percent}\n"
