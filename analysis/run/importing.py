"""Create a finished run from activations that another program computed.

The folder is the same as after an extraction, except that ``views.parquet`` has no frame numbers, because the
videos are unknown. Everything is written to a temporary folder and then moved, the manifest last, so a killed
import leaves no run.
"""

import re
from collections.abc import Iterator, Mapping
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from static_dynamic.analysis.run.arrays import (
    CHECKSUMS_NAME,
    NUMBERS_AT_A_TIME,
    STATUS_NAME,
    activation_file,
    checksums_of,
    create_files,
)
from static_dynamic.analysis.run.identity import code_version
from static_dynamic.analysis.run.locks import LOCK_NAME, locked
from static_dynamic.analysis.run.manifest import IMPORTED, has_run, write_manifest
from static_dynamic.analysis.run.store import DONE
from static_dynamic.assets import versions
from static_dynamic.datasets.orders import (
    ALTERED,
    ALTERED_ORDERS,
    FORWARD,
    SHUFFLED,
    UNALTERED,
    first_altered_order,
)
from static_dynamic.datasets.views import DYNAMIC, SCHEMES, STATIC, factorial
from static_dynamic.errors import UserError, nearest
from static_dynamic.files import PART, json_sha256, temporary_folder

COLUMNS, OPTIONAL_COLUMNS = ("video", "clip", "style", "order"), ("label",)
# Characters that some systems forbid in file names, and dots or spaces at the start or end of a name.
UNUSABLE = re.compile(r'[\x00-\x1f<>:"|?*\\]|^[.\s]|[.\s]$')
# Longest stage name in bytes; file systems allow 255 bytes including suffixes.
LONGEST_NAME = 200


def import_activations(
    run_dir: str | Path,
    activations: Mapping[str, ArrayLike],
    views: pd.DataFrame,
    *,
    model: str | None = None,
    dataset: str = "imported",
    folder: str | None = None,
    pairs: str = "factorial",
    seed: int = 1,
) -> Path:
    """Create a finished run from activations that another program computed; return the run folder.

    A dynamic pair is one clip in two styles, both in the order ``forward``; a static pair is one clip and
    style, ``forward`` and ``shuffled``. All such pairs are made whose two views are present. A video is a
    cluster. Raises UserError, before anything is written, if an argument cannot be used or if the folder is
    not empty.

    Parameters
    ----------
    run_dir
        New or empty folder.
    activations
        Per stage, in order of depth, an array (views, units) of finite real numbers; may be memory-mapped.
        Numbers are stored as float32.
    views
        One row per row of activations, in the same order. Columns: video, clip, style (integer), order, and
        optionally label (integer class). The orders are ``forward`` and ``shuffled``, and optionally
        ``reshuffled``, ``reversed`` and ``frozen``. A single altered order may have any name.
    model
        Name of the network in tables and figures; by default the name of the folder.
    dataset, folder
        Names of the data set and of its folder. ``task=compare`` draws the same videos for two runs that have
        equal names of both. By default, `folder` is a hash of the names of videos and clips.
    pairs
        How the views of a clip were chosen, for ``task=plan``: ``factorial``, ``both`` or ``paper``.
    seed
        Number of the training run. ``task.average_seeds`` averages runs of equal `model` and other `seed`.
    """
    path = Path(run_dir).absolute()
    require_free(path)
    if pairs not in SCHEMES:
        raise UserError(f"unknown pairs={pairs}{nearest(str(pairs), SCHEMES)} (known: {', '.join(SCHEMES)})")
    table = table_of_views(views)
    pair_table = pairs_of_views(table)
    require_stage_names(activations)
    stages = {name: as_matrix(name, values, len(table)) for name, values in activations.items()}
    for name, rows in stages.items():
        require_finite(name, rows)

    listing = json_sha256(sorted(set(zip(table["video"], table["clip"], strict=True))))
    manifest = {
        "identity": {
            "model": {"name": model or path.name, "init": IMPORTED},
            "weights_sha256": None,
            "dataset": {"name": dataset, "folder": folder or listing[:8], "listing_sha256": listing},
            "styles": sorted(set(table["style"].tolist())),
            "pairs": pairs,
            "seed": seed,
        },
        "stages": {name: {"units": rows.shape[1], "stream": "rgb"} for name, rows in stages.items()},
        "input": {"pathways": {}},
        "counts": {
            "clips": table["clip"].nunique(),
            "clusters": table["cluster"].nunique(),
            "views": len(table),
            "pairs_dynamic": int((pair_table["factor"] == DYNAMIC).sum()),
            "pairs_static": int((pair_table["factor"] == STATIC).sum()),
        },
        "skipped_views": [],
        "code": code_version(),
        "versions": versions(),
    }
    with locked(path):
        # check again: another process may have written here since the first check
        require_free(path)
        with temporary_folder(path / "import") as temporary:
            new = temporary / "run"
            manifest = create_files(new, manifest, table, pair_table)
            for name, rows in stages.items():
                fill(activation_file(new, name), rows)
            sums = np.load(new / CHECKSUMS_NAME, mmap_mode="r+")
            for k, name in enumerate(stages):
                stored = np.load(activation_file(new, name), mmap_mode="r")
                for block in blocks(stored):
                    sums[block, k] = checksums_of(stored[block])
            sums.flush()
            fill(new / STATUS_NAME, np.full(len(table), DONE))
            for file in list(new.iterdir()):
                file.rename(path / file.name)
            write_manifest(path, manifest)
    return path


def require_free(path: Path) -> None:
    """Raise UserError if a folder holds a run or other files; leftovers of a killed import are allowed."""
    if has_run(path):
        raise UserError(f"{path} already holds a run: give another run_dir, or remove this folder")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: give another run_dir")
    files = sorted(path.iterdir()) if path.exists() else []
    others = [file.name for file in files if file.name != LOCK_NAME and not file.match(f".*{PART}*")]
    if others:
        raise UserError(f"{path} holds other files ({others[0]}): give a new or empty folder as run_dir")


def table_of_views(views: pd.DataFrame) -> pd.DataFrame:
    """Return `views` in the format of ``views.parquet``; raise UserError if `views` is invalid."""
    wanted = f"give the columns {', '.join(COLUMNS)}, and optionally {', '.join(OPTIONAL_COLUMNS)}"
    if not isinstance(views, pd.DataFrame):
        raise UserError(f"views is of type {type(views).__name__}, not a pandas DataFrame: {wanted}")
    names = list(views.columns)
    for what, wrong in (
        ("lacks the columns", [name for name in COLUMNS if name not in names]),
        ("has the unknown columns", [name for name in names if name not in COLUMNS + OPTIONAL_COLUMNS]),
        ("repeats the columns", [name for k, name in enumerate(names) if name in names[:k]]),
    ):
        if wrong:
            raise UserError(f"views {what} {', '.join(map(str, wrong))}: {wanted}")
    for name in names:
        empty = np.flatnonzero(views[name].isna())
        if len(empty):
            raise UserError(f"row {empty[0]} of views has no {name}: give every view a {name}")
    numbers = [name for name in ("style", "label") if name in names]
    for name in numbers:
        for row, value in enumerate(views[name]):
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise UserError(f"row {row} of views has the {name} {value!r}: give integers")
    texts = {name: views[name].astype(str).to_numpy(object) for name in ("clip", "video", "order")}
    table = pd.DataFrame({"clip": texts["clip"], "video": texts["video"], "cluster": texts["video"]})
    table["label"] = views["label"].to_numpy(np.int64) if "label" in names else -1
    table["style"], table["order"] = views["style"].to_numpy(np.int64), texts["order"]
    require_consistent(table)
    return table


def require_consistent(table: pd.DataFrame) -> None:
    """Raise UserError if a clip has two videos, a view occurs twice, or the set of orders is unsupported."""
    videos = table.groupby("clip")["video"].unique()
    for clip, found in videos[videos.str.len() > 1].items():
        raise UserError(
            f"views assigns clip {clip} to the videos {found[0]} and {found[1]}: "
            "give clips of different videos different names"
        )
    repeated = np.flatnonzero(table.duplicated(["clip", "style", "order"]))
    if len(repeated):
        clip, style, order = table.loc[repeated[0], ["clip", "style", "order"]]
        raise UserError(
            f"row {repeated[0]} of views repeats clip {clip}, style {style}, {order}: give each view once"
        )
    orders = table["order"].unique().tolist()
    altered = [order for order in orders if order != FORWARD]
    several = set(altered) <= set(ALTERED_ORDERS) and SHUFFLED in altered
    if FORWARD not in orders or not (len(altered) == 1 or several):
        raise UserError(
            f"views has the orders {', '.join(orders) or 'none'}: give {FORWARD} and {SHUFFLED}, and "
            f"optionally {', '.join(ALTERED_ORDERS[1:])}; or {FORWARD} and one altered order of any name"
        )


def pairs_of_views(table: pd.DataFrame) -> pd.DataFrame:
    """Return all dynamic and static pairs of the views in `table`; raise UserError if a kind has no pair."""
    alterations = {FORWARD: UNALTERED, first_altered_order(table): ALTERED}
    row_of = {
        (clip, style, alterations[order]): row
        for row, (clip, style, order) in enumerate(zip(*(table[c] for c in COLUMNS[1:]), strict=True))
        if order in alterations
    }
    pair_rows = []
    # this generator is never used, because factorial pairs are not random
    unused = np.random.default_rng(0)
    clusters = table.drop_duplicates("clip").set_index("clip")["cluster"]
    for clip, styles in table.groupby("clip", sort=False)["style"].unique().items():
        for factor, first, second in factorial(sorted(styles), unused, DYNAMIC):
            a, b = (row_of.get((clip, *member)) for member in (first, second))
            if a is not None and b is not None:
                pair_rows.append({"factor": factor, "a": a, "b": b, "clip": clip, "cluster": clusters[clip]})
    factors = {pair["factor"] for pair in pair_rows}
    for factor, text in (
        (DYNAMIC, f"dynamic pair: give a clip in two styles, both in the order {FORWARD}"),
        (STATIC, "static pair: give a clip in one style in both orders"),
    ):
        if factor not in factors:
            raise UserError(f"views has no {text}")
    return pd.DataFrame(pair_rows)


def require_stage_names(activations: Mapping[str, ArrayLike]) -> None:
    """Raise UserError if there are no stages, or if their names cannot serve as distinct file names."""
    if not isinstance(activations, Mapping) or not activations:
        raise UserError("there are no activations: give a dict that maps the name of each stage to an array")
    files: dict[str, str] = {}
    for name in activations:
        if (
            not isinstance(name, str)
            or not name
            or len(name.encode()) > LONGEST_NAME
            or UNUSABLE.search(name)
        ):
            raise UserError(f"the stage name {name!r} cannot be the name of a file: rename the stage")
        file = activation_file(Path(), name).name
        if file in files:
            raise UserError(f"the stages {files[file]} and {name} would share the file {file}: rename one")
        files[file] = name


def as_matrix(stage: str, values: ArrayLike, n_views: int) -> NDArray:
    """Return activations as an array (views, units); raise UserError if the type or the shape is wrong."""
    try:
        # np.asarray would ignore the mask of a masked array, so masked values become NaN.
        rows = values.filled(np.nan) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the activations of {stage} are not an array ({reason}): give a numpy array"
        ) from error
    if rows.dtype.kind not in "fiu":
        raise UserError(f"the activations of {stage} are of type {rows.dtype}: give an array of real numbers")
    if rows.ndim != 2 or not rows.shape[1]:
        raise UserError(
            f"the activations of {stage} have the shape {rows.shape}: give an array (views, units)"
        )
    if len(rows) != n_views:
        raise UserError(
            f"the activations of {stage} have {len(rows)} rows, but views has {n_views} rows: "
            "give one row of activations per view"
        )
    return rows


def require_finite(stage: str, rows: NDArray) -> None:
    """Raise UserError, naming row and unit, if an activation is NaN, infinite or too large for float32."""
    for block in blocks(rows):
        with np.errstate(over="ignore"):
            stored = rows[block].astype(np.float32)
        wrong = np.argwhere(~np.isfinite(stored))
        if len(wrong):
            row, unit = wrong[0] + (block.start, 0)
            value = rows[row, unit]
            place = f"the activations of {stage} hold {value} in row {row}, unit {unit}"
            if np.isfinite(value):
                raise UserError(f"{place}, too large for float32: scale all activations of the stage down")
            raise UserError(f"{place}: leave this view out of views and of all stages")


def fill(file: Path, rows: NDArray) -> None:
    """Write rows into an existing ``.npy`` file of the same shape, block by block."""
    stored = np.load(file, mmap_mode="r+")
    for block in blocks(rows):
        stored[block] = rows[block]
    stored.flush()


def blocks(rows: NDArray) -> Iterator[slice]:
    """Yield slices that divide rows into blocks small enough for memory."""
    size = max(1, NUMBERS_AT_A_TIME * len(rows) // rows.size)
    for start in range(0, len(rows), size):
        yield slice(start, start + size)
