"""A look at single units: ``task=units`` on a run folder.

    thresholds.csv, .png    classes of units at every threshold
    histograms.png          correlations of the units of each stage
    top_units.csv, .jpg     the clearest units of each class, and frames of the clips that drive them most

The score of a unit is a mean over pairs, (za - m)(zb - m) / v, so that each clip adds a part to it. The clips
that drive a unit are those with the largest parts, on whichever side of the mean they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from analysis import unit_figures
from analysis.bootstrap import MEASURED
from analysis.paper import UNIT_CLASSES, classify
from analysis.store import Store
from analysis.tables import align, read_units, write_table
from configs import UserError
from datasets import ClipList
from datasets.frames import BadFrames

# classes of which there are clearest units, and the factors whose pairs drive them
DRIVEN_BY = {"dynamic": (0,), "static": (1,), "joint": (0, 1)}
# frames of a view on the contact sheet: its first, its middle, its last
SHOWN = 3


def run(cfg: DictConfig) -> None:
    """Sweep the threshold, draw histograms and the contact sheet of each of ``cfg.runs``."""
    if not cfg.runs:
        raise UserError("task=units needs the folder of a finished run: give runs=[FOLDER]")
    task = cfg.task
    for folder in tqdm([Path(folder) for folder in cfg.runs], desc="units", unit="run", delay=5):
        units = read_units(folder)
        sweep = sweep_thresholds(units, np.round(np.arange(task.least, task.most + 1e-9, task.step), 6))
        write_table(folder / "thresholds.csv", sweep)
        threshold = cfg.joint_encoding_thresh
        unit_figures.draw_thresholds(sweep, folder / "thresholds.png", threshold)
        unit_figures.draw_histograms(units, folder / "histograms.png", threshold)
        stage = task.stage or units["stage"].iloc[-1]
        store = Store.open(folder)
        top = top_units(store, units, stage, threshold, task.top, task.clips)
        write_table(folder / "top_units.csv", top)
        print(align(counts_at(units, threshold).reset_index().to_dict("records")))
        if len(top):
            strips = read_strips(store, top, task.root)
            title = f"{stage}: units with the highest scores, and the clips that drive them most"
            unit_figures.draw_sheet(top, strips, folder / "top_units.jpg", title)
        print(f"\nwritten to {folder}: thresholds.csv, thresholds.png, histograms.png, top_units.csv", end="")
        print(", top_units.jpg" if len(top) else f" (no unit of {stage} is over {threshold})")


def counts_at(units: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Number of units of each class by stage, at any threshold."""
    index = classify(units["score_dynamic"].to_numpy(), units["score_static"].to_numpy(), threshold)
    named = units[["stage"]].assign(named=pd.Categorical.from_codes(index, UNIT_CLASSES))
    counts = named.groupby("stage", sort=False)["named"].value_counts().unstack(fill_value=0)
    return counts.reindex(columns=list(UNIT_CLASSES), fill_value=0).rename_axis(columns=None)


def sweep_thresholds(units: pd.DataFrame, thresholds: Sequence[float]) -> pd.DataFrame:
    """Classes at each threshold: stage, threshold, and a column of counts for each class."""
    parts = [counts_at(units, t).reset_index().assign(threshold=t) for t in thresholds]
    table = pd.concat(parts, ignore_index=True)
    place = {stage: k for k, stage in enumerate(units["stage"].unique())}
    table = table.sort_values(["stage", "threshold"], key=lambda c: c.map(place) if c.name == "stage" else c)
    return table[["stage", "threshold", *UNIT_CLASSES]].reset_index(drop=True)


def top_units(
    store: Store, units: pd.DataFrame, stage: str, threshold: float, count: int, clips: int
) -> pd.DataFrame:
    """The `count` clearest units of each class of a stage and the `clips` clips that drive each most.

    Clearest are those with the highest score; of joint ones with the highest lower score.

    Returns
    -------
    table
        class, unit, rank, score_dynamic, score_static, and for each clip: clip, part (of the score, or of the
        sum of both, that this clip makes), side (its mean activation, in standard deviations of the unit) and
        row (a view of it).
    """
    values = store.activations(stage)  # refuses a stage that is not there
    pairs = store.finished_pairs()
    chosen = units[units["stage"] == stage].set_index("unit")
    index = classify(chosen["score_dynamic"].to_numpy(), chosen["score_static"].to_numpy(), threshold)
    rows = []
    for name, drivers in DRIVEN_BY.items():
        members = chosen[index == UNIT_CLASSES.index(name)]
        score = members[[f"score_{MEASURED[f]}" for f in drivers]].min(axis=1)
        for rank, unit in enumerate(score.nlargest(count).index, start=1):
            z = values[:, unit].astype(np.float64)
            parts = pd.concat([parts_of_clips(z, pairs[pairs["factor"] == f]) for f in drivers])
            parts = parts.groupby("clip", sort=False).agg({"part": "sum", "side": "mean", "row": "first"})
            parts["part"] /= parts["part"].sum()
            about = {"class": name, "unit": unit, "rank": rank}
            about |= {f"score_{f}": members.loc[unit, f"score_{f}"] for f in MEASURED}
            rows += [
                about | {"clip": clip, **found} for clip, found in parts.nlargest(clips, "part").iterrows()
            ]
    columns = ["class", "unit", "rank", "score_dynamic", "score_static", "clip", "part", "side", "row"]
    return pd.DataFrame(rows, columns=columns).astype({"row": int})


def parts_of_clips(z: NDArray, pairs: pd.DataFrame) -> pd.DataFrame:
    """What each clip adds to the score of a unit, z (views,), over the pairs of one factor: clip, part, side,
    row."""
    za, zb = z[pairs["a"]], z[pairs["b"]]
    both = np.concatenate([za, zb])
    mean, variance = both.mean(), both.var()
    table = pairs[["clip"]].assign(
        part=(za - mean) * (zb - mean) / (variance * len(pairs)),
        side=((za + zb) / 2 - mean) / np.sqrt(variance),
        row=pairs["a"],
    )
    return table.groupby("clip", sort=False, as_index=False).agg(
        {"part": "sum", "side": "mean", "row": "first"}
    )


def read_strips(store: Store, top: pd.DataFrame, root: str | None) -> dict[int, NDArray]:
    """Some frames of the views that `top` names, as the network's first pathway saw them: row -> (n, H, W,
    3).

    Read again from where the run's manifest says that its data lie, or from `root`.

    Raises
    ------
    UserError
        Where they are not there any more.
    """
    views = pd.read_parquet(store.path / "views.parquet")
    column = next(name for name in views if name.startswith("frames_"))
    place = Path(root or store.manifest["root"])
    listing = ClipList(store.manifest["identity"]["dataset"]["name"], place, (), ())
    strips = {}
    for row in tqdm(sorted(set(top["row"])), desc="frames", unit="clip", delay=2):
        view = views.iloc[row]
        frames = view[column]
        shown = frames[np.linspace(0, len(frames) - 1, SHOWN).astype(int)].tolist()
        try:
            strips[row] = listing.frames_of(view["video"], view["style"]).read(shown)
        except BadFrames as error:
            raise UserError(
                f"{store.path}: frames of its data set are not at {place} any more ({error}): "
                "give task.root=FOLDER, where style_1, style_2 ... lie now"
            ) from error
    return strips
