"""Runs with cells, from the command line to tables and figures: against slow oracles and known scenes."""

import json
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import main
from static_dynamic.analysis.estimate.compared_probes import compared_regions
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.show.comparison_tables import grid_of_regions
from tests.analysis.estimate.slow_decomposition import jackknife_parts, kept_cells

PARTS = ["content", "motion", "appearance", "residual"]
DETECTORS = [
    "model=custom",
    "model.target=tests.models.toys.Detectors",
    "model.stages=[maps]",
    "model.input.frames=12",
    "model.input.sampling_rate=1",
    "model.input.size=64",
    "model.input.crop=64",
    "model.input.mean=[0,0,0]",
    "model.input.std=[1,1,1]",
    "dataset=calibrated",
    "dataset.render.videos=8",
    "dataset.render.frames=14",
    "num_workers=0",
    "n_boot=20",
]
SMALL = [
    "model=small_cnn",
    "model.init=random",
    "--dataset=folder",
    "num_workers=0",
    "n_boot=20",
    "--styles=1,2",
]


def detector_maps(frames):
    """Maps (3, T, H, W) of the network `Detectors`, with plain loops over frames."""
    grey = frames.astype(float).mean(axis=-1) / 255 - 0.5
    found = np.zeros((3, *grey.shape))
    for t, image in enumerate(grey):
        later = grey[min(t + 1, len(grey) - 1)]
        found[0, t] = image
        found[1, t] = image * np.roll(later, -1, 1) - later * np.roll(image, -1, 1)
        found[2, t] = image * np.roll(later, -1, 0) - later * np.roll(image, -1, 0)
    return found


def slow_regions(views, root):
    """Activations (views, 2 regions, 3 units) from the image files and the known masks."""
    rows = []
    for view in views.itertuples():
        folder = root / f"style_{view.style}" / view.video
        files = sorted(folder.iterdir())
        frames = np.stack([np.asarray(Image.open(files[k]).convert("RGB")) for k in view.frames_rgb])
        masks = np.load(root / "masks" / f"{view.video}.npz")["arr_0"][list(view.frames_rgb)]
        maps = detector_maps(frames)
        rows.append([[unit[masks == region].mean() for unit in maps] for region in (0, 1)])
    return np.array(rows)


def slow_layer(rows, views):
    """Parts of the layer, with intervals, by the slow decomposition: (3, 4)."""
    keys = list(zip(views["clip"], views["style"], (views["order"] != "forward").astype(int), strict=True))
    cells = [dict(zip(keys, column, strict=True)) for column in rows.T]
    videos = dict(zip(views["clip"], views["video"], strict=True))
    _, (layer, low, high) = jackknife_parts([kept_cells(unit) for unit in cells], videos)
    return np.array([layer, low, high])


@pytest.fixture
def detectors(in_process, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return partial(in_process, main, *DETECTORS, f"run_dir={tmp_path / 'run'}")


@pytest.mark.parametrize("family", ["sprites", "figures"])
def test_parts_by_region_are_those_of_known_masks(detectors, tmp_path, family):
    scenes = f"dataset.render.families=[{family}]"
    status, out, err = detectors(scenes, "cells=mask", "n_permutations=99")
    assert status == 0, err
    folder = tmp_path / "run"
    store = Store.open(folder)
    (root,) = (tmp_path / "cache" / "static_dynamic" / "datasets").glob("calibrated-*") or [None]
    truth = slow_regions(store.views, root)
    rows = store.activations("maps.cells").reshape(-1, 2, 3)
    np.testing.assert_allclose(rows, truth, atol=2e-6)
    cells = pd.read_csv(folder / "cells.csv").set_index("region")
    for region, number in (("background", 0), ("foreground", 1)):
        # units that are dead but for rounding have no parts
        live = truth[:, number].std(axis=0) > 1e-6
        expected = slow_layer(rows[:, number][:, live], store.views)
        found = cells.loc[region, [part + end for end in ("", "_low", "_high") for part in PARTS]]
        np.testing.assert_allclose(found.to_numpy(float).reshape(3, 4), expected, atol=1e-6)
    # the shape moves
    assert cells.loc["foreground", "motion"] > 0.15 and cells.loc["foreground", "p_motion"] <= 0.05
    paired = pd.read_csv(folder / "cell_differences.csv").set_index("part")
    for part in PARTS:
        difference = cells.loc["foreground", part] - cells.loc["background", part]
        assert paired.loc[part, "difference"] == pytest.approx(difference)
    units = pd.read_parquet(folder / "cell_units.parquet")
    # In the background, detectors of motion see no more than the edge of the shape.
    detected = units[units["unit"] > 0].assign(seen=units["motion"] * units["variance"])
    seen = detected.groupby("region")["seen"].sum()
    if family == "sprites":
        assert seen["background"] < 0.01 * seen["foreground"]
    else:
        # the background moves, too, opposite to the shape
        assert seen["background"] > 0.1 * seen["foreground"]
    means = units[units["region"] == "foreground"][PARTS].mean()
    np.testing.assert_allclose(means, cells.loc["foreground", PARTS].to_numpy(float), atol=1e-6)
    assert (folder / "cells.png").stat().st_size > 5000 and "foreground - background" in out
    assert "Parts by place" in (folder / "report.html").read_text()
    regions = compared_regions([folder], {"a run": [0]})
    assert regions["part"].tolist() == PARTS and (regions["run"] == "a run").all()
    assert compared_regions([folder, folder], {"seeds": [0, 1]}).empty
    grid = grid_of_regions(regions)
    assert grid.rows[0]["difference"] == "foreground - background" and "[" in grid.rows[0]["motion %"]
    # the same command reads nothing again; other masks are another run
    status, _, err = detectors(scenes, "cells=mask", "n_permutations=99")
    assert status == 0 and "are on disk" in err
    for other in ("cells=1x2x2", "cells=null"):
        status, _, err = detectors(scenes, other)
        assert status == 2 and "holds a run with other options" in err


def test_clips_without_foreground_are_left_out_of_all_regions(detectors, tmp_path):
    status, out, err = detectors("dataset.render.families=[sprites,flow]", "cells=mask", "n_permutations=0")
    assert status == 0, err
    assert "8 of 16 clips have no foreground" in err
    cells = pd.read_csv(tmp_path / "run" / "cells.csv")
    assert (cells["videos"] == 8).all() and cells["region"].tolist() == ["background", "foreground"]


def test_grids_from_the_command_line(in_process, stylized, tmp_path):
    run = partial(in_process, main, *SMALL, f"--stylized_data_dir={stylized}", "n_permutations=20")
    for name, cells in {"none": [], "one": ["cells=1x1x1"], "maps": ["cells=2x2x3"]}.items():
        status, _, err = run(f"run_dir={tmp_path / name}", *cells)
        assert status == 0, err
    layers = [(tmp_path / name / "layers.csv").read_bytes() for name in ("none", "one", "maps")]
    assert layers[0] == layers[1] == layers[2]
    stages = json.loads((tmp_path / "maps" / "manifest.json").read_text())["cells"]["stages"]
    assert stages and all(about["cells"] == 12 for about in stages.values())
    for stage in stages:
        whole = (tmp_path / "none" / "activations" / f"{stage}.npy").read_bytes()
        assert (tmp_path / "one" / "activations" / f"{stage}.cells.npy").read_bytes() == whole
        one = pd.read_csv(tmp_path / "one" / "cells.csv").set_index("stage").loc[stage, PARTS]
        layer = pd.read_csv(tmp_path / "none" / "layers.csv").set_index("stage").loc[stage, PARTS]
        np.testing.assert_allclose(one.astype(float), layer.astype(float), rtol=1e-12)
    cells = pd.read_csv(tmp_path / "maps" / "cells.csv")
    assert len(cells) == 12 * len(stages)
    store = Store.open(tmp_path / "maps")
    stage = list(stages)[-1]
    units = store.stages[stage]["units"]
    rows = store.activations(f"{stage}.cells").reshape(-1, 2, 2, 3, units)
    own = cells.set_index(["stage", "time", "row", "column"]).loc[(stage, 1, 0, 2)]
    live = rows[:, 1, 0, 2].std(axis=0) > 1e-6
    expected = slow_layer(rows[:, 1, 0, 2][:, live].astype(float), store.views)
    found = own[[part + end for end in ("", "_low", "_high") for part in PARTS]].to_numpy(float).reshape(3, 4)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for picture in ("cells.png", "cells_time.png", "mean_frame.png"):
        assert Image.open(tmp_path / "maps" / picture).size[0] > 30
    # two shards are the run, bit for bit
    before = {path.name: path.read_bytes() for path in (tmp_path / "maps" / "activations").iterdir()}
    table = (tmp_path / "maps" / "cells.csv").read_bytes()
    shutil.rmtree(tmp_path / "maps")
    for shard in range(2):
        status, _, err = run(f"run_dir={tmp_path / 'maps'}", "cells=2x2x3", "shards=2", f"shard={shard}")
        assert status == 0, err
    status, _, err = run("task=merge", f"runs=[{tmp_path / 'maps'}.0-of-2,{tmp_path / 'maps'}.1-of-2]")
    assert status == 0, err
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "maps" / "activations").iterdir()}
    assert (tmp_path / "maps" / "cells.csv").read_bytes() == table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cells=8x8"], "give for example cells=1x8x8"),
        (["cells=mask"], "need masks: give masks=DIR"),
        (["masks=somewhere"], "has no effect without cells=mask"),
        (["cells=mask", "masks=somewhere"], "neither a folder, a json file nor davis"),
        (["cells=mask", "masks=davis"], "needs a DAVIS data set"),
        (["cells=mask", f"masks={__name__}.no_detector"], "no_detector failed (ValueError: no objects)"),
        (["cells=1x8x8", "masks=somewhere"], "has no effect without cells=mask"),
        (["cells=1x8x8", "task=features", "task.views=all"], "has no effect with task=features"),
    ],
)
def test_wrong_cells_are_one_line(in_process, stylized, tmp_path, arguments, message):
    status, _, err = in_process(
        main, *SMALL, f"--stylized_data_dir={stylized}", f"run_dir={tmp_path}", *arguments
    )
    assert status == 2 and message in err and "Traceback" not in err


def test_runs_without_parts_say_so(in_process, stylized, tmp_path):
    options = [f"--stylized_data_dir={stylized}", f"run_dir={tmp_path / 'run'}", "pairs=paper", "cells=1x2x2"]
    status, _, err = in_process(main, *SMALL, *options, "n_permutations=0")
    assert status == 0 and "there are no parts by cell" in err
    assert not (tmp_path / "run" / "cells.csv").exists()


def test_clips_whose_masks_cannot_be_used_are_skipped(in_process, stylized, tmp_path):
    masks = tmp_path / "masks"
    for folder in sorted((stylized / "style_1").iterdir()):
        (masks / folder.name).mkdir(parents=True)
        for file in folder.iterdir():
            grey = np.asarray(Image.open(file).convert("L"))
            labels = (grey > np.median(grey)).astype(np.uint8)
            Image.fromarray(labels[:5] if folder.name == "clip0" else labels).save(
                masks / folder.name / file.name
            )
    options = [
        f"--stylized_data_dir={stylized}",
        f"run_dir={tmp_path / 'run'}",
        "cells=mask",
        f"masks={masks}",
    ]
    run = partial(in_process, main, *SMALL, *options, "n_permutations=0")
    status, _, err = run()
    assert status == 2 and "give masks with the aspect ratio of the frames" in err
    status, _, err = run("on_error=skip")
    assert status == 0 and "masks of 1 clips cannot be used" in err
    skipped = json.loads((tmp_path / "run" / "manifest.json").read_text())["skipped_views"]
    assert {entry["clip"] for entry in skipped} == {"clip0"}


def no_detector(frames):
    raise ValueError("no objects")
