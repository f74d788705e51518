"""The report of a run shows the yardsticks' parts on the same videos."""

import shutil

import numpy as np
import pytest

import main
from static_dynamic.analysis.run.manifest import read_manifest
from static_dynamic.analysis.show.report.yardsticks import references
from tests.conftest import moving_square, write_frames


@pytest.fixture
def runs(in_process, tmp_path):
    """Folders of a network's run and of a yardstick run on the same six moving squares in two styles."""
    for clip in range(6):
        for style, scale in ((1, 1.0), (2, 0.6)):
            frames = (moving_square(clip) * scale).astype(np.uint8)
            write_frames(tmp_path / "data" / f"style_{style}" / f"clip{clip}", frames)
    shared = ("dataset=folder", f"stylized_data_dir={tmp_path / 'data'}", "styles='1,2'", "num_workers=0")
    shared += (f"save_dir={tmp_path / 'out'}", "n_boot=20", "n_permutations=20")
    for model in (
        ("yardstick",),
        ("x3d_xs", "model.init=random", "model.input.size=32", "model.input.crop=32"),
    ):
        status, out, err = in_process(main, f"model={model[0]}", *model[1:], *shared)
        assert status == 0, out + err
        assert ("untrained" in out) == (model[0] == "x3d_xs")
    return [next((tmp_path / "out" / model / "folder").iterdir()) for model in ("x3d_xs", "yardstick")]


def test_reports_show_yardsticks_on_the_same_videos(runs, tmp_path):
    run, yardstick = runs
    manifest = read_manifest(run)
    found = {line.label.split()[0]: line.value for line in references(run, manifest)}
    assert set(found) == {"velocity", "layout", "colour"} and np.isfinite(list(found.values())).all()
    page = (run / "report.html").read_text()
    assert page.count('class="reference"') == 3 and "Dotted lines: hand-made encoders" in page
    assert 'class="reference"' not in (yardstick / "report.html").read_text()
    # A run on other videos, a run without tables and a moved run give no reference.
    other = {**manifest["identity"], "dataset": {"name": "folder"}}
    assert references(run, {**manifest, "identity": other}) == []
    shutil.copytree(run, tmp_path / "moved")
    assert references(tmp_path / "moved", manifest) == []
    (yardstick / "layers.csv").unlink()
    assert references(run, manifest) == []
