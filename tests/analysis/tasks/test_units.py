"""Classes at any threshold, the clips that drive units, and the task as a user calls it."""

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from static_dynamic.analysis import estimate_pairs, estimate_run
from static_dynamic.analysis.estimate.estimator import UNIT_CLASSES
from static_dynamic.analysis.estimate.order_table import OrderTable
from static_dynamic.analysis.estimate.tables import write_tables
from static_dynamic.analysis.estimate.top_parts import fractions_of_clips, top_parts
from static_dynamic.analysis.estimate.units import counts_at, parts_of_clips, sweep_thresholds, top_units
from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.analysis.tasks import units
from static_dynamic.errors import UserError
from tests.analysis.manifests import edit_manifest
from tests.analysis.simulated import write_run
from tests.conftest import moving_square, write_frames


def planted(views):
    """Units: 0 dynamic, 1 static, 2 joint, 3 residual, 4 dead, 5 joint almost only because of one clip."""
    draw = np.random.default_rng(1)
    clip = views["clip"].astype("category").cat.codes.to_numpy()
    group = {name: views.groupby(["clip", name]).ngroup().to_numpy() for name in ("style", "order")}
    rows = 0.1 * draw.standard_normal((len(views), 6))
    rows[:, 0] += draw.standard_normal(clip.max() + 1)[clip] * (views["order"] == "forward")
    rows[:, 1] += draw.standard_normal(1000)[group["style"]]
    rows[:, 2] += draw.standard_normal(clip.max() + 1)[clip]
    rows[:, 3] *= 10
    rows[:, 4] = 2.5
    rows[:, 5] += 9.0 * (clip == 4)
    return rows


@pytest.fixture
def finished(tmp_path):
    run = write_run(tmp_path / "run", planted, 12, styles=(1, 2))
    write_tables(run, estimate_run(run, n_boot=50))
    return run


def test_counts_are_those_of_the_estimator_at_every_threshold(finished):
    store = Store.open(finished)
    rows, pairs = store.activations("stage1"), store.finished_pairs()
    table = pd.read_parquet(finished / "units.parquet")
    thresholds = [0.0, 0.3, 0.5, 0.95]
    sweep = sweep_thresholds(table, thresholds)
    for (_, line), threshold in zip(sweep.iterrows(), thresholds, strict=True):
        e = estimate_pairs(rows[pairs["a"]], rows[pairs["b"]], pairs["factor"], threshold)
        assert [line[name] for name in UNIT_CLASSES] == [
            (e.unit_class == name).sum() for name in UNIT_CLASSES
        ]
    assert counts_at(table, 0.5).loc["stage1"].tolist() == [1, 1, 2, 1, 1]
    np.testing.assert_array_equal(sweep[list(UNIT_CLASSES)].sum(axis=1), 6)


def test_the_probability_of_a_class_is_in_the_tables(finished):
    table = pd.read_parquet(finished / "units.parquet").set_index("unit")
    for unit, name in ((0, "dynamic"), (1, "static"), (2, "joint"), (4, "dead")):
        assert table.loc[unit, "class"] == name and table.loc[unit, f"probability_{name}"] > 0.9


def test_parts_of_clips_add_up_to_the_score(finished):
    store = Store.open(finished)
    z, pairs = store.activations("stage1")[:, 2].astype(float), store.finished_pairs()
    for f, factor in enumerate(("dynamic", "static")):
        own = pairs[pairs["factor"] == f]
        parts = parts_of_clips(z, own)
        score = pd.read_parquet(finished / "units.parquet")[f"score_{factor}"][2]
        assert parts["part"].sum() == pytest.approx(score)
        both = np.concatenate([z[own["a"]], z[own["b"]]])
        first = own[own["clip"] == "c0000"]
        by_hand = ((z[first["a"]] - both.mean()) * (z[first["b"]] - both.mean())).sum() / (
            both.var() * len(own)
        )
        assert parts.set_index("clip").loc["c0000", "part"] == pytest.approx(by_hand)


def test_the_clip_that_makes_a_unit_comes_first(finished):
    table = pd.read_parquet(finished / "units.parquet")
    top = top_units(Store.open(finished), table, "stage1", 0.5, count=2, clips=3)
    assert set(zip(top["class"], top["unit"], strict=True)) == {
        ("dynamic", 0),
        ("static", 1),
        ("joint", 2),
        ("joint", 5),
    }
    of_five = top[top["unit"] == 5]
    assert (
        of_five["clip"].iloc[0] == "c0004" and of_five["part"].iloc[0] > 0.7 and of_five["side"].iloc[0] > 3
    )
    assert (of_five["part"].diff().dropna() <= 0).all() and len(of_five) == 3
    assert (top[top["class"] == "joint"].groupby("rank")["unit"].first() == [5, 2]).all()
    with pytest.raises(UserError, match="has no stage 'stage7'"):
        top_units(Store.open(finished), table, "stage7", 0.5, 1, 1)


def test_fractions_of_clips_are_those_of_loops(finished):
    """Each clip's products of z = y - mean of the style and order, divided by the sum over clips."""
    store = Store.open(finished)
    views, y = store.views, store.activations("stage1")[:, 0].astype(float)
    z = y - pd.Series(y).groupby([views["style"], views["order"]]).transform("mean").to_numpy()
    cell = {(v.clip, v.style, v.order != "forward"): z[i] for i, v in enumerate(views.itertuples())}
    table = OrderTable.of_views(views, store.status == DONE, "shuffled")
    clips = sorted(views["clip"].unique())
    d = np.array([sum(cell[c, 1, o] * cell[c, 2, o] for o in (False, True)) / 2 for c in clips])
    t = np.array([sum(cell[c, s, False] * cell[c, s, True] for s in (1, 2)) / 2 for c in clips])
    b = np.array([sum(cell[c, 1, o] * cell[c, 2, not o] for o in (False, True)) / 2 for c in clips])
    difference = [np.mean([cell[c, s, False] - cell[c, s, True] for s in (1, 2)]) for c in clips]
    mean = [np.mean([cell[c, s, o] for s in (1, 2) for o in (False, True)]) for c in clips]
    for part, expected, side in (
        ("content", b, mean),
        ("motion", d - b, difference),
        ("appearance", t - b, mean),
    ):
        found = fractions_of_clips(store.activations("stage1"), table, 0, part, views).set_index("clip")
        np.testing.assert_allclose(found.loc[clips, "part"], expected / expected.sum(), rtol=1e-4)
        np.testing.assert_allclose(found.loc[clips, "side"], np.array(side) / z.std(), rtol=1e-4)
        assert (views["clip"].iloc[found.loc[clips, "row"]] == clips).all()


def test_the_unit_with_the_largest_part_comes_first(finished):
    table = pd.read_parquet(finished / "units.parquet")
    top = top_parts(Store.open(finished), table, "stage1", count=1, clips=2)
    assert len(top) == 2 * top["kind"].nunique() and set(top["kind"]) <= {"content", "motion", "appearance"}
    for kind, own in top.groupby("kind"):
        of_kind = table[table["kind"] == kind]
        assert own["unit"].unique().tolist() == [of_kind.loc[of_kind[kind].idxmax(), "unit"]]
        assert (own["part"].diff().dropna() <= 0).all()
    assert top[top["kind"] == "appearance"]["unit"].iloc[0] == 1
    assert top[top["kind"] == "content"]["unit"].iloc[0] in (2, 5)
    assert len(top_parts(Store.open(finished), table.drop(columns="kind"), "stage1", 1, 1)) == 0


def task(run, root=None):
    options = {"top": 2, "clips": 2, "data_root": root, "least": 0.0, "most": 1.0, "step": 0.25}
    return OmegaConf.create({"runs": [str(run)], "stg": None, "joint_encoding_thresh": 0.5, "task": options})


def test_the_task_draws_the_frames_that_the_network_saw(finished, tmp_path, capsys):
    root = tmp_path / "data"
    for clip in range(12):
        for style in (1, 2):
            write_frames(root / f"style_{style}" / f"c{clip:04d}", moving_square(clip, n=16, side=24))
    edit_manifest(finished, root=str(tmp_path / "moved"))
    with pytest.raises(UserError, match="are no longer in .*moved .*: give task.data_root=FOLDER"):
        units.run(task(finished))
    units.run(task(finished, str(root)))
    assert "top_units.jpg" in capsys.readouterr().out
    assert (finished / "top_units.jpg").read_bytes().startswith(b"\xff\xd8")
    assert (finished / "top_parts.jpg").read_bytes().startswith(b"\xff\xd8")
    assert set(pd.read_csv(finished / "top_parts.csv")["kind"]) >= {"content", "appearance"}
    for name in ("thresholds.png", "histograms.png", "parts.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    sweep = pd.read_csv(finished / "thresholds.csv")
    assert sweep["threshold"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    top = pd.read_csv(finished / "top_units.csv")
    strip = units.read_strips(Store.open(finished), top.iloc[:1], str(root))[top["row"].iloc[0]]
    views = pd.read_parquet(finished / "views.parquet")
    view = views.iloc[top["row"].iloc[0]]
    seen = moving_square(int(view["clip"][1:]), n=16, side=24)[view["frames_rgb"][[0, 1, 3]]]
    np.testing.assert_array_equal(strip, seen)


def test_what_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no units.parquet"):
        units.run(task(tmp_path))
    with pytest.raises(UserError, match=r"give runs=\[FOLDER\]"):
        units.run(OmegaConf.create({"runs": [], "task": {}}))
