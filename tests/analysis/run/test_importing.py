"""Import of activations: the same as a run of the extraction, folders, kills, every task on the result."""

import json
import os
import signal
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
import torch

import main
from static_dynamic.analysis import (
    estimate_convergence,
    estimate_information,
    estimate_run,
    estimate_variance,
    import_activations,
    plan_study,
)
from static_dynamic.analysis.estimate.comparison import compare_runs
from static_dynamic.analysis.run import importing
from static_dynamic.analysis.run.manifest import has_run
from static_dynamic.analysis.run.progress import progress_of
from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.errors import UserError
from tests.analysis.run.imported import COLUMNS, draw, views_of
from tests.analysis.simulated import effects, write_run


@pytest.fixture
def extracted(tmp_path):
    """A run that the store of the extraction wrote, its activations, and its views as a user gives them."""
    folder = write_run(tmp_path / "extracted", effects(1, units=5), clips=24, clips_a_cluster=2)
    views = pd.read_parquet(folder / "views.parquet")
    views["video"] = views["cluster"]
    return folder, np.load(folder / "activations" / "stage1.npy"), views[COLUMNS]


ESTIMATES = {
    "run": lambda folder: estimate_run(folder, n_boot=30, n_permutations=9),
    "information": lambda folder: estimate_information(folder, n_boot=30, n_permutations=9),
    "variance": lambda folder: estimate_variance(folder),
    "convergence": lambda folder: estimate_convergence(folder, n_boot=30),
    "plan": lambda folder: plan_study(folder, 0.1, seconds_per_view=1),
}


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_every_estimate_is_that_of_an_extracted_run(extracted, tmp_path, estimate):
    folder, rows, views = extracted
    imported = import_activations(tmp_path / "imported", {"stage1": rows}, views)
    got, expected = (ESTIMATES[estimate](run) for run in (imported, folder))
    if isinstance(got, pd.DataFrame):
        pd.testing.assert_frame_equal(got, expected)
    else:
        pd.testing.assert_frame_equal(got.layers, expected.layers)
        pd.testing.assert_frame_equal(got.units, expected.units)


def test_tables_of_views_and_pairs_are_those_of_an_extracted_run(extracted, tmp_path):
    folder, rows, views = extracted
    labelled = views.assign(label=7, style=views["style"].astype("Int64")).set_index("clip", drop=False)
    run = import_activations(str(tmp_path / "run"), {"stage1": rows}, labelled, model="net", seed=3)
    got, expected = (pd.read_parquet(path / "views.parquet") for path in (run, folder))
    expected = expected.assign(video=expected["cluster"], label=7)
    pd.testing.assert_frame_equal(got, expected.drop(columns="frames_rgb"))
    got, expected = (pd.read_parquet(path / "pairs.parquet") for path in (run, folder))
    pd.testing.assert_frame_equal(got, expected)
    assert (Store.open(run).status == DONE).all()
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["counts"] == {
        **{"clips": 24, "clusters": 12, "views": 192, "pairs_dynamic": 144, "pairs_static": 96}
    }
    assert manifest["identity"]["model"]["name"] == "net" and manifest["identity"]["seed"] == 3
    assert not [path for path in run.rglob("*") if ".part" in path.name]


def test_the_order_of_rows_does_not_matter(extracted, tmp_path):
    folder, rows, views = extracted
    order = np.random.default_rng(0).permutation(len(views))
    run = import_activations(tmp_path / "run", {"stage1": rows[order]}, views.iloc[order])
    got, expected = (estimate_run(path, n_boot=30) for path in (run, folder))
    pd.testing.assert_frame_equal(got.layers, expected.layers)
    pd.testing.assert_frame_equal(got.units, expected.units)


def slow_pairs(views):
    """All pairs by comparing every two views."""
    found = set()
    for i, a in enumerate(views.itertuples()):
        for j, b in enumerate(views.itertuples()):
            if a.clip == b.clip and a.order == "forward":
                if b.order == "forward" and a.style < b.style:
                    found.add((0, i, j))
                if b.order != "forward" and a.style == b.style:
                    found.add((1, i, j))
    return found


def test_pairs_are_all_those_whose_two_views_are_there(tmp_path):
    views = views_of(clips=12, styles=(0, 3, 7), orders=("forward", "reversed"))
    kept = np.sort(np.random.default_rng(2).permutation(len(views))[:30])
    views = views.iloc[kept]
    # The first clip has only dynamic pairs, the second only static pairs, the third no pair.
    views = views[~((views["clip"] == "c0") & (views["order"] == "reversed"))]
    views = views[(views["clip"] != "c1") | (views["style"] == 3)]
    views = views[(views["clip"] != "c2") | (views["order"] == "reversed")]
    extra = pd.DataFrame([("v0", "c0", 0), ("v0", "c0", 3), ("v1", "c1", 3)], columns=COLUMNS[:3])
    views = pd.concat([views, extra.assign(order="forward")]).drop_duplicates(ignore_index=True)
    run = import_activations(tmp_path / "run", {"a": draw(views)}, views)
    pairs = pd.read_parquet(run / "pairs.parquet")
    got = list(pairs[["factor", "a", "b"]].itertuples(index=False, name=None))
    assert len(got) == len(set(got)) and set(got) == slow_pairs(views)
    assert set(pairs.loc[pairs["clip"] == "c0", "factor"]) == {0}
    assert (pairs["cluster"].str[1:] == pairs["clip"].str[1:]).all()
    assert estimate_run(run, n_boot=10).layers["pairs_dynamic"][0] == (pairs["factor"] == 0).sum()


@pytest.mark.parametrize("block", [1, 5, 2**22])
def test_arrays_of_any_kind_are_stored_as_float32(tmp_path, monkeypatch, block):
    monkeypatch.setattr(importing, "NUMBERS_AT_A_TIME", block)
    views = views_of()
    rows = draw(views)
    np.save(tmp_path / "rows.npy", rows.astype(np.float64))
    given = {
        "half": rows.astype(np.float16),
        "mapped": np.load(tmp_path / "rows.npy", mmap_mode="r"),
        "fortran": np.asfortranarray(rows),
        "whole": np.arange(len(rows))[:, None],
        "list": rows.tolist(),
        "tensor": torch.from_numpy(rows),
        "table": pd.DataFrame(rows),
        "masked": np.ma.masked_invalid(rows),
        "deep/two": rows[:, :1],
    }
    store = Store.open(import_activations(tmp_path / "run", given, views))
    assert list(store.stages) == list(given)
    for stage, values in given.items():
        assert store.activations(stage).dtype == np.float32
        np.testing.assert_array_equal(store.activations(stage), np.asarray(values, np.float32))
    assert (tmp_path / "run" / "activations" / "deep--two.npy").exists()


def test_a_folder_that_holds_something_is_refused_and_stays_as_it_is(tmp_path):
    views = views_of()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file: give another run_dir"):
        import_activations(tmp_path / "file", {"a": draw(views)}, views)
    (tmp_path / "own" / "activations").mkdir(parents=True)
    np.save(tmp_path / "own" / "activations" / "a.npy", draw(views))
    mapped = np.load(tmp_path / "own" / "activations" / "a.npy", mmap_mode="r")
    with pytest.raises(UserError, match=r"own holds other files \(activations\): give a new or empty"):
        import_activations(tmp_path / "own", {"a": mapped}, views)
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["activations"]
    np.testing.assert_array_equal(mapped, draw(views))
    run = import_activations(tmp_path / "run", {"a": draw(views)}, views)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="run already holds a run: give another run_dir"):
        import_activations(run, {"a": draw(views, seed=1)}, views)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_run_that_another_process_wrote_meanwhile_is_kept(tmp_path, monkeypatch):
    views, first = views_of(), draw(views_of())
    lock = importing.locked

    @contextmanager
    def overtaken(path):
        with lock(path):
            monkeypatch.setattr(importing, "locked", lambda _: nullcontext())
            import_activations(path, {"a": first}, views)
            yield

    monkeypatch.setattr(importing, "locked", overtaken)
    with pytest.raises(UserError, match="already holds a run"):
        import_activations(tmp_path / "run", {"a": draw(views, seed=1)}, views)
    np.testing.assert_array_equal(Store.open(tmp_path / "run").activations("a"), first)


def test_an_empty_folder_and_the_current_folder_are_filled(tmp_path, monkeypatch):
    views = views_of()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = import_activations(".", {"a": draw(views)}, views)
    assert (
        json.loads((tmp_path / "here" / "manifest.json").read_text())["identity"]["model"]["name"] == "here"
    )
    estimate_run(run, n_boot=10)


def _killed(folder, stop_at):
    """Import, and kill this process in the call of the function `stop_at` of the module."""
    setattr(importing, stop_at, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    import_activations(folder, {"a": draw(views_of())}, views_of())


@pytest.mark.parametrize("stop_at", ["create_files", "fill", "write_manifest"])
def test_a_killed_import_leaves_no_run(tmp_path, stop_at):
    victim = get_context("forkserver").Process(target=_killed, args=(tmp_path / "run", stop_at))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    assert (tmp_path / "run").is_dir() and not has_run(tmp_path / "run")
    with pytest.raises(UserError, match="is not a run folder"):
        estimate_run(tmp_path / "run")
    if stop_at == "write_manifest":  # everything but the manifest is in place, and could be somebody's files
        with pytest.raises(UserError, match="holds other files"):
            import_activations(tmp_path / "run", {"a": draw(views_of())}, views_of())
    else:
        run = import_activations(tmp_path / "run", {"a": draw(views_of())}, views_of())
        assert estimate_run(run, n_boot=10).layers["clusters"][0] == 4
        assert not [path for path in run.rglob("*") if ".part" in path.name]


def test_tasks_of_finished_runs_work_on_imported_runs(in_process, tmp_path):
    views = views_of(clips=8)
    clip = np.repeat(draw(views_of(clips=2), units=4)[:8], 4, axis=0)  # equal in all views of a clip
    folders = []
    for name, noise in (("a", 0.3), ("b", 1.0)):
        rows = {
            stage: clip + noise * draw(views, 4, seed) for seed, stage in enumerate(("layer2", "layer12"))
        }
        folders.append(import_activations(tmp_path / name, rows, views))
    every = f"runs=[{folders[0]},{folders[1]}]"
    status, _, err = in_process(main, "task=report", every)
    assert status == 2 and "estimate_run(FOLDER).write(FOLDER)" in err
    for folder in folders:
        estimate_run(folder, n_boot=20).write(str(folder))
        estimate_variance(folder).write(folder, "variance_")
        assert progress_of(folder)["state"] == "done"

    for task in ("report", "compare", "units"):
        options = [every, "task.formats=[png]"] if task == "compare" else [f"runs=[{folders[0]}]"]
        status, out, err = in_process(main, f"task={task}", "n_boot=20", *options)
        assert status == 0, err
        if task == "units":
            assert "top_units.csv, parts.png, top_parts.csv; no top_units.jpg (imported without" in out
            assert len(pd.read_csv(folders[0] / "top_units.csv"))
    report = (folders[0] / "report.html").read_text()
    assert "<h1>a on imported</h1>" in report and "8 clips of 8 videos, 2 styles" in report
    assert "What the network saw" not in report
    (comparison,) = (tmp_path / "dim_outputs" / "compare").iterdir()
    differences = pd.read_csv(comparison / "differences.csv")
    assert differences["paired"].all() and (differences["score_static"] > 0).all()
    assert pd.read_csv(comparison / "runs.csv")["weights"].tolist() == ["imported"] * 2

    status, out, err = in_process(main, "task=plan", f"runs=[{folders[0]}]")
    assert status == 2 and "give task.seconds_per_view=SECONDS" in err
    status, out, err = in_process(main, "task=plan", f"runs=[{folders[0]}]", "task.seconds_per_view=1")
    assert status == 0 and "layer12" in out
    status, out, err = in_process(main, "task=status", f"save_dir={tmp_path}")
    assert status == 0 and "2 runs: 2 done; 64 of 64 views are read" in out
    status, out, err = in_process(main, "task=merge", f"runs=[{folders[0]}]")
    assert status == 2 and "is not the folder of a shard" in err


NAMED = {"dataset": "folder", "folder": "DIR"}


@pytest.mark.parametrize(
    ("names", "other_names", "clips", "paired"),
    [({}, {}, 8, True), ({}, {}, 7, False), (NAMED, NAMED, 7, True), ({}, NAMED, 8, False)],
)
def test_runs_are_paired_if_their_data_sets_have_equal_names(tmp_path, names, other_names, clips, paired):
    """Without given names, the data sets of two imports are the same if the clips are the same."""
    folders = []
    for name, views, options in (("a", views_of(8), names), ("b", views_of(clips), other_names)):
        folders.append(import_activations(tmp_path / name, {"s": draw(views)}, views, **options))
        estimate_run(folders[-1], n_boot=20).write(folders[-1])
    assert compare_runs(folders, n_boot=20).differences["paired"].tolist() == [paired]
