"""How estimates settle with the number of videos: ``task=convergence`` on a run folder.

Scores are estimated from the first 4, 6, 8, 12 ... clusters (videos) of an order that is drawn once, so that
each sample holds the one before, with the interval of that many. Where the curve still drifts out of its
early intervals, there are too few videos, or they are not alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from analysis.bootstrap import MEASURED, bootstrap_weights, cluster_moments, estimate_stage
from analysis.figures import COLOURS, MARKERS, save
from analysis.paper import Moments
from analysis.store import Store
from analysis.tables import write_table
from configs import UserError

FEWEST, COLUMNS = 4, 5


def run(cfg: DictConfig) -> None:
    """Write ``convergence.csv`` and ``convergence.png`` into each of ``cfg.runs``."""
    if not cfg.runs:
        raise UserError("task=convergence needs the folder of a finished run: give runs=[FOLDER]")
    for folder in map(Path, cfg.runs):
        table = estimate_convergence(folder, cfg.n_boot, cfg.seed, progress=True)
        write_table(folder / "convergence.csv", table)
        draw_convergence(table, folder / "convergence.png")
        print(f"written to {folder}: convergence.csv, convergence.png")


def sample_sizes(clusters: int) -> list[int]:
    """4, 6, 8, 12, 16, 24 ... and all of them."""
    steps = [FEWEST * 2**k * part // 2 for k in range(30) for part in (2, 3)]
    return [size for size in steps if size < clusters] + [clusters]


def estimate_convergence(
    run_dir: str | Path, n_boot: int = 1000, seed: int = 0, *, level: float = 0.95, progress: bool = False
) -> pd.DataFrame:
    """Scores of every stage from more and more clusters: stage, clusters, and each score with its interval.

    Raises
    ------
    UserError
        No finished extraction there, or one of fewer than four videos.
    """
    store = Store.open(run_dir)
    store.require_finished()
    pairs = store.finished_pairs()
    names, cluster = np.unique(pairs["cluster"].to_numpy(), return_inverse=True)
    if len(names) < FEWEST:
        raise UserError(f"{store.path}: {len(names)} videos: convergence needs {FEWEST} at least")
    order = np.random.default_rng(seed).permutation(len(names))
    rows = []
    for stage in tqdm(store.stages, desc="convergence", unit="stage", disable=None if progress else True):
        sums = cluster_moments(store.activations(stage), pairs, cluster, len(names))
        for size in sample_sizes(len(names)):
            part = of_clusters(sums, np.sort(order[:size]))
            if (part.count.sum(0) == 0).any():
                continue  # no pair of one factor among so few
            layer, _ = estimate_stage(part, bootstrap_weights(size, n_boot, seed), 0.5, level)
            scores = {k: v for k, v in layer.items() if k.startswith("score_")}
            rows.append({"stage": stage, "clusters": size} | scores)
    return pd.DataFrame(rows)


def of_clusters(sums: Moments, chosen: NDArray) -> Moments:
    """The sums of some clusters."""
    return Moments(
        sums.count[chosen], sums.total[chosen], sums.product[chosen], sums.square[chosen], sums.shift
    )


def draw_convergence(table: pd.DataFrame, path: Path) -> None:
    """Draw both scores of each stage against the number of videos, with bands."""
    groups = list(table.groupby("stage", sort=False))
    columns = min(COLUMNS, len(groups))
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(max(5.0, 2.5 * columns), 0.9 + 2.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat
    sizes = sorted(table["clusters"].unique())
    for axes in panels[len(groups) :]:
        axes.remove()
    for axes, (stage, found) in zip(panels, groups, strict=False):
        for factor in MEASURED:
            point, low, high = (found[f"score_{factor}{part}"] for part in ("", "_low", "_high"))
            style = {"color": COLOURS[factor], "marker": MARKERS[factor], "markersize": 4, "label": factor}
            axes.plot(found["clusters"], point, **style)
            axes.fill_between(found["clusters"], low, high, color=COLOURS[factor], alpha=0.2, linewidth=0)
        axes.set(title=stage, xscale="log", ylim=(-1, 1.1))
        axes.set_xticks(sizes[::2], [str(size) for size in sizes[::2]])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("videos", fontsize=10)
    figure.supylabel("score", fontsize=10)
    figure.suptitle("Scores from more and more videos (bands: 95 % intervals)", fontsize=11)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside right upper")
    save(figure, path)
