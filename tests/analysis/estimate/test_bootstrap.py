"""The cluster bootstrap: matrix products over per-cluster sums against drawing the rows themselves."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from static_dynamic.analysis import estimate_pairs, estimate_run
from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError


def write_run(path, rows, pairs, done=True):
    views = pd.DataFrame({"clip": "x", "style": 1, "order": "forward"}, index=range(len(rows)))
    manifest = {
        "identity": {"seed": 1},
        "stages": {"stage1": {"units": rows.shape[1], "stream": "rgb"}},
        "skipped_views": [],
    }
    store = Store.create_or_resume(path, manifest, views, pairs)
    if done:
        store.write(np.arange(len(rows)), {"stage1": rows})
        store.commit()
    return path


def sample(clips=9, seed=0, units=5):
    """Three views per clip: a dynamic pair (0, 2), a static pair (0, 1); one clip has two more pairs."""
    draw = np.random.default_rng(seed)
    base = draw.standard_normal((clips, 1, units))
    rows = (base + draw.standard_normal((clips, 3, units))).reshape(-1, units).astype(np.float32) + 3
    pairs = [
        {"factor": f, "a": 3 * c, "b": 3 * c + b, "clip": f"c{c}", "cluster": f"v{c // 2}"}
        for c in range(clips)
        for f, b in ((0, 2), (1, 1))
    ]
    pairs += [
        {"factor": 0, "a": 1, "b": 2, "clip": "c0", "cluster": "v0"},
        {"factor": 1, "a": 2, "b": 0, "clip": "c0", "cluster": "v0"},
    ]
    return rows, pd.DataFrame(pairs)


def test_point_estimate_equals_estimate_pairs(tmp_path):
    rows, pairs = sample()
    r = estimate_run(write_run(tmp_path / "run", rows, pairs), n_boot=20)
    e = estimate_pairs(rows[pairs["a"]], rows[pairs["b"]], pairs["factor"])
    layer = r.layers.iloc[0]
    np.testing.assert_allclose([layer["score_dynamic"], layer["score_static"]], e.scores[:2], rtol=1e-9)
    np.testing.assert_allclose(
        [layer[f"share_{f}"] for f in ("dynamic", "static", "residual")], e.shares, rtol=1e-9
    )
    np.testing.assert_allclose(r.units[["score_dynamic", "score_static"]].T, e.unit_scores, rtol=1e-8)
    assert list(r.units["class"]) == list(e.unit_class)
    assert [layer[f"dims_{f}"] for f in ("dynamic", "static", "residual")] == e.dims


def test_intervals_equal_those_of_drawn_rows(tmp_path):
    rows, pairs = sample(clips=11, seed=3)
    rows[:, 4] = 0.7  # dead in every replicate
    n_boot = 60
    r = estimate_run(write_run(tmp_path / "run", rows, pairs), n_boot=n_boot, seed=5)
    clusters = sorted(set(pairs["cluster"]))
    scores, units = [], []
    for weights in bootstrap_weights(len(clusters), n_boot, 5):
        drawn = pd.concat(
            [
                pairs[pairs["cluster"] == c]
                for c, w in zip(clusters, weights, strict=True)
                for _ in range(int(w))
            ]
        )
        e = estimate_pairs(rows[drawn["a"]], rows[drawn["b"]], drawn["factor"])
        scores.append([*e.scores[:2], *e.shares])
        units.append(e.unit_scores)
    k = len(clusters)
    half_width = t.ppf(0.975, k - 1) * np.sqrt(k / (k - 1))  # of a replicate's standard deviation
    whole = estimate_pairs(rows[pairs["a"]], rows[pairs["b"]], pairs["factor"])
    layer = r.layers.iloc[0]
    for j, name in enumerate(
        ["score_dynamic", "score_static", "share_dynamic", "share_static", "share_residual"]
    ):
        drawn = np.array([replicate[j] for replicate in scores])
        centre = 2 * [*whole.scores[:2], *whole.shares][j] - drawn.mean()
        assert np.isclose(layer[f"{name}_low"], centre - half_width * drawn.std(), rtol=1e-8)
        assert np.isclose(layer[f"{name}_high"], centre + half_width * drawn.std(), rtol=1e-8)
    for u in range(4):
        drawn = np.array([replicate[1][u] for replicate in units])
        high = 2 * whole.unit_scores[1][u] - drawn.mean() + half_width * drawn.std()
        assert np.isclose(r.units["score_static_high"][u], min(1, high), rtol=1e-7)
    assert r.units["class"].iloc[4] == "dead" and r.units["probability_dead"].iloc[4] == 1
    probabilities = r.units[[c for c in r.units if c.startswith("probability_")]]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_a_unit_alive_in_one_clip_is_dead_in_replicates_without_it(tmp_path):
    rows, pairs = sample(clips=8)
    rows[:, 0] = 0.1
    rows[6, 0] = 5.0  # a view of clip 2
    r = estimate_run(write_run(tmp_path / "run", rows, pairs), n_boot=300)
    expected = (1 - 1 / 4) ** 4  # 4 clusters of 2 clips
    assert abs(r.units["probability_dead"].iloc[0] - expected) < 0.1
    assert (
        r.units["score_dynamic_low"].iloc[0] >= -1 - 1e-9 and r.units["score_static_high"].iloc[0] <= 1 + 1e-9
    )


def test_one_clip_has_no_interval(tmp_path):
    rows, pairs = sample()
    one = pairs[pairs["clip"] == "c0"]
    layer = estimate_run(write_run(tmp_path / "run", rows, one), n_boot=50).layers.iloc[0]
    assert (
        np.isfinite(layer["score_dynamic"])
        and np.isnan(layer["score_dynamic_low"])
        and np.isnan(layer["share_static_high"])
    )


def test_same_seed_same_tables(tmp_path):
    rows, pairs = sample()
    run = write_run(tmp_path / "run", rows, pairs)
    a, b, c = (estimate_run(run, n_boot=50, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(a.layers, b.layers)
    pd.testing.assert_frame_equal(a.units, b.units)
    assert a.layers["score_static_low"].iloc[0] != c.layers["score_static_low"].iloc[0]


@pytest.mark.parametrize("clips", [20, 120])
def test_intervals_cover_the_truth(tmp_path, clips):
    """Pairs correlated within clips, known correlation: 95 % intervals hold the truth about as often as
    they say."""
    hits = 0
    for seed in range(150):
        rows, pairs = sample(clips=clips, seed=seed, units=3)
        pairs = pairs.iloc[: 2 * clips].assign(cluster=pairs["clip"])
        layer = estimate_run(write_run(tmp_path / str(seed), rows, pairs), n_boot=200).layers.iloc[0]
        hits += (
            layer["score_static_low"] <= 0.5 <= layer["score_static_high"]
        )  # base and noise of equal variance
    assert 0.90 <= hits / 150 <= 0.99


def test_what_cannot_be_estimated_is_refused(tmp_path):
    rows, pairs = sample()
    with pytest.raises(UserError, match="views in .* are not computed yet"):
        estimate_run(write_run(tmp_path / "a", rows, pairs, done=False))
    with pytest.raises(UserError, match="has no static pair whose two views were computed"):
        estimate_run(write_run(tmp_path / "b", rows, pairs[pairs["factor"] == 0]))
    rows[4, 1] = np.nan
    with pytest.raises(UserError, match="stage1 hold NaN"):
        estimate_run(write_run(tmp_path / "c", rows, pairs))
    with pytest.raises(UserError, match="not a run folder"):
        estimate_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ('{"identity": {"task": "evaluate_vos"}, "skipped": {}}', "holds no activations"),
        ('{"name": "a web application"}', "another program wrote manifest.json"),
        ("[1]", "another program wrote manifest.json"),
        ("{", "manifest.json is damaged"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, manifest, says):
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=says):
        estimate_run(tmp_path)
