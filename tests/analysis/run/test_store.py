"""Activations on disk: rows without values are NaN, and no statistic reads such rows."""

import numpy as np
import pandas as pd
import pytest

from static_dynamic.analysis import (
    estimate_convergence,
    estimate_information,
    estimate_run,
    estimate_variance,
    plan_study,
)
from static_dynamic.analysis.estimate.paired import PairedBootstrap
from static_dynamic.analysis.estimate.tables import write_tables
from static_dynamic.analysis.estimate.units import top_units
from static_dynamic.analysis.run import arrays
from static_dynamic.analysis.run import store as module
from static_dynamic.analysis.run.manifest import has_run, read_manifest
from static_dynamic.analysis.run.shards import merge_shards
from static_dynamic.analysis.run.store import DONE, SKIPPED, Store
from static_dynamic.analysis.vos.original_writer import correlations
from static_dynamic.datasets import Clip, make_views
from tests.analysis.manifests import small_manifest
from tests.analysis.simulated import effects, write_run

STAGES = {"stage1": {"units": 3, "stream": "rgb"}, "deep/two": {"units": 2, "stream": "rgb"}}


def tables(clips=3):
    """Tables of views and pairs of a few clips in two styles."""
    listed = [Clip(f"c{k}", f"c{k}", 0, 8, cluster=f"c{k}") for k in range(clips)]
    return make_views(listed, (1, 2), {"rgb": 4}, n_sample_frames=8)


def create(path, shard=None):
    """Create a run, or a shard of a run, in which nothing is computed yet."""
    identity = {"seed": 1} | ({"shard": shard} if shard else {})
    views, pairs = tables()
    return Store.create_or_resume(path, small_manifest(STAGES, views, identity), views, pairs)


def values(rows):
    """Activations of every stage, unlike for any two rows."""
    return {s: np.add.outer(rows, np.arange(a["units"])).astype(np.float32) for s, a in STAGES.items()}


@pytest.mark.parametrize("block", [1, 7, 2**22])
def test_rows_are_nan_until_the_view_is_done(tmp_path, monkeypatch, block):
    monkeypatch.setattr(arrays, "NUMBERS_AT_A_TIME", block)
    store = create(tmp_path)
    assert not store.status.any()
    assert all(np.isnan(store.activations(stage)).all() for stage in STAGES)
    done = np.array([1, 4, 5])
    store.write(done, values(done))
    store.skip(np.array([2, 3]), "c0", "broken")
    store.commit()
    for stage in STAGES:
        stored = np.load(tmp_path / "activations" / f"{stage.replace('/', '--')}.npy")
        np.testing.assert_array_equal(stored[done], values(done)[stage])
        assert np.isnan(np.delete(stored, done, axis=0)).all()


def test_runs_of_earlier_versions_whose_missing_rows_are_zero_still_resume(tmp_path):
    for name in ("old", "new"):
        store = create(tmp_path / name)
        if name == "old":
            for stage in STAGES:
                store.activations(stage)[:] = 0
        for rows in (np.arange(5), np.arange(7, 12)):
            store.write(rows, values(rows))
            store.commit()
            store = create(tmp_path / name)
        store.skip(np.array([5, 6]), "c1", "broken")
        store.require_finished()
    new, old = (Store.open(tmp_path / name) for name in ("new", "old"))
    assert not old.activations("stage1")[5:7].any() and np.isnan(new.activations("stage1")[5:7]).all()
    tables = [estimate_run(store.path, n_boot=20).layers for store in (new, old)]
    pd.testing.assert_frame_equal(*tables)


def test_a_merged_run_keeps_the_nan_of_skipped_views(tmp_path):
    folders = []
    for index, (first, end) in enumerate([(0, 6), (6, 12), (12, 12)]):
        shard = {"index": index, "of": 3, "first": first, "end": end, "batch_size": 6}
        store = create(tmp_path / f"run.{index}-of-3", shard)
        rows = np.arange(first, end)[2:]
        store.write(rows, values(rows))
        store.commit()
        if end > first:
            store.skip(np.arange(first, first + 2), "c", "broken")
        folders.append(store.path)
    merge_shards(tmp_path / "run", folders)
    merged = Store.open(tmp_path / "run")
    assert (merged.status == ([SKIPPED] * 2 + [DONE] * 4) * 2).all()
    for stage in STAGES:
        assert (np.isnan(merged.activations(stage)).all(axis=1) == (merged.status == SKIPPED)).all()
        assert (np.isnan(merged.activations(stage)).any(axis=1) == (merged.status == SKIPPED)).all()


def test_a_run_that_was_killed_while_it_was_created_is_created_anew(tmp_path, monkeypatch):
    def killed(file):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "fill_with_nan", killed)
        create(tmp_path)
    assert not has_run(tmp_path)
    assert all(np.isnan(create(tmp_path).activations(stage)).all() for stage in STAGES)


def top(folder):
    write_tables(folder, estimate_run(folder, n_boot=20))
    return top_units(
        Store.open(folder), pd.read_parquet(folder / "units.parquet"), "stage1", 0.2, count=3, clips=2
    )


def paired(folder):
    """A comparison of a run with itself, and the mean of both."""
    boot = PairedBootstrap([Store.open(folder)] * 2, ["a", "b"], n_boot=20)
    members = [(0, "stage1")], [(1, "stage1")]
    return pd.DataFrame([boot.difference(*members).columns(), boot.mean(members[0]).columns()])


def of_pairs(folder):
    """The correlations that the result files of Kowal et al.'s code hold."""
    store = Store.open(folder)
    pairs = store.finished_pairs()
    return pd.DataFrame(correlations(store.activations("stage1"), pairs["a"], pairs["b"]))


def both_tables(result):
    return pd.concat([result.layers, result.units])


READERS = {
    "run": lambda folder: both_tables(estimate_run(folder, n_boot=20, n_permutations=9)),
    "variance": lambda folder: both_tables(estimate_variance(folder)),
    "information": lambda folder: both_tables(estimate_information(folder, n_boot=20, n_permutations=9)),
    "convergence": lambda folder: estimate_convergence(folder, n_boot=20),
    "plan": lambda folder: plan_study(folder, 0.1, seconds_per_view=1),
    "units": top,
    "compare": paired,
    "vos": of_pairs,
}


@pytest.mark.parametrize("reader", READERS)
def test_no_statistic_reads_a_row_that_is_not_done(tmp_path, reader):
    folder = write_run(tmp_path / "run", effects(1, units=5), clips=24, styles=(1, 2))
    store = create_again(folder)
    left_out = np.array([0, 17, 18, 95])  # the first row is the one whose values shift all others
    store.skip(left_out, "several", "broken")
    found = []
    for value in (np.nan, 1e30, 0.0):
        store.activations("stage1")[left_out] = value
        found.append(READERS[reader](folder))
    assert np.isfinite(found[0].select_dtypes("number").to_numpy(float)).any()
    pd.testing.assert_frame_equal(found[0], found[1])
    pd.testing.assert_frame_equal(found[0], found[2])


def create_again(folder):
    """Open a finished run for writing."""
    manifest = read_manifest(folder)
    pairs, views = (pd.read_parquet(folder / f"{name}.parquet") for name in ("pairs", "views"))
    return Store.create_or_resume(folder, manifest, views, pairs)
