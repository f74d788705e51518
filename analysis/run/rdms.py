"""Representational dissimilarity matrices (RDMs) of stages, in the files of the package rsatoolbox.

``rsatoolbox.rdm.load_rdm`` reads such a file: a pickle of a dict, or the same dict as HDF5. The measures
equal those of ``rsatoolbox.rdm.calc_rdm``. The patterns are the views, and each stage is one RDM.
"""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from tqdm import tqdm

from static_dynamic.analysis.run.optional import load_h5py
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path

# Name of a measure -> (name in rsatoolbox, dissimilarities of all pairs of rows of an array (views,
# columns)).
MEASURES: dict[str, tuple[str, Callable[[NDArray], NDArray]]] = {
    "correlation": ("correlation", lambda rows: pdist(rows, "correlation")),
    "euclidean": ("squared euclidean", lambda rows: pdist(rows, "sqeuclidean") / rows.shape[1]),
}
# Columns of the table of views that describe the patterns.
PATTERNS = ("clip", "video", "label", "style", "order")
# Largest number of dissimilarities of all stages, because they are held in memory (1 GiB).
MOST = 2**27


def write_rdms(folder: Path, form: str, measure: str, store: Store, about: Mapping[str, str]) -> None:
    """Write the RDMs of all stages of a run to ``rdm.pkl`` or ``rdm.h5``; `about` describes the run.

    The RDM of a stage with the time axis compares all columns (steps x units). Raises UserError if the
    measure is unknown or there are too many views.
    """
    if measure not in MEASURES:
        raise UserError(f"unknown task.rdm={measure} (known: {', '.join(MEASURES)})")
    rows = store.done()
    views = store.views.iloc[rows]
    count = len(rows) * (len(rows) - 1) // 2
    if count < 1 or count * len(store.stages) > MOST:
        raise UserError(
            f"task.rdm={measure}: {count} dissimilarities of {len(rows)} views for each of "
            f"{len(store.stages)} stages, but 1 to {MOST} of all stages are possible: "
            "change n_examples or task.stages"
        )
    name, compare = MEASURES[measure]
    found = np.empty((len(store.stages), count))
    for k, stage in enumerate(tqdm(store.stages, desc="compare views", unit="stage")):
        found[k] = compare(store.activations(stage)[rows].astype(np.float64))
    content = {
        "dissimilarities": found,
        "descriptors": dict(about),
        "rdm_descriptors": {"stage": list(store.stages), "index": list(range(len(store.stages)))},
        "pattern_descriptors": {
            **{column: views[column].tolist() for column in PATTERNS},
            "index": list(range(len(rows))),
        },
        "dissimilarity_measure": name,
    }
    with atomic_path(folder / f"rdm.{form}") as temporary:
        FILES[form](temporary, content)


def write_pickle(path: Path, content: dict) -> None:
    """Write a dict as a pickle."""
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=4)


def write_hdf5(path: Path, content: dict) -> None:
    """Write a nested dict as rsatoolbox does: texts as attributes, lists and arrays as data sets."""
    # The temporary file is locked by this process, so HDF5 must not lock it a second time.
    with load_h5py().File(path, "w", locking=False) as file:
        fill(file, content)


def fill(group: Any, content: Mapping) -> None:
    """Fill an HDF5 group with a nested dict.

    Rsatoolbox reads texts in ASCII only: other characters are written as escapes such as ``\\xe9``.
    """
    for name, value in content.items():
        if isinstance(value, dict):
            fill(group.create_group(name), value)
        elif isinstance(value, str):
            group.attrs[name] = value
        elif isinstance(value, list) and isinstance(value[0], str):
            group[name] = np.array([text.encode("ascii", "backslashreplace") for text in value])
        else:
            group[name] = value


# Suffix of a file -> function that writes it.
FILES: dict[str, Callable[[Path, dict], None]] = {"pkl": write_pickle, "h5": write_hdf5}
