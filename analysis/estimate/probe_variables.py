"""Read the named variables that probes decode: style, order and label, ground truth, and columns of a csv.

`CALIBRATED` lists the variables of the calibrated data set. A new variable is a new line there.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets.calibrated import TRUTH
from static_dynamic.datasets.orders import FORWARD
from static_dynamic.datasets.scenes import Scene
from static_dynamic.datasets.training_scenes import mean_place
from static_dynamic.errors import UserError, nearest, quoted, reason

# Kinds of variables.
CLASSES, NUMBER, CIRCLE = "classes", "number", "circle"
KEYS = ("clip", "video")
# Largest number of names in a message.
MOST_NAMES = 5


@dataclass(frozen=True)
class Variable:
    """A variable: its kind, and one row of target values per view of the run (NaN: not known).

    The targets (views, k) of a variable of kind `CLASSES` are one-hot, with k classes; those of a `CIRCLE`
    are cosine and sine of each of its angles; those of a `NUMBER` are standardised.
    """

    name: str
    kind: str
    targets: NDArray
    # short description of the variable for tables
    about: str = ""
    # True if the views in all orders are used, because the order is the target
    all_orders: bool = False

    def rows(self, views: pd.DataFrame) -> NDArray:
        """Return the numbers of the views whose target is known; only forward views unless `all_orders`."""
        known = np.isfinite(self.targets).all(1)
        return np.flatnonzero(known if self.all_orders else known & (views["order"] == FORWARD).to_numpy())


@dataclass(frozen=True)
class Truth:
    """Definition of a variable as a function of the ground truth of calibrated scenes."""

    kind: str
    families: tuple[str, ...]  # families of scenes that have the variable; empty: all families
    # Computes the variable from the table of ground truth (one row per view) and the frames per video.
    values: Callable[[pd.DataFrame, int], ArrayLike]
    about: str


MOVING = ("flow", "dots", "sprites", "figures")
PLACED = ("layout", "sprites", "figures")


def _place(truth: pd.DataFrame, frames: int) -> NDArray:
    names = list(Scene.__dataclass_fields__)
    scenes = [Scene(*values) for values in truth[names].itertuples(index=False)]
    return 360 * np.stack([mean_place(scene, frames) for scene in scenes])


def _colour(truth: pd.DataFrame, frames: int) -> NDArray:
    return np.hstack([np.array(truth[side].tolist(), float) for side in ("dark", "light")])


CALIBRATED = {
    "family": Truth(CLASSES, (), lambda t, frames: t["family"], "kind of scene"),
    "direction": Truth(CIRCLE, MOVING, lambda t, frames: t["direction"], "direction of the motion"),
    "speed": Truth(NUMBER, (), lambda t, frames: t["speed"], "speed of the motion"),
    "pattern": Truth(CLASSES, MOVING, lambda t, frames: t["pattern"], "course of the speed over time"),
    "coherence": Truth(NUMBER, ("dots",), lambda t, frames: t["coherence"], "part of the dots that move"),
    "shape": Truth(CLASSES, PLACED, lambda t, frames: t["shape"], "kind of shape"),
    "place": Truth(CIRCLE, PLACED, _place, "place of the shape, mean over the frames"),
    "wavelength": Truth(NUMBER, (), lambda t, frames: np.log2(t["wavelength"]), "texture, in octaves"),
    "contrast": Truth(NUMBER, (), lambda t, frames: np.log2(t["contrast"]), "contrast, in octaves"),
    "colour": Truth(NUMBER, (), _colour, "both colours of the texture (RGB)"),
}


def targets_of(values: ArrayLike, kind: str, video: NDArray) -> NDArray:
    """Turn values (views,) or (views, k) of a variable into targets; unknown values give rows of NaN.

    `video` (views,) names the video of each view: a class of a single video cannot be predicted from other
    videos, so it counts as unknown.
    """
    if kind == CLASSES:
        labels = pd.Series(values, dtype=object)
        videos = pd.Series(video).groupby(labels).nunique()
        known = sorted(videos.index[videos > 1], key=str)
        codes = pd.Categorical(labels.where(labels.isin(known)), categories=known).codes
        return np.where(codes[:, None] >= 0, np.eye(len(known))[codes] if known else 0.0, np.nan)
    numbers = np.asarray(values, float).reshape(len(video), -1)
    if kind == CIRCLE:
        radians = np.deg2rad(numbers)
        return np.hstack([np.cos(radians), np.sin(radians)])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (numbers - np.nanmean(numbers, 0)) / np.nanstd(numbers, 0)


def variables_of(
    store: Store,
    wanted: Sequence[str] = (),
    csv: str | Path | None = None,
    circular: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> list[Variable]:
    """Return the variables `wanted` of a run; if `wanted` is empty, all variables that vary between views.

    `circular` names columns of the csv that are angles in degrees, `classes` columns whose numbers are names.
    Raises UserError if a variable is unknown or does not vary, or if the csv lacks videos of the run.
    """
    columns = read_columns(csv, store.views, circular, classes) if csv else {}
    if not csv and (circular or classes):
        raise UserError("task.circular and task.classes name columns of a csv: give task.csv=FILE")
    found = {**of_design(store.views), **of_calibrated(store), **columns}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(
            f"task.variables: {store.path} has no variable {quoted(missing[0])}{nearest(missing[0], found)} "
            f"(known: {', '.join(found)})"
        )
    chosen = []
    for name in wanted or found:
        if varies(found[name], store.views):
            chosen.append(found[name])
        elif wanted or name in columns:
            raise UserError(
                f"the variable {quoted(name)} needs at least two values, each in at least two videos of "
                f"{store.path}"
            )
    return chosen


def varies(variable: Variable, views: pd.DataFrame) -> bool:
    """Return whether the known targets of a variable differ between views of several videos."""
    rows = variable.rows(views)
    own = variable.targets[rows]
    return len(rows) > 1 and views["cluster"].iloc[rows].nunique() > 1 and bool(np.ptp(own, 0).any())


def of_design(views: pd.DataFrame) -> dict[str, Variable]:
    """Return the variables that every run has: style, order of the frames, and class label."""
    video = views["cluster"].to_numpy()
    label = views["label"].where(views["label"] >= 0) if "label" in views else pd.Series(np.nan, views.index)
    columns = {"style": views["style"], "order": views["order"], "label": label}
    about = {"style": "style of the view", "order": "order of the frames", "label": "class label"}
    return {
        name: Variable(name, CLASSES, targets_of(values, CLASSES, video), about[name], name == "order")
        for name, values in columns.items()
    }


def of_calibrated(store: Store) -> dict[str, Variable]:
    """Return the variables of the calibrated data set; empty if the run read other videos.

    Raises UserError if the data set of the run is no longer on disk.
    """
    root = Path(store.manifest.get("root", ""))
    settings = root / "complete.json"
    if not (root / TRUTH).is_file() or not settings.is_file():
        if store.manifest["identity"]["dataset"]["name"] == "calibrated":
            raise UserError(f"{root / TRUTH} is missing; this file holds the variables of {store.path}")
        return {}
    frames = json.loads(settings.read_text())["settings"]["frames"]
    views = store.views
    keys = views[["cluster", "style"]].rename(columns={"cluster": "video"})
    truth = keys.merge(pd.read_parquet(root / TRUTH), on=["video", "style"], how="left")
    found = {}
    for name, about in CALIBRATED.items():
        known = truth["family"].isin(about.families or truth["family"].unique()).to_numpy()
        values = np.asarray(about.values(truth[known], frames))
        targets = np.full((len(views), 0), np.nan)
        if known.any():
            own = targets_of(values, about.kind, views["cluster"].to_numpy()[known])
            targets = np.full((len(views), own.shape[1]), np.nan)
            targets[known] = own
        found[name] = Variable(name, about.kind, targets, about.about)
    return found


def read_columns(
    file: str | Path, views: pd.DataFrame, circular: Sequence[str], classes: Sequence[str]
) -> dict[str, Variable]:
    """Read variables from a csv with a column ``clip`` or ``video``; empty cells are unknown values.

    Columns of numbers are numbers, all other columns are classes. Raises UserError if the file is not such a
    csv, names a video twice, or lacks a video of the run.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise UserError(f"task.csv={file} is not a file")
    try:
        table = pd.read_csv(file, dtype=dict.fromkeys(KEYS, str))
    except Exception as error:  # for a broken file, pandas can raise any exception
        raise UserError(f"task.csv={file} is not a csv file ({reason(error)})") from error
    key = next((name for name in KEYS if name in table), None)
    if key is None:
        columns = ", ".join(map(str, table.columns[:MOST_NAMES]))
        raise UserError(f"task.csv={file} has no column video or clip (columns: {columns})")
    twice = table[key][table[key].duplicated()]
    if len(twice):
        raise UserError(f"task.csv={file} has {key} {quoted(twice.iloc[0])} in several rows: keep one row")
    known = set(table[key].dropna())
    absent = [name for name in dict.fromkeys(views[key]) if name not in known]
    if absent:
        raise UserError(
            f"task.csv={file} lacks {len(absent)} of the {views[key].nunique()} {key}s of the run: "
            f"{', '.join(map(str, absent[:MOST_NAMES]))}{', ...' if len(absent) > MOST_NAMES else ''} "
            "(add the missing rows; empty cells mean unknown values)"
        )
    names = [str(name) for name in table if name not in KEYS]
    for given, option in ((circular, "circular"), (classes, "classes")):
        for name in given:
            if name not in names:
                raise UserError(f"task.{option}: {file} has no column {quoted(name)}{nearest(name, names)}")
    rows = table.set_index(key).reindex(views[key])
    video = views["cluster"].to_numpy()
    found = {}
    for name in names:
        numeric = pd.api.types.is_numeric_dtype(rows[name]) and rows[name].dtype != bool
        if name in circular and not numeric:
            raise UserError(f"task.circular: column {quoted(name)} of {file} is not a column of numbers")
        kind = CIRCLE if name in circular else NUMBER if numeric and name not in classes else CLASSES
        found[name] = Variable(name, kind, targets_of(rows[name].to_numpy(), kind, video), f"csv: {name}")
    return found
