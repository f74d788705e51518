"""Tasks that read several runs name a damaged one and go on with the others."""

import shutil

import numpy as np
import pytest

import main
from static_dynamic.analysis import estimate_run, estimate_variance
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError
from tests.analysis.finished import finished_run


@pytest.fixture
def runs(tmp_path):
    """Three finished runs, of which the last has a flipped bit in its activations."""
    folders = [finished_run(tmp_path / name, model=name, videos=range(4), n_boot=2) for name in "abc"]
    flip(folders[-1] / "activations" / "stage2.npy", -5)
    return folders


def flip(file, position, bit=3):
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(data)


def test_compare(runs, in_process, tmp_path):
    listed = f"runs=[{','.join(map(str, runs))}]"
    status, out, err = in_process(main, "task=compare", listed, "n_boot=5", f"task.outdir={tmp_path / 'out'}")
    assert status == 2 and "1 of 3 runs were left out" in err
    assert "c is damaged (the activations of stage2 differ from their checksum in row 15)" in err
    assert out and (tmp_path / "out" / "comparison.md").exists()
    listed = f"runs=[{runs[0]},{runs[2]}]"
    assert in_process(main, "task=compare", listed)[0] == 2


def test_report_and_status(runs, in_process, tmp_path):
    (runs[1] / "status.npy").write_bytes(b"\x93NUMPY")
    (runs[2] / "manifest.json").write_bytes(b"\xff\xfe{}")
    status, out, err = in_process(main, "task=report", f"runs=[{','.join(map(str, runs))}]")
    assert status == 2 and "2 of 3 runs have no report" in err and (runs[0] / "report.html").exists()
    status, out, err = in_process(main, "task=status", f"save_dir={tmp_path}")
    assert status == 0 and out.count("damaged") == 3  # two rows, and the summary: 2 damaged


@pytest.mark.parametrize(
    "file", ["pairs.parquet", "views.parquet", "status.npy", "checksums.npy", "manifest.json"]
)
def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(runs, file):
    folder, whole = runs[0], (runs[0] / file).read_bytes()
    tables = estimate_run(folder, n_boot=2).layers.to_csv(), estimate_variance(folder).units.to_csv()
    refused = 0
    draw = np.random.default_rng(0)
    for position in draw.integers(len(whole), size=30):
        flip(folder / file, position, draw.integers(8))
        try:
            found = estimate_run(folder, n_boot=2).layers.to_csv(), estimate_variance(folder).units.to_csv()
            assert found == tables
        except UserError:
            refused += 1
        (folder / file).write_bytes(whole)
    assert refused > 20


def test_rows_that_are_not_done_are_not_checked(runs):
    store = Store(runs[0], "r+")
    store.skip(np.array([0, 1]), "0", "broken")
    flip(runs[0] / "activations" / "stage1.npy", 128 + 3)
    assert estimate_run(runs[0], n_boot=2) is not None


def test_tables_of_results_are_checked(runs, in_process):
    text = (runs[0] / "layers.csv").read_text()
    (runs[0] / "layers.csv").write_text(text.replace("0.", "0.1", 1))
    status, _, err = in_process(main, "task=report", f"runs=[{runs[0]}]")
    assert status == 2 and "layers.csv is damaged or was changed after the program wrote it" in err
    shutil.copy(runs[1] / "layers.csv", runs[0] / "layers.csv")
    assert in_process(main, "task=report", f"runs=[{runs[0]}]")[0] == 2
    (runs[0] / "SHA256SUMS").unlink()
    assert in_process(main, "task=report", f"runs=[{runs[0]}]")[0] == 0
