"""Decode named variables from the units of each stage, with controls; find each variable's first stage.

A probe is a ridge regression that is trained on some videos and tested on others (`probe_ridge.py`). Its
score is the fraction of variance explained, or the balanced accuracy. Targets permuted between videos give
the score at chance, and decodability puts it at 0 and a perfect score at 1:

    decodability = (score - chance) / (1 - chance)      chance: mean score of the permuted targets

Intervals come from a jackknife over videos (`probe_jackknife.py`), whose probes are also trained without the
left-out videos. The standard error is at least that of permuted targets, times 1 - decodability, because the
jackknife error of a probe that finds nothing is nearly 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from tqdm import tqdm

from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.errors import UserError
from static_dynamic.rng import generator

from .constant import ROUNDING
from .intervals import with_bounds
from .jackknife import Jackknife, jackknife, student_quantile
from .probe_features import (
    ALL,
    ALTERED,
    COMPARED_PARTS,
    Features,
    features_of,
    matched,
    parts_of_units,
)
from .probe_jackknife import left_out_scores
from .probe_ridge import cross_validate
from .probe_targets import Targets
from .probe_variables import CLASSES, Variable
from .tables import read_layers

FEWEST_VIDEOS = 4
# A variable appears at the first stage whose decodability is this fraction of the largest one.
HALF = 0.5
LEVEL, SIGNIFICANT = 0.95, 0.05


@dataclass(frozen=True)
class Probed:
    """Result of one probe: score, score at chance, scores of permuted targets, and jackknife deviations."""

    score: float
    chance: float
    null: NDArray  # (permutations,)
    deviation: NDArray  # (J,): jackknife deviations of the decodability
    least: float  # smallest standard error of the decodability
    videos: int
    views: int
    units: int

    @property
    def decodability(self) -> float:
        """Score, rescaled so that chance is 0 and a perfect score is 1."""
        return (self.score - self.chance) / (1 - self.chance)

    @property
    def error(self) -> float:
        """Standard error of the decodability."""
        return max(self.least, float(np.sqrt((self.deviation**2).sum())))

    @property
    def null_decodability(self) -> NDArray:
        """Decodability of the permuted targets. Shape: (permutations,)."""
        return (self.null - self.chance) / (1 - self.chance)

    @property
    def p(self) -> float:
        """Permutation p-value of the score; NaN without permutations."""
        return (
            float((1 + (self.null >= self.score).sum()) / (1 + len(self.null))) if len(self.null) else np.nan
        )


@dataclass(frozen=True)
class Probes:
    """Results of all probes: a table with one row per probe, and a table with one row per variable."""

    stages: pd.DataFrame
    variables: pd.DataFrame

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Dict from the file name of each table to the table."""
        return {"probe.csv": self.stages, "probe_variables.csv": self.variables}


def probe_run(
    folder: str | Path,
    variables: Sequence[Variable],
    untrained: str | Path | None = None,
    *,
    folds: int = 10,
    n_permutations: int = 200,
    n_boot: int = 1000,
    seed: int = 1,
    progress: bool = False,
) -> Probes:
    """Decode `variables` of a finished run from every stage.

    `untrained` is the folder of a run of the untrained network on the same views. Raises UserError if a run
    is not finished, if it lacks views or stages, or if a variable is known for fewer than four videos.
    """
    store = Store.open(folder)
    store.require_finished()
    other = matched(store, untrained) if untrained else None
    views, done = store.views, store.status == DONE
    parts = parts_of_units(Path(folder))
    for variable in variables:
        known = views["cluster"].iloc[np.intersect1d(variable.rows(views), np.flatnonzero(done))].nunique()
        if known < FEWEST_VIDEOS:
            raise UserError(
                f"{variable.name} is known for {known} videos of {folder}, but a probe needs {FEWEST_VIDEOS}"
            )
    rows, summaries = [], []
    targets = {v.name: Targets.of(v, views, folds, n_permutations, seed) for v in variables}
    found: dict[str, dict[str, Probed]] = {name: {} for name in targets}
    total = len(store.stages) * len(targets)
    with tqdm(total=total, desc="probe", unit="probe", disable=None if progress else True) as bar:
        for stage in store.stages:
            all_features = list(features_of(store, stage, other, parts))
            for variable in variables:
                bar.set_postfix_str(f"{stage}, {variable.name}")
                own = [f for f in all_features if not (variable.all_orders and f.name == ALTERED)]
                probed = probe_stage(targets[variable.name], own)
                rows += list(rows_of(variable, stage, probed))
                found[variable.name][stage] = probed[ALL]
                bar.update()
    layers = read_layers(Path(folder)) if (Path(folder) / "layers.csv").exists() else pd.DataFrame()
    for variable in variables:
        rng = generator(seed, variable.name, "probe bootstrap")
        summaries.append(summary_of(variable, found[variable.name], layers, n_boot, rng))
    order = {v.name: k for k, v in enumerate(variables)}
    table = pd.DataFrame(rows).sort_values("variable", key=lambda c: c.map(order), kind="stable")
    return Probes(table.reset_index(drop=True), pd.DataFrame(summaries))


def probe_stage(targets: Targets, features: Sequence[Features]) -> dict[str, Probed]:
    """Train and test one probe per entry of `features` at one stage; the first entry must be all units.

    Where the targets are not permuted, the score at chance is that of the probe of all units.
    """
    found: dict[str, Probed] = {}
    for one in features:
        rows = one.row_of[targets.rows]
        usable = rows >= 0
        replicates = targets.replicates[usable] if one.permuted else targets.replicates[usable, :1]
        activations, video = one.activations[rows[usable]], targets.video[usable]
        score, *null = cross_validate(activations, replicates, video, targets.fold, targets.classes).score
        if null:
            chance = float(np.mean(null))
        elif found:
            chance = found[ALL].chance
        else:
            chance = 1 / replicates.shape[2] if targets.classes else 0.0
        scores = left_out_scores(activations, replicates[:, 0], video, targets.block, targets.classes)
        deviation = jackknife(np.array(scores.whole), scores.blocks).deviation / (1 - chance)
        spread = np.std(null) if null else np.std(found[ALL].null) if found else 0.0
        least = float(spread) / (1 - chance) * (1 - (score - chance) / (1 - chance))
        if targets.classes and np.abs(deviation).max() < ROUNDING:
            # The accuracy is the same without any block (usually 1), so the jackknife error is 0.
            # The standard error of a proportion, with one right and one wrong video added, replaces it.
            share = (score * len(targets.fold) + 1) / (len(targets.fold) + 2)
            least = max(least, np.sqrt(share * (1 - share) / (len(targets.fold) + 2)) / (1 - chance))
        videos = len(np.unique(video))
        found[one.name] = Probed(
            float(score),
            chance,
            np.array(null),
            deviation,
            float(least),
            videos,
            len(video),
            activations.shape[1],
        )
    return found


def rows_of(variable: Variable, stage: str, probed: dict[str, Probed]) -> Iterator[dict]:
    """Yield one table row per probe of a stage: decodability, and its loss compared with all units."""
    whole = probed[ALL]
    for name, one in probed.items():
        blocks = len(one.deviation)
        row = {
            "variable": variable.name,
            "kind": variable.kind,
            "stage": stage,
            "features": name,
            "videos": one.videos,
            "views": one.views,
            "units": one.units,
            "score": one.score,
            "chance": one.chance,
            "p": one.p,
        }
        bounds = interval("decodability", one.decodability, one.error, blocks)
        # The bounds are clipped to the possible range: an accuracy is at least 0, and a score is at most 1.
        lowest = -one.chance / (1 - one.chance) if variable.kind == CLASSES else -np.inf
        bounds["decodability_low"] = max(lowest, bounds["decodability_low"])
        bounds["decodability_high"] = min(1.0, bounds["decodability_high"])
        row |= bounds
        if name == ALL:
            yield row | with_bounds("lost", np.nan, np.nan, np.nan)
            continue
        difference = Jackknife(np.array(0.0), whole.deviation - one.deviation)
        error = max(float(difference.error), whole.least, one.least)
        yield row | interval("lost", whole.decodability - one.decodability, error, blocks)


def interval(name: str, value: float, error: float, blocks: int) -> dict[str, float]:
    """Return table columns: a number and its 95 % interval, from a standard error with `blocks` blocks."""
    half = student_quantile(LEVEL, max(1, blocks - 1)) * error
    return with_bounds(name, value, value - half, value + half)


def summary_of(
    variable: Variable, stages: dict[str, Probed], layers: pd.DataFrame, n_boot: int, rng: np.random.Generator
) -> dict:
    """Return the table row of one variable: first stage, and rank correlations of decodability with parts.

    The intervals are quantiles over `n_boot` random draws of the decodability of all stages, from the normal
    distribution with the covariances of the jackknife.
    """
    names = list(stages)
    value = np.array([one.decodability for one in stages.values()])
    deviation = np.stack([one.deviation for one in stages.values()], axis=1)  # (J, stages)
    rest = np.array([one.error for one in stages.values()]) ** 2 - (deviation**2).sum(0)
    noise = rng.standard_normal((n_boot, len(deviation))) @ deviation
    noise += np.sqrt(np.maximum(rest, 0)) * rng.standard_normal(noise.shape)
    widen = student_quantile(LEVEL, max(1, len(deviation) - 1)) / student_quantile(LEVEL, np.inf)
    values = np.concatenate([value[None], value + widen * noise])  # (1 + R, stages)
    highest = np.stack([one.null_decodability for one in stages.values()]).max(0)
    p = (1 + (highest >= value.max()).sum()) / (1 + len(highest)) if len(highest) else np.nan
    row = {
        "variable": variable.name,
        "kind": variable.kind,
        "about": variable.about,
        "best_stage": names[int(value.argmax())],
        "decodability": value.max(),
        "p_family": p,
    }
    first = (values >= HALF * values.max(1, keepdims=True)).argmax(1)
    ends = first[0], *np.quantile(first, (0.025, 0.975), method="inverted_cdf").astype(int)
    known = value.max() > 0 and not p > SIGNIFICANT
    row |= with_bounds("first_stage", *(names[k] if known else "" for k in ends))
    for part in COMPARED_PARTS:
        found = np.full(3, np.nan)
        if part in layers and len(names) > 2:
            of_stage = layers[part].reindex(names).to_numpy(float)
            ranks = rank_correlation(values, of_stage)
            if np.isfinite(ranks).all():
                found = np.array([ranks[0], *np.quantile(ranks, (0.025, 0.975))])
        row |= with_bounds(f"rank_correlation_{part}", *found)
    return row


def rank_correlation(values: NDArray, other: NDArray) -> NDArray:
    """Return the rank correlation (R,) over stages of each row of `values` (R, stages) with `other`."""
    a, b = (rankdata(x, axis=-1) for x in (values, other))
    a, b = a - a.mean(-1, keepdims=True), b - b.mean()
    with np.errstate(invalid="ignore"):
        return (a @ b) / np.sqrt((a**2).sum(-1) * (b**2).sum())
