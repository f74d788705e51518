"""Measure the coverage of the 95 % intervals of task=information on simulated runs.

    python -m bench.information [--runs 300 --clips 24 100]

The runs are designs of bench/simulated.py. The true value is the mean over 30 runs of 2,000 clips. For
the subspace measure the true value is the information that the large runs share in the principal directions
of the run under test. For nearest neighbours the true value is the mean estimate of the large runs.

Printed per measure and factor are the true value, the fraction of intervals that contain the true value, and
the bias of the estimate. Rows ``MEASURE, units`` are means over units; other rows are values of the layer.
"""

import sys
from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from bench.coverage import REPLICATES
from bench.simulated import DESIGNS, LARGE, LEVEL, Design
from static_dynamic.analysis.estimate.information.cka import stage_cka
from static_dynamic.analysis.estimate.information.gaussian import TRANSFORMS, unit_information
from static_dynamic.analysis.estimate.information.neighbours import neighbour_information
from static_dynamic.analysis.estimate.information.subspace import (
    canonical_bits,
    n_directions,
    project,
    split_folds,
    subspace_information,
)
from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.estimate.pairs import FactorPairs, pairs_of_factor
from static_dynamic.command import Options, command

VIEWS = 8  # 4 styles x 2 orders
CHOSEN = ("normal", "rectified 70 %", "loudness varies")  # names of designs
# LARGE_RUNS: number of large simulated runs; their mean values are taken as the true values.
LARGE_RUNS = 30
# NEIGHBOUR_UNITS: number of units for which the slow nearest-neighbour measure is computed.
NEIGHBOUR_UNITS = 2


def factors_of(design: Design, clips: int) -> list[FactorPairs]:
    """Return the list [dynamic pairs, static pairs] of a simulated run of `clips` clips."""
    views, pairs = design.tables(clips)
    return [pairs_of_factor(pairs, f, views) for f in (0, 1)]


def simulate(design: Design, clips: int, rng: np.random.Generator, large: bool = False) -> NDArray:
    """Simulate the activations (views, C) of a run."""
    return design.rows(design.simulate(clips, rng, large=large), design.tables(clips)[0])


def centred_rows(rows: NDArray, group: NDArray) -> NDArray:
    """Subtract from each view's activations the mean of its `group` (all views of one style and order)."""
    means = np.stack([rows[group == g].mean(0) for g in range(VIEWS)])
    return (rows - means[group]).astype(np.float64)


def estimates(rows: NDArray, pairs: FactorPairs, weights: NDArray) -> Iterator[tuple[str, dict]]:
    """Yield (name, estimate) for every measure except ``subspace``, for the layer and for its units."""
    no_permutations = np.empty((0, len(pairs.a)), int)
    for name, transform in TRANSFORMS.items():
        layer, units = unit_information(rows, pairs, weights, no_permutations, transform, LEVEL)
        yield name, layer
        yield f"{name}, units", {key: units[key].to_numpy() for key in ("value", "low", "high", "plug_in")}
    yield "cka", stage_cka(rows, pairs, weights, 0, 0, LEVEL)
    of_units = []
    for values in rows[:, :NEIGHBOUR_UNITS].T.astype(np.float64):
        of_units.append(neighbour_information(values[pairs.a], values[pairs.b], pairs, 0, 0, LEVEL))
    yield "neighbours", {key: np.array([e[key] for e in of_units]) for key in ("value", "low", "high")}


@cache
def truths(design: Design) -> tuple[list[dict], list[NDArray]]:
    """Return, for each factor, the true values (dict) and the second-moment matrix of the pairs."""
    factors, group = factors_of(design, LARGE), np.tile(np.arange(VIEWS), LARGE)
    found, second = [{}, {}], [0, 0]
    for run in tqdm(range(LARGE_RUNS), desc=f"{design.name}, truth", unit="run", leave=False):
        rows = simulate(design, LARGE, np.random.default_rng(10**6 + run), large=True)
        centred = centred_rows(rows, group)
        for f, pairs in enumerate(factors):
            for name, estimate in estimates(rows, pairs, np.ones((1, LARGE))):
                value = np.asarray(estimate.get("plug_in", estimate["value"]))
                found[f][name] = found[f].get(name, 0) + value / LARGE_RUNS
            z = np.column_stack([np.ones(len(pairs.a)), centred[pairs.a], centred[pairs.b]])
            second[f] = second[f] + z.T @ z / LARGE_RUNS
    return found, second


def bits_in(vectors: NDArray, second: NDArray) -> float:
    """Return the mutual information (bits) of pair members projected on `vectors`.

    `second` is the second-moment matrix of the pairs, as `truths` returns it.
    """
    units, k = vectors.shape
    both = np.zeros((1 + 2 * units, 1 + 2 * k))
    both[0, 0], both[1 : 1 + units, 1 : 1 + k], both[1 + units :, 1 + k :] = 1, vectors, vectors
    return float(canonical_bits(both.T @ second @ both))


def simulated(design: Design, clips: int, runs: int) -> Iterator[tuple]:
    """Simulate runs; yield (measure, factor, true value, estimate, interval bounds) for each estimate."""
    factors, group = factors_of(design, clips), np.tile(np.arange(VIEWS), clips)
    truth, second = truths(design)
    weights, folds = bootstrap_weights(clips, REPLICATES, 0), split_folds(factors, 0)
    count = n_directions(min(fold.clusters for fold in folds), design.units)
    for run in tqdm(range(runs), desc=f"{design.name}, {clips} clips", unit="run", leave=False):
        rows = simulate(design, clips, np.random.default_rng(run))
        projected = project(rows, [fold.views for fold in folds], group, count)
        centred = [centred_rows(rows[fold.views], group[fold.views]) for fold in folds]
        # One matrix per fold maps centred activations to projected activations.
        vectors = [
            np.linalg.lstsq(x, projected[fold.views], rcond=None)[0]
            for x, fold in zip(centred, folds, strict=True)
        ]
        for f, pairs in enumerate(factors):
            for name, e in estimates(rows, pairs, weights):
                yield from (
                    (name, f, *numbers)
                    for numbers in np.broadcast(truth[f][name], e["value"], e["low"], e["high"])
                )
            no_signs, parts = np.empty((0, len(pairs.a))), [fold.pairs[f] for fold in folds]
            e = subspace_information(projected, pairs, weights, no_signs, parts, LEVEL)
            bits = np.mean([bits_in(v, second[f]) for v in vectors])
            yield "subspace", f, bits, e["value"], e["low"], e["high"]


@command
def main() -> None:
    """Simulate runs and print how often the intervals of each measure contain the true value."""
    parser = Options(__doc__)
    parser.add_argument("--runs", type=int, default=300, help="simulated runs per table")
    parser.add_argument("--clips", type=int, nargs="+", default=[24, 100], help="clips per run")
    given = parser.parse_args()
    for design in (design for design in DESIGNS if design.name in CHOSEN):
        for clips in given.clips:
            table = pd.DataFrame(
                simulated(design, clips, given.runs),
                columns=["measure", "factor", "truth", "value", "low", "high"],
            )
            table["coverage"] = (table["low"] <= table["truth"]) & (table["truth"] <= table["high"])
            table["bias"] = table["value"] - table["truth"]
            means = table.groupby(["measure", "factor"], sort=False)[["truth", "coverage", "bias"]].mean()
            print(f"{clips} clips, {design.name}\n{means.round(3).to_string()}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
