"""The example notebooks run from start to end, in an empty folder."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.paths import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def test_there_are_six_notebooks_with_results():
    assert len(NOTEBOOKS) == 6
    for file in NOTEBOOKS:
        book = nbformat.read(file, 4)
        nbformat.validate(book)
        outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
        assert outputs and not any(output["output_type"] == "error" for output in outputs)
        assert str(ROOT) not in file.read_text() and "/tmp/" not in file.read_text()


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    # `!python` in a cell is the Python of the tests
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(folders))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    book = nbformat.read(file, 4)
    # raises CellExecutionError if a cell fails
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in book.cells:
        for output in cell.get("outputs", []):
            assert "Traceback" not in str(output) and "error:" not in str(output.get("text", ""))
