"""Ablate units of one stage of a finished run, and write ``ablation.csv`` and ``ablation.png``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import DictConfig

from static_dynamic.analysis.ablation.donors import DONORS, donor_rows
from static_dynamic.analysis.ablation.effects import estimate_effects
from static_dynamic.analysis.ablation.measures import ClassMeasures, MaskMeasures, Measures
from static_dynamic.analysis.ablation.passes import Ablation
from static_dynamic.analysis.ablation.rebuild import RebuiltRun, kept_views, rebuild
from static_dynamic.analysis.ablation.unit_sets import choose_sets, matched_sets
from static_dynamic.analysis.estimate.bootstrap import estimate_run
from static_dynamic.analysis.estimate.compared_ablations import ABLATION_NAME, read_ablation
from static_dynamic.analysis.estimate.order_table import alteration
from static_dynamic.analysis.estimate.tables import read_units, write_tables
from static_dynamic.analysis.run.setup import batch_size_of
from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.vos.segmentation import read_mask
from static_dynamic.datasets import DavisClips
from static_dynamic.datasets.davis import RESOLUTION
from static_dynamic.datasets.orders import first_altered_order
from static_dynamic.errors import UserError
from static_dynamic.models.stage_names import find_stage
from static_dynamic.rng import generator
from static_dynamic.spacing import evenly_spaced

# Increase VERSION if the numbers in RUN/ablation/HASH are computed in another way.
VERSION = 1


def ablate_run(cfg: DictConfig, folder: Path) -> pd.DataFrame:
    """Ablate sets of units of a stage, and random sets; write and return the table of effects.

    The rows of ``ablation.csv`` for other stages and other replacements stay. Raises UserError if the network
    cannot be built again or predicts nothing, or if the run lacks what the sets need.
    """
    task = cfg.task
    store = Store.open(folder)
    store.require_finished()
    stage = store.manifest.get("deepest_stage") or list(store.stages)[-1]
    if cfg.stg is not None:
        stage = find_stage(cfg.stg, list(store.stages), cfg)
    constants, variance = moments(store, stage)
    units = units_of(cfg, folder)
    sets = choose_sets(
        units[units["stage"] == stage], variance > 0, list(task.sets), list(task.doses), list(task.units)
    )
    randoms = [
        matched_sets(
            one.units,
            variance,
            task.random,
            generator(cfg.seed, f"{stage} {one.name} {one.dose}", "ablation"),
        )
        for one in sets
    ]
    run = rebuild(cfg, folder)
    measures = measures_of(run)
    views = kept_views(store, alteration(store.views, first_altered_order(store.views)))
    donors = None
    if task.replace in DONORS:
        donors = donor_rows(views, task.replace, cfg.seed)
        views = views.loc[donors.index]
    views = some_clips(views, task.examples)
    ablation = Ablation(
        run,
        stage,
        measures,
        views,
        donors,
        constants if task.replace != "zero" else np.zeros_like(constants),
        batch_size_of(cfg, folder),
        mask_reader(run) if run.net.flow_directions else no_masks,
    )
    tested = [units for one, own in zip(sets, randoms, strict=True) for units in (one.units, *own)]
    identity = {
        "run": store.manifest["identity"],
        "stage": stage,
        "replace": task.replace,
        "seed": cfg.seed,
        "sets": [[one.name, one.dose, one.units.tolist()] for one in sets],
        "random": task.random,
        "clips": views["clip"].unique().tolist(),
        "masks": str(cfg.normal_data_root) if run.net.flow_directions else None,
        "version": VERSION,
    }
    numbers = ablation.measure_clips(tested, folder / "ablation", identity)
    clusters = views.drop_duplicates("clip")["cluster"].to_numpy()
    table = estimate_effects(sets, randoms, numbers, measures.names, clusters, variance)
    table.insert(0, "stage", stage)
    table.insert(1, "replace", task.replace)
    write_table(folder / ABLATION_NAME, with_earlier(folder, table))
    return table


def units_of(cfg: DictConfig, folder: Path) -> pd.DataFrame:
    """Read ``units.parquet``; compute and write it first if it is missing (``task=train_calibrated``)."""
    if not (folder / "units.parquet").exists():
        estimate = estimate_run(
            folder,
            cfg.n_boot,
            cfg.seed,
            threshold=cfg.joint_encoding_thresh,
            n_permutations=cfg.n_permutations,
            progress=True,
        )
        write_tables(folder, estimate)
    return read_units(folder)


def moments(store: Store, stage: str) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return mean and variance of each unit of a stage over the computed views. Shapes: (units,)."""
    rows = store.activations(stage)[store.status == DONE].astype(np.float64)
    # A unit whose rows are all equal is dead; rounding would give it a small variance.
    variance = np.where(np.ptp(rows, axis=0) > 0, rows.var(axis=0), 0)
    return rows.mean(axis=0).astype(np.float32), variance


def measures_of(run: RebuiltRun) -> Measures:
    """Return the measures for the network's masks or class scores; raise UserError if it predicts neither."""
    if run.net.flow_directions:
        return MaskMeasures(run.net)
    if not run.net.classes:
        raise UserError(
            f"{run.store.path}: the network has neither class scores nor masks of objects, so no prediction "
            "can change: give a run of another network"
        )
    return ClassMeasures(run.net, bool(run.store.manifest.get("class_scores", {}).get("labelled")))


def some_clips(views: pd.DataFrame, examples: int | None) -> pd.DataFrame:
    """Return the views of `examples` evenly spaced clips, or of all clips if `examples` is None."""
    clips = views["clip"].unique()
    if examples is None or examples >= len(clips):
        return views
    return views[views["clip"].isin(clips[evenly_spaced(examples, len(clips))])]


def no_masks(rows: Sequence[int]) -> list[NDArray[np.bool_]]:
    """Return no masks, for networks that do not segment objects."""
    return []


def mask_reader(run: RebuiltRun) -> Callable[[Sequence[int]], list[NDArray[np.bool_]]]:
    """Return a function: row numbers of views -> list of true masks, which is empty if a file is missing."""
    views, clips = run.store.views, cast(DavisClips, run.clips)

    def read(rows: Sequence[int]) -> list[NDArray[np.bool_]]:
        files = []
        for row in rows:
            video, frame = views["video"].iloc[row], views["frame"].iloc[row]
            image = clips.paths_of(video, 0)[0]
            files.append(
                image.parents[2] / "Annotations" / RESOLUTION / video / f"{clips.names[video][frame]}.png"
            )
        return [read_mask(file) for file in files] if all(file.is_file() for file in files) else []

    return read


def with_earlier(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``ablation.csv`` that `table` does not replace, followed by the rows of `table`."""
    earlier = read_ablation(folder)
    if earlier is None:
        return table
    same = (earlier["stage"] == table["stage"].iloc[0]) & (earlier["replace"] == table["replace"].iloc[0])
    return pd.concat([earlier[~same], table], ignore_index=True)
