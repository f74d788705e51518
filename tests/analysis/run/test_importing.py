"""Import of activations: the same as a run of the extraction, what is refused, every task on the result."""

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
from static_dynamic.analysis.run.progress import progress_of
from static_dynamic.analysis.run.store import DONE, Store, has_run
from static_dynamic.errors import UserError
from tests.analysis.simulated import effects, write_run

COLUMNS = ["video", "clip", "style", "order"]


def views_of(clips=4, styles=(1, 2), orders=("forward", "shuffled")):
    """All views of a few clips, one clip per video."""
    rows = [(f"v{c}", f"c{c}", s, o) for c in range(clips) for s in styles for o in orders]
    return pd.DataFrame(rows, columns=COLUMNS)


def draw(views, units=3, seed=0):
    """Independent activations."""
    return np.random.default_rng(seed).standard_normal((len(views), units)).astype(np.float32)


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


def changed(name, values):
    """Views with other values in one column."""
    return views_of().assign(**{name: values})


def with_value(value, dtype=np.float64):
    """Activations with one other value, in row 9 and unit 2."""
    rows = draw(views_of()).astype(dtype)
    rows[9, 2] = value
    return rows


def with_cell(name, row, value):
    views = views_of().astype({name: object})
    views.loc[row, name] = value
    return views


BAD_VIEWS = {
    "not a pandas DataFrame: give the columns video": views_of().to_dict(),
    "lacks the columns style, order: give": views_of().drop(columns=["style", "order"]),
    "unknown columns frames, 3: give": views_of().assign(frames=1, **{"3": 2}),
    "repeats the columns clip: give": pd.concat([views_of(), views_of()[["clip"]]], axis=1),
    "has no clip in row 3: give": with_cell("clip", 3, None),
    "has no style in row 2: give": with_cell("style", 2, np.nan),
    "the style 1.0 in row 0: give integers": changed("style", views_of()["style"].astype(float)),
    "the style '2' in row 2: give integers": with_cell("style", 2, "2"),
    "the style True in row 5: give integers": with_cell("style", 5, True),
    "the label 'run' in row 0: give integers": changed("label", "run"),
    "clip c1, style 1, forward again in row 8: give each view once": with_cell("clip", 8, "c1").assign(
        video=lambda t: t["clip"]
    ),
    "clip c1 in the videos v1 and v2: give clips of different": with_cell("video", 7, "v2"),
    "the orders forward, reversed, shuffled: give forward and one": with_cell("order", 1, "reversed"),
    "the orders forward: give forward and one altered": changed("order", "forward").drop_duplicates(),
    "the orders Forward, shuffled: give": changed("order", ["Forward", "shuffled"] * 8),
    "the orders none: give": views_of()[:0],
    "no dynamic pair: give a clip in two styles": views_of(styles=(1,)),
    "no static pair: give a clip in one style in both": views_of()[
        lambda t: (t["order"] == "forward") == (t["clip"] > "c1")
    ],
}


@pytest.mark.parametrize("message", BAD_VIEWS)
def test_views_that_cannot_be_used_are_refused(tmp_path, message):
    views = BAD_VIEWS[message]
    refused(tmp_path, message, {"a": draw(views)}, views)


def refused(tmp_path, message, activations, views, **options):
    """Assert that an import fails with one line and writes nothing."""
    with pytest.raises(UserError) as error:
        import_activations(tmp_path / "run", activations, views, **options)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


BAD_ACTIVATIONS = {
    "there are no activations: give a dict": {},
    "no activations: give a dict from": draw(views_of()),
    "the activations of a have 15 rows, but views has 16": {"a": draw(views_of())[1:]},
    "a have the shape (16,): give": {"a": draw(views_of())[:, 0]},
    "a have the shape (16, 3, 1): give": {"a": draw(views_of())[..., None]},
    "a have the shape (16, 0): give": {"a": draw(views_of())[:, :0]},
    "b hold nan in row 9, unit 2: leave": {"a": draw(views_of()), "b": with_value(np.nan)},
    "a hold -inf in row 9, unit 2: leave": {"a": with_value(-np.inf)},
    "a hold inf in row 9, unit 2: leave": {"a": with_value(np.inf, np.float16)},
    "a hold 1e+39 in row 9, unit 2, which float32 cannot hold: scale": {"a": with_value(1e39)},
    "a are of type complex64: give": {"a": draw(views_of()).astype(np.complex64)},
    "a are of type object: give": {"a": draw(views_of()).astype(object)},
    "a are of type bool: give": {"a": draw(views_of()) > 0},
    "a are of type <U32: give": {"a": draw(views_of()).astype(str)},
    "a are no array (setting an array element": {"a": [[1.0, 2.0], [1.0]]},
    "a are no array (Can't call numpy() on Tensor that": {"a": torch.ones(16, 2, requires_grad=True)},
    "hold nan in row 1, unit 0": {"a": np.ma.masked_array(np.ones((16, 2)), np.eye(16, 2, -1) > 0)},
    "the stage name '' cannot be the name of a file": {"": draw(views_of())},
    "the stage name 12 cannot": {12: draw(views_of())},
    "the stage name '..' cannot": {"..": draw(views_of())},
    "the stage name 'a\\nb' cannot": {"a\nb": draw(views_of())},
    "the stage name 'a\\\\b' cannot": {"a\\b": draw(views_of())},
    "the stage name 'xxx": {"x" * 201: draw(views_of())},
    "the stages a/b and a--b would share the file a--b.npy": {n: draw(views_of()) for n in ("a/b", "a--b")},
}


@pytest.mark.parametrize("message", BAD_ACTIVATIONS)
def test_activations_that_cannot_be_used_are_refused(tmp_path, message):
    refused(tmp_path, message, BAD_ACTIVATIONS[message], views_of())


def test_a_value_in_a_later_block_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "NUMBERS_AT_A_TIME", 6)  # two rows
    refused(tmp_path, "a hold nan in row 9, unit 2", {"a": with_value(np.nan)}, views_of())


def test_an_unknown_value_of_pairs_is_refused(tmp_path):
    refused(tmp_path, "pairs=bot; nearest known: both", {"a": draw(views_of())}, views_of(), pairs="bot")


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


@pytest.mark.parametrize("stop_at", ["create_files", "fill", "write_text"])
def test_a_killed_import_leaves_no_run(tmp_path, stop_at):
    victim = get_context("forkserver").Process(target=_killed, args=(tmp_path / "run", stop_at))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    assert (tmp_path / "run").is_dir() and not has_run(tmp_path / "run")
    with pytest.raises(UserError, match="is not a run folder"):
        estimate_run(tmp_path / "run")
    if stop_at == "write_text":  # everything but the manifest is in place, and could be somebody's files
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
            assert "top_units.csv; no top_units.jpg (imported without videos)" in out
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
