"""Files of features: one per stage, as ``.npz``, HDF5 (``.h5``) or ``.parquet``, written block by block.

    RUN/features/STAGE.npz|h5|parquet   features (views, units), or (views, steps, units) with the time axis
    RUN/features/rdm.pkl|h5             representational dissimilarity matrices of all stages
    RUN/features.csv                    stage, format, views, steps and units of each file; written last

Each file also holds, per view: clip, video, cluster, label, style, order; and per view and time step:
first_frame and last_frame (numbers of frames of the video), and seconds. Parquet files have one row per view
and time step. Skipped views are left out.
"""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.run.arrays import NUMBERS_AT_A_TIME, activation_file
from static_dynamic.analysis.run.manifest import has_run
from static_dynamic.analysis.run.optional import load_h5py
from static_dynamic.analysis.run.rdms import write_rdms
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.run.tables import read_table, write_table
from static_dynamic.datasets.views import frame_columns
from static_dynamic.errors import DamagedRun, UserError, nearest, reason
from static_dynamic.files import atomic_path

FEATURES_TABLE = "features.csv"
FEATURES = "features"
# Column of the table of views: times of the frames of the view.
SECONDS = "seconds"
# Columns of the table of views that the files contain, if the run has them.
ABOUT = ("clip", "video", "cluster", "label", "style", "order", "flow", "frame")
STEP_COLUMNS = ("first_frame", "last_frame", SECONDS)


@dataclass(frozen=True)
class Features:
    """Features of one stage: what describes each view and time step, and the numbers in blocks of views.

    ``columns`` are arrays (views,) or (views, steps); each block is an array (views of the block, steps,
    units). ``time`` says whether the files have the time axis.
    """

    columns: dict[str, NDArray]
    values: NDArray
    rows: NDArray
    steps: int
    time: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features: (views, steps, units), or (views, units) without the time axis."""
        units = self.values.shape[1] // self.steps
        return (len(self.rows), self.steps, units) if self.time else (len(self.rows), units)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the position of a block of views among all views, and their features."""
        size = max(1, NUMBERS_AT_A_TIME // self.values.shape[1])
        for start in range(0, len(self.rows), size):
            block = self.values[self.rows[start : start + size]]
            yield slice(start, start + len(block)), block.reshape(len(block), *self.shape[1:])


def export_features(folder: Path, form: str, rdm: str | None) -> pd.DataFrame:
    """Write the features of every stage of a finished run as files of the format `form`; return the summary.

    `rdm` is a key of `static_dynamic.analysis.run.rdms.MEASURES`, or None. Raises UserError if the run is not
    finished, or if the format needs a package that is not installed.
    """
    if form not in WRITERS:
        raise UserError(f"unknown task.format={form}{nearest(form, WRITERS)} (known: {', '.join(WRITERS)})")
    store = Store.open(folder)
    store.require_finished()
    rows, views = store.done(), store.views
    if not len(rows):
        raise UserError(f"{folder}: all views were skipped, so there are no features to write")
    time = bool(store.manifest["identity"][FEATURES]["time"])
    summary = []
    for stage in tqdm(store.names, desc="write features", unit="stage"):
        steps = store.stages.get(stage, {}).get("steps", 1)
        columns = {name: column_of(views[name].iloc[rows]) for name in ABOUT if name in views}
        columns |= steps_of(views.iloc[rows], steps)
        features = Features(columns, store.activations(stage), rows, steps, time)
        with atomic_path(feature_file(folder, stage, form)) as temporary:
            WRITERS[form](temporary, features)
        about = {"stage": stage, "format": form, "views": len(rows), "steps": steps}
        summary.append({**about, "units": features.shape[-1]})
    if rdm is not None:
        about = {name: store.manifest["identity"][name]["name"] for name in ("model", "dataset")}
        write_rdms(folder / FEATURES, "h5" if form == "h5" else "pkl", rdm, store, about)
    table = pd.DataFrame(summary)
    write_table(folder / FEATURES_TABLE, table)
    return table


def feature_file(folder: Path, stage: str, form: str) -> Path:
    """Return the path of the file with the features of a stage."""
    return folder / FEATURES / f"{activation_file(Path(), stage).stem}.{form}"


def column_of(values: pd.Series) -> NDArray:
    """Return a column of the table of views as an array of numbers or of texts of fixed width."""
    return values.to_numpy() if values.dtype.kind in "iuf" else values.astype(str).to_numpy(np.str_)


def frames_of(views: pd.DataFrame) -> list[NDArray]:
    """Return the frame numbers of each view, in the order of the pathway with the most frames.

    Where each frame of a view has a row of its own, return this frame.
    """
    if "frame" in views:
        return [np.array([frame]) for frame in views["frame"]]
    densest = max(frame_columns(views), key=lambda name: len(views[name].iloc[0]))
    return [np.asarray(frames) for frames in views[densest]]


def steps_of(views: pd.DataFrame, steps: int) -> dict[str, NDArray]:
    """Return the frames and the time of each time step of each view, as arrays (views, steps).

    The n frames of a view are divided evenly: step k of K has the frames at the positions from floor(k n /
    K) to ceil((k + 1) n / K) - 1. ``first_frame`` and ``last_frame`` are the smallest and largest number of
    these frames, ``seconds`` is the mean of their times.
    """
    frames = np.stack(frames_of(views))
    times = np.stack([np.asarray(own, float) for own in views[SECONDS]])
    count = frames.shape[1]
    own = [slice(k * count // steps, -(-(k + 1) * count // steps)) for k in range(steps)]
    return {
        "first_frame": np.stack([frames[:, part].min(axis=1) for part in own], axis=1),
        "last_frame": np.stack([frames[:, part].max(axis=1) for part in own], axis=1),
        SECONDS: np.stack([times[:, part].mean(axis=1) for part in own], axis=1),
    }


def write_npz(path: Path, features: Features) -> None:
    """Write a ``.npz`` file, which ``numpy.load`` reads without pickle; equal features give equal bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, column in features.columns.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                npy.write_array(file, column, allow_pickle=False)
        with archive.open(zipfile.ZipInfo(f"{FEATURES}.npy"), "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": features.shape}
            npy.write_array_header_1_0(file, header)
            for _, block in features.blocks():
                file.write(block.astype("<f4", copy=False).data)


def write_h5(path: Path, features: Features) -> None:
    """Write an HDF5 file with one data set per array."""
    h5py = load_h5py()
    # The temporary file is locked by this process, so HDF5 must not lock it a second time.
    with h5py.File(path, "w", locking=False) as file:
        for name, column in features.columns.items():
            text = column.dtype.kind == "U"
            kind = h5py.string_dtype() if text else column.dtype
            file.create_dataset(name, data=column.astype(object) if text else column, dtype=kind)
        stored = file.create_dataset(FEATURES, features.shape, "f4")
        for place, block in features.blocks():
            stored[place] = block


def write_parquet(path: Path, features: Features) -> None:
    """Write a Parquet file: one row per view, or per view and time step; ``features`` is a list column."""
    steps, units = features.steps, features.shape[-1]
    writer = None
    try:
        for place, block in features.blocks():
            columns = {
                name: pa.array(column[place].ravel() if column.ndim == 2 else column[place].repeat(steps))
                for name, column in features.columns.items()
            }
            if features.time:
                columns["step"] = pa.array(np.tile(np.arange(steps), len(block)))
            columns[FEATURES] = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), units)
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()


def read_npz(path: Path) -> dict[str, NDArray]:
    """Read all arrays of a ``.npz`` file."""
    with np.load(path) as file:
        return dict(file)


def read_h5(path: Path) -> dict[str, NDArray]:
    """Read all data sets of an HDF5 file."""
    h5py = load_h5py()
    with h5py.File(path, "r") as file:
        return {
            name: one.asstr()[...].astype(np.str_) if h5py.check_string_dtype(one.dtype) else one[...]
            for name, one in file.items()
        }


def read_parquet(path: Path) -> dict[str, NDArray]:
    """Read a Parquet file of features; columns of time steps get the shape (views, steps)."""
    table = pq.read_table(path)
    steps = 1 + int(np.max(table["step"])) if "step" in table.column_names else None
    width = table.schema.field(FEATURES).type.list_size
    flat = table[FEATURES].combine_chunks().flatten().to_numpy()
    found = {FEATURES: flat.reshape((-1, width) if steps is None else (-1, steps, width))}
    for name in table.column_names:
        if name not in ("step", FEATURES):
            column = table[name].to_numpy()
            column = column.astype(np.str_) if column.dtype.kind == "O" else column
            per_step = column.reshape(-1, steps or 1)
            found[name] = per_step if name in STEP_COLUMNS else per_step[:, 0]
    return found


# Format -> functions that write and read a file.
WRITERS: dict[str, Callable[[Path, Features], None]] = {
    "npz": write_npz,
    "h5": write_h5,
    "parquet": write_parquet,
}
READERS: dict[str, Callable[[Path], dict[str, NDArray]]] = {
    "npz": read_npz,
    "h5": read_h5,
    "parquet": read_parquet,
}


def read_features(
    folder: str | Path, stages: Sequence[str] | None = None
) -> tuple[dict[str, NDArray], pd.DataFrame]:
    """Read the features that ``task=features`` wrote into a folder, as `import_activations` takes them.

    Returns a dict {stage: features (views, units), or (views, steps, units) with the time axis}, and a table
    with the columns video, clip, style, order and label of the views. Column video names the cluster of the
    clip: clips of one cluster are not independent. Raises UserError if the folder holds no features or lacks
    a stage.
    """
    folder = Path(folder)
    if not has_run(folder) or not (folder / FEATURES_TABLE).exists():
        raise UserError(f"{folder} holds no features: give the folder that task=features printed")
    forms = read_table(folder / FEATURES_TABLE, ("stage", "format"), text=("stage",)).set_index("stage")[
        "format"
    ]
    found, views = {}, pd.DataFrame()
    for stage in forms.index if stages is None else stages:
        if stage not in forms:
            near = nearest(str(stage), list(forms.index))
            raise UserError(f"{folder} has no stage {stage!r}{near} (stages: {', '.join(forms.index)})")
        file = feature_file(folder, stage, str(forms[stage]))
        try:
            arrays = READERS[str(forms[stage])](file)
            found[str(stage)] = arrays[FEATURES]
            names = {"video": "cluster", **{name: name for name in ("clip", "style", "order", "label")}}
            views = pd.DataFrame({name: arrays[source] for name, source in names.items()})
        except UserError:
            raise
        except Exception as error:  # for a damaged file, the libraries raise exceptions of many types
            raise DamagedRun(
                f"{file} is damaged ({reason(error)}): give the command that wrote it again"
            ) from error
    return found, views
