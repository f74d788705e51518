"""Compare finished runs in tables, for example the runs of a trained and of an untrained network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError
from static_dynamic.models.stage_names import group_by_reading, split_stage

from .compared_ablations import collect_ablations
from .compared_probes import compared_probes, compared_regions
from .decomposition import PARTS
from .estimator import MEASURED, UNIT_CLASSES, require_threshold
from .paired import MEASURES, PairedBootstrap
from .paired_parts import PairedParts
from .tables import read_layers, read_units, seed_half_widths
from .unit_intervals import COUNTED
from .units import counts_at, sweep_thresholds

# Score thresholds at which units are classified, to plot class percentages as a function of the threshold.
SWEEP = np.linspace(0, 1, 41)


@dataclass(frozen=True)
class Comparison:
    """Result tables of a comparison of finished runs.

    ``runs`` has one row per run or group of averaged seeds, ``layers`` per run and stage, ``differences`` per
    two runs and stage. ``units`` has the unit scores of the shown stages, ``sweep`` the percentage of units
    per class and threshold at the shown stage of each curve. ``probes`` has the decodability per run,
    variable and stage, and no rows if no run has probes. A run whose stages are read in several ways
    (streams, pathways) has one curve over depth per reading. Each curve shows one of its stages in the
    figures of a single stage (column ``shown`` of `layers`).
    """

    runs: pd.DataFrame
    layers: pd.DataFrame
    differences: pd.DataFrame
    units: pd.DataFrame
    sweep: pd.DataFrame
    probes: pd.DataFrame
    # rows of ``ablation.csv`` of the runs that have one
    ablation: pd.DataFrame
    # rows of ``cell_differences.csv`` of the runs that have one
    regions: pd.DataFrame


def compare_runs(
    folders: Sequence[str | Path],
    *,
    n_boot: int = 1000,
    seed: int = 1,
    threshold: float = 0.5,
    stage: str | None = None,
    fuse: bool = True,
    average_seeds: bool = False,
    iterations: Sequence[int] = (),
    progress: bool = False,
) -> Comparison:
    """Compare the scores of finished runs with each other, and return the tables of the comparison.

    A unit encodes a factor if its unit score is above `threshold`, which replaces the thresholds of the runs.
    Figures of a single stage show `stage`: its name, its name without the reading (``stage5``), or its
    number. If None, the deepest of each curve. For SlowFast, `fuse` shows the readings after the lateral
    fusion instead of those before it. `average_seeds` averages runs that differ only in their seed.
    `iterations` are the numbers of iterations for which the networks of the runs were trained.

    Raises UserError if the threshold is not between -1 and 1, if there are fewer than two runs, if a folder
    is given twice, if a run has no results, or if no run has the stage.
    """
    require_threshold(threshold)
    if len(folders) < 2:
        raise UserError("task=compare needs at least two runs: give runs=[FOLDER,FOLDER,...]")
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("runs=[...] names a folder twice: give each run folder once")
    if iterations and len(iterations) != len(paths):
        raise UserError(f"task.iterations has {len(iterations)} numbers: give {len(paths)}, one per run")
    stores = [Store.open(path) for path in paths]
    identities = [store.manifest["identity"] for store in stores]
    per_run = [read_layers(path) for path in paths]
    # Two videos of equal name count as one video only if both data sets have the same name and folder.
    data = [(identity["dataset"]["name"], identity["dataset"]["folder"]) for identity in identities]
    boot, parts = PairedBootstrap(stores, data, n_boot, seed), PairedParts(stores, data)
    members_of = group_seeds(identities) if average_seeds else [[k] for k in range(len(paths))]
    if len(members_of) < 2:
        raise UserError(
            "task.average_seeds leaves one run to compare, because all runs differ only in their seed: "
            "to average these runs, use misc/average_runs.py"
        )
    groups = label_groups(identities, members_of, iterations)

    tables = []
    for label, members in groups.items():
        table = mean_layers(members, per_run, boot).join(mean_parts(members, per_run, parts))
        for reading, stages in group_by_reading(table.index, fuse).items():
            own = table.loc[stages].reset_index()
            own.insert(0, "run", label)
            own.insert(1, "reading", reading)
            own["depth"] = np.arange(len(stages)) / max(1, len(stages) - 1)
            tables.append(own.assign(shown=own["stage"] == shown_stage(stages, stage)))
    layers = pd.concat(tables, ignore_index=True)
    several = layers.groupby("run")["reading"].transform("nunique") > 1
    layers.insert(1, "curve", layers["run"].where(~several, layers["run"] + " " + layers["reading"]))
    if not layers["shown"].any():
        known = ", ".join(dict.fromkeys(layers["stage"]))
        raise UserError(f"stg={stage}: no run has this stage: give one of {known}")

    units = unit_scores(paths, groups, layers)
    counts = {run: counts_at(part, threshold) for run, part in units.groupby("run", sort=False)}
    classes = percent(pd.concat(counts, names=["run", "stage"]))
    layers = layers.join(classes, on=["run", "stage"]).assign(threshold=threshold)
    layers = layers.join(percent_bounds(groups, per_run, threshold), on=["run", "stage"])
    shown_units = units.merge(layers.loc[layers["shown"], ["run", "stage", "curve"]], on=["run", "stage"])
    sweep = sweep_thresholds(shown_units.assign(stage=shown_units["curve"]), SWEEP)
    sweep = percent(sweep).assign(curve=sweep["stage"], threshold=sweep["threshold"])
    runs = describe(stores, groups, iterations)
    between = differences(boot, parts, groups, layers, progress)
    probes, ablation = compared_probes(paths, groups, layers), collect_ablations(paths, groups)
    regions = compared_regions(paths, groups)
    return Comparison(runs, layers, between, shown_units, sweep, probes, ablation, regions)


def group_seeds(identities: Sequence[dict]) -> list[list[int]]:
    """Group runs that differ only in the seed; return one list of run indices per group."""
    keys = pd.Series([json.dumps(identity | {"seed": None}, sort_keys=True) for identity in identities])
    return [group.index.tolist() for _, group in keys.groupby(keys, sort=False)]


def label_groups(
    identities: Sequence[dict], groups: Sequence[list[int]], iterations: Sequence[int] = ()
) -> dict[str, list[int]]:
    """Label each group of runs by its network and by the properties in which the groups differ.

    Equal labels get a number.
    """
    first = [members[0] for members in groups]
    seeds = [sorted({identities[k]["seed"] for k in members}) for members in groups]
    parts = pd.DataFrame(
        {
            "model": [identities[k]["model"]["name"] for k in first],
            "init": ["trained" if is_trained(identities[k]) else "untrained" for k in first],
            "iterations": [f"{iterations[k]} iterations" if iterations else "" for k in first],
            "dataset": [identities[k]["dataset"]["name"] for k in first],
            "pairs": [f"pairs={identities[k].get('pairs')}" for k in first],
            "seed": [f"seed{'s' * (len(s) > 1)} {','.join(map(str, s))}" for s in seeds],
        }
    )
    differing = [c for c in parts if c == "model" or parts[c].nunique() > 1]
    labels = parts[differing].agg(" ".join, axis=1)
    numbered = labels + [f" ({k + 1})" for k in range(len(labels))]
    labels = labels.where(~labels.duplicated(keep=False), numbered)
    return dict(zip(labels, groups, strict=True))


def is_trained(identity: dict) -> bool:
    """Return whether the network of a run had trained weights."""
    return identity["model"]["init"] != "random"


def mean_layers(
    members: Sequence[int], per_run: Sequence[pd.DataFrame], boot: PairedBootstrap
) -> pd.DataFrame:
    """Average the scores and shares of each stage over the runs `members`; return means and intervals.

    Means over several runs also get `SeedHalfWidths`.
    """
    first = per_run[members[0]]
    if len(members) == 1:
        columns = [f"{m}{end}" for m in MEASURES for end in ("", "_low", "_high")]
        return first[["stream", "units", *columns]].assign(seeds=1)
    means = {stage: boot.mean([(k, stage) for k in members]).columns() for stage in first.index}
    table = first[["stream", "units"]].assign(seeds=len(members)).join(pd.DataFrame(means).T)
    for measure in MEASURES:
        values = np.stack([per_run[k].loc[table.index, measure] for k in members])
        half = seed_half_widths(values)
        table[f"{measure}_seeds"], table[f"{measure}_seeds_student"] = half
    return table


def mean_parts(members: Sequence[int], per_run: Sequence[pd.DataFrame], parts: PairedParts) -> pd.DataFrame:
    """Average each stage's variance parts over the runs `members`; return means, intervals and a p-value.

    The p-value is that of motion. Columns are NaN for runs without parts. Means over seeds also get
    `SeedHalfWidths`, and have no p-value. If ``layers.csv`` of a run lacks the parts because an older version
    wrote it, they are estimated from the activations, also without a p-value.
    """
    first = per_run[members[0]]
    names = [f"{part}{end}" for part in PARTS for end in ("", "_low", "_high")]
    if len(members) == 1 and "content" in first:
        return first[[*names, "p_motion"]]
    means = {stage: parts.mean([(k, stage) for k in members]) for stage in first.index}
    table = pd.DataFrame(means, index=names).T.assign(p_motion=np.nan)
    if len(members) > 1:
        values = [per_run[k].reindex(index=first.index, columns=list(PARTS)) for k in members]
        for name, half in zip(("seeds", "seeds_student"), seed_half_widths(np.stack(values)), strict=True):
            table[[f"{part}_{name}" for part in PARTS]] = half
    return table


def shown_stage(stages: Sequence[str], wanted: str | None) -> str | None:
    """Return the stage that single-stage figures show: `wanted`, or the deepest stage if `wanted` is None.

    Returns None if `stages` lack the wanted stage.
    """
    if wanted is None:
        return stages[-1]
    return next((s for s in stages if {wanted, f"stage{wanted}"} & {s, split_stage(s)[0]}), None)


def unit_scores(
    folders: Sequence[Path], groups: Mapping[str, Sequence[int]], layers: pd.DataFrame
) -> pd.DataFrame:
    """Collect the scores of all units of all stages, from every run of each group."""
    columns = ["stage", "unit", *(f"score_{f}" for f in MEASURED)]
    parts = [
        read_units(folders[k])[columns].assign(run=label, member=k)
        for label, members in groups.items()
        for k in members
    ]
    return pd.concat(parts).merge(layers[["run", "stage"]])


def percent(counts: pd.DataFrame) -> pd.DataFrame:
    """Convert the numbers of units in each unit class (dynamic, static, ...) to percentages."""
    counts = counts[list(UNIT_CLASSES)]
    return 100 * counts.div(counts.sum(axis=1), axis=0).add_prefix("percent_")


def percent_bounds(
    groups: Mapping[str, Sequence[int]], per_run: Sequence[pd.DataFrame], threshold: float
) -> pd.DataFrame:
    """Return confidence bounds of the percentage of units in each unit class, per run and stage.

    Runs have the intervals of the numbers of units at their own threshold only. Bounds are therefore NaN at
    another `threshold`, and also for averaged seeds and for runs of version 0.1.0.
    """
    bounds = {}
    for label, members in groups.items():
        run = per_run[members[0]]
        known = (run["threshold"] == threshold) & (len(members) == 1)
        ends = run.reindex(columns=[f"units_{name}_{end}" for name in COUNTED for end in ("low", "high")])
        bounds[label] = 100 * ends.div(run["units"].where(known), axis=0)
    table = pd.concat(bounds, names=["run", "stage"])
    return table.rename(columns=lambda name: name.replace("units_", "percent_"))


def differences(
    boot: PairedBootstrap,
    parts: PairedParts,
    groups: Mapping[str, Sequence[int]],
    layers: pd.DataFrame,
    progress: bool = False,
) -> pd.DataFrame:
    """Estimate the differences in variance parts, scores and shares between every two runs.

    Runs with the same stages are compared stage by stage. Other runs are compared at their shown stages only:
    the fifth block of one network does not correspond to the fifth stage of another.
    """
    by_run = dict(list(layers.groupby("run")))
    contrasts = []
    for runs in combinations(groups, 2):
        stages = [by_run[run]["stage"].tolist() for run in runs]
        shown = [by_run[run].loc[by_run[run]["shown"], "stage"] for run in runs]
        pairs = zip(*stages, strict=True) if stages[0] == stages[1] else product(*shown)
        contrasts += [(*runs, *pair) for pair in pairs]
    rows = []
    for run, minus, s, t in tqdm(contrasts, desc="compare", unit="stage", disable=None if progress else True):
        sides = [(k, s) for k in groups[run]], [(k, t) for k in groups[minus]]
        found = boot.difference(*sides)
        names = {"run": run, "minus": minus, "stage": s, "minus_stage": t, "paired": found.paired}
        videos = dict(zip(("videos", "minus_videos"), found.videos, strict=True))
        rows.append(names | videos | parts.difference(*sides) | found.columns())
    return pd.DataFrame(rows)


def describe(
    stores: Sequence[Store], groups: Mapping[str, Sequence[int]], iterations: Sequence[int]
) -> pd.DataFrame:
    """Return a table with one row per run: network, weights, iterations, data set, pairs and seeds."""
    rows = []
    for label, members in groups.items():
        manifest = stores[members[0]].manifest
        identity, counts = manifest["identity"], manifest["counts"]
        weights = identity.get("weights_sha256")
        untrained = 0 if not is_trained(identity) else None
        rows.append(
            {
                "run": label,
                "network": identity["model"]["name"],
                "weights": f"sha256 {weights[:8]}" if weights else identity["model"]["init"],
                "iterations": iterations[members[0]] if iterations else untrained,
                "data": identity["dataset"]["name"],
                "styles": len(identity["styles"]),
                "pairs": identity["pairs"],
                **{name: counts[name] for name in ("clips", "clusters", "pairs_dynamic", "pairs_static")},
                "seeds": ",".join(str(stores[k].manifest["identity"]["seed"]) for k in members),
            }
        )
    return pd.DataFrame(rows).rename(columns={"clusters": "videos"}).astype({"iterations": "Int64"})
