"""Mutants of the files of a finished run."""

import copy
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from static_dynamic.analysis import estimate_run
from static_dynamic.analysis.estimate.comparison import compare_runs
from static_dynamic.analysis.estimate.tables import read_layers, read_units
from static_dynamic.analysis.estimate.units import top_units
from static_dynamic.analysis.run.manifest import write_manifest
from static_dynamic.analysis.run.progress import progress_of
from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.analysis.show.report.page import write_report
from tests.analysis.finished import finished_run
from tests.analysis.manifests import forget_checks
from tests.fuzz.mutations import MUTATIONS
from tests.fuzz.registry import Trial, fuzzer

# Values that no entry of a manifest should have.
VALUES = (None, -1, 0, 2**62, 1e300, float("nan"), "", "\x1b[31m", "${oc.env:HOME}", "../../x", "x" * 10**5)
VALUES += ([], {}, [[]], {"a": 1}, True, [None], "os.system")
Reader = Callable[[Path], str]


@fuzzer
def run_folders(rng: np.random.Generator, folder: Path) -> tuple[str, Trial]:
    """Damage one file, remove it, or rewrite the manifest or an array with valid content that is wrong."""
    earlier = bool(rng.integers(4) == 0)  # a run of an earlier version, without checksums
    run = folder / "run"
    shutil.copytree(original(earlier), run)
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
    file = files[rng.integers(len(files))]
    checked = not earlier
    match rng.integers(8):
        case 0:
            what = "removed"
            file.unlink()
        case 1:
            what, file, checked = "manifest", run / "manifest.json", False
            manifest = json.loads(file.read_text())
            manifest.pop("sha256")
            write_manifest(run, rewritten(rng, manifest))
        case 2:
            arrays = [path for path in files if path.suffix == ".npy"]
            what, file, checked = "array", arrays[rng.integers(len(arrays))], False
            file.write_bytes(other_array(rng, np.load(file)))
        case _:
            what = list(MUTATIONS)[rng.integers(len(MUTATIONS))]
            file.write_bytes(MUTATIONS[what](rng, file.read_bytes()))
    reader = READERS[rng.choice(len(READERS), p=SHARES)]
    checked &= what != "removed" or reader is not report  # a report shows the tables that are there
    whole = expected(reader)
    return f"{what}: {file.name}, {reader.__name__}", lambda: trial(run, reader, whole, checked)


def trial(run: Path, reader: Reader, whole: str, checked: bool) -> str:
    """Read a mutant; compare what was read with the original."""
    state = progress_of(run)  # never raises for a damaged run
    assert state["why"].isprintable()
    found = reader(run)
    if found == whole:
        return "same numbers"
    assert not checked, "the numbers differ"
    return "other numbers"


def numbers(run: Path) -> str:
    """Return all numbers and names of a run as text."""
    store = Store.open(run)
    store.require_finished()
    store.verify()
    done = store.status == DONE
    rows = [store.activations(name)[done].tobytes().hex() for name in store.names]
    tables = [store.views, store.finished_pairs(), read_layers(run), read_units(run)]
    texts = [table.to_json(double_precision=15) for table in tables]
    return json.dumps([store.status.tolist(), rows, texts])


def report(run: Path) -> str:
    """Return the report of a run without the manifest at its end, whose other entries are no numbers."""
    return write_report(run).read_text(encoding="utf-8").partition("<summary>")[0]


def estimates(run: Path) -> str:
    """Return the scores of a run, estimated again."""
    found = estimate_run(run, n_boot=2, n_permutations=2)
    return found.layers.to_json() + found.units.to_json()


def comparison(run: Path) -> str:
    """Return the tables of a comparison of a run with the original."""
    found = compare_runs([run, original(False)], n_boot=2)
    return found.layers.drop(columns=["run", "curve"]).to_json() + found.runs.drop(columns="run").to_json()


def top(run: Path) -> str:
    """Return the units with the highest scores, and the clips that drive them."""
    return top_units(Store.open(run), read_units(run), "stage1", 0.2, count=2, clips=2).to_json()


READERS = (numbers, report, estimates, comparison, top)
SHARES = (0.6, 0.1, 0.1, 0.1, 0.1)


@cache
def original(earlier: bool) -> Path:
    """Return the folder of a whole run."""
    run = Path(tempfile.mkdtemp(prefix="fuzz-run-")) / "run"
    finished_run(run, videos=range(4), units=3, n_boot=2)
    if earlier:
        forget_checks(run)
    return run


@cache
def expected(reader: Reader) -> str:
    """Return what a reader returns for the whole run."""
    copied = Path(tempfile.mkdtemp(prefix="fuzz-run-")) / "run"
    shutil.copytree(original(False), copied)
    return reader(copied)


def rewritten(rng: np.random.Generator, manifest: dict) -> dict:
    """Remove, rename or replace one entry of a manifest, at any depth."""
    manifest = copy.deepcopy(manifest)
    places = list(entries(manifest))
    parent, key = places[rng.integers(len(places))]
    if rng.integers(3) == 0:
        del parent[key]
    else:
        parent[key] = VALUES[rng.integers(len(VALUES))]
    return manifest


def entries(value):
    """Yield (container, key) of every entry of nested dicts and lists."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from entries(value[key])


def other_array(rng: np.random.Generator, array: np.ndarray) -> bytes:
    """Return a .npy file with another type, shape or content than the array."""
    kinds = [
        array.astype(np.float64),
        array[:-1],
        array.ravel(),
        np.array([None, "x"], object),
        np.zeros(array.shape, [("a", "f4")]),
        np.full(array.shape, 255).astype(array.dtype),
        np.asfortranarray(array),
        np.zeros(0, array.dtype),
    ]
    stream = io.BytesIO()
    np.save(stream, kinds[rng.integers(len(kinds))], allow_pickle=True)
    data = stream.getvalue()
    return data.replace(b"(", b"(99999999999999, ", 1) if rng.integers(6) == 0 else data
