"""The cluster bootstrap: matrix products over per-cluster sums against drawing the rows themselves."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from static_dynamic.analysis import estimate_pairs, estimate_run
from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError
from tests.analysis.manifests import IDENTITY, small_manifest
from tests.analysis.simulated import jackknife_half


def write_run(path, rows, pairs, done=True):
    columns = {"clip": "x", "video": "x", "cluster": "x", "label": -1, "style": 1, "order": "forward"}
    views = pd.DataFrame(columns, index=range(len(rows)))
    manifest = small_manifest({"stage1": {"units": rows.shape[1], "stream": "rgb"}}, views)
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
    names = ["score_dynamic", "score_static", "share_dynamic", "share_static", "share_residual"]

    def estimate(chosen):
        return estimate_pairs(rows[chosen["a"]], rows[chosen["b"]], chosen["factor"])

    def layer_values(chosen):
        e = estimate(chosen)
        return np.array([*e.scores[:2], *e.shares])

    drawn = []
    for weights in bootstrap_weights(len(clusters), n_boot, 5):
        parts = zip(clusters, weights, strict=True)
        parts = [pairs[pairs["cluster"] == c] for c, w in parts for _ in range(int(w))]
        drawn.append(layer_values(pd.concat(parts)))
    drawn = np.array(drawn)
    k = len(clusters)
    half = t.ppf(0.975, k - 1) * np.sqrt(k / (k - 1)) * drawn.std(0)
    half = np.maximum(half, jackknife_half(layer_values, pairs))
    centre = 2 * layer_values(pairs) - drawn.mean(0)
    layer = r.layers.iloc[0]
    np.testing.assert_allclose([layer[f"{name}_low"] for name in names], centre - half, rtol=1e-7)
    np.testing.assert_allclose([layer[f"{name}_high"] for name in names], centre + half, rtol=1e-7)
    assert r.units["class"].iloc[4] == "dead" and r.units["probability_dead"].iloc[4] == 1
    probabilities = r.units[[c for c in r.units if c.startswith("probability_")]]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_intervals_of_units_are_those_of_left_out_videos(tmp_path):
    rows, pairs = sample(clips=21, seed=3)
    r = estimate_run(write_run(tmp_path / "run", rows, pairs), n_boot=20)

    def fisher_z(chosen):
        return np.arctanh(estimate_pairs(rows[chosen["a"]], rows[chosen["b"]], chosen["factor"]).unit_scores)

    clusters = sorted(set(pairs["cluster"]))
    k = len(clusters)
    pseudo = [k * fisher_z(pairs) - (k - 1) * fisher_z(pairs[pairs["cluster"] != c]) for c in clusters]
    z, error = np.mean(pseudo, axis=0), np.std(pseudo, axis=0, ddof=1) / np.sqrt(k)
    for f, name in enumerate(("dynamic", "static")):
        own = pairs[pairs["factor"] == f]
        both = np.concatenate([rows[own["a"]], rows[own["b"]]]).astype(float)
        squares = pd.DataFrame((both - both.mean(0)) ** 2).groupby(np.tile(own["cluster"], 2)).sum()
        videos = (squares.sum() ** 2 / (squares**2).sum()).to_numpy()
        half = t.ppf(0.975, 0.75 * videos - 1) * error[f]
        np.testing.assert_allclose(r.units[f"score_{name}_low"], np.tanh(z[f] - half), rtol=1e-6)
        np.testing.assert_allclose(r.units[f"score_{name}_high"], np.tanh(z[f] + half), rtol=1e-6)


def test_a_unit_alive_in_one_clip_has_no_interval(tmp_path):
    rows, pairs = sample(clips=8)
    rows[:, 0] = 0.1
    rows[6, 0] = 5.0  # a view of clip 2
    r = estimate_run(write_run(tmp_path / "run", rows, pairs), n_boot=300)
    unknown = ["score_dynamic_low", "score_static_high", "probability_dead", "probability_joint"]
    assert r.units["few_videos"].iloc[0] and r.units[unknown].iloc[0].isna().all()


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
        (json.dumps({"identity": IDENTITY | {"task": "evaluate_vos"}}), "holds no activations"),
        ('{"identity": {"task": "evaluate_vos"}}', "identity.model is missing"),
        ('{"name": "a web application"}', "another program wrote manifest.json"),
        ("[1]", "another program wrote manifest.json"),
        ("{", "manifest.json is damaged"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, manifest, says):
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=says):
        estimate_run(tmp_path)
