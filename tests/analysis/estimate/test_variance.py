"""The variance decomposition against a textbook ANOVA written with loops, and on planted units."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t

from bench.coverage import coverage
from bench.simulated import DESIGNS, grid
from static_dynamic.analysis.estimate.unit_intervals import DF_PER_VIDEO
from static_dynamic.analysis.estimate.variance import (
    COMPONENTS,
    component_weights,
    components,
    decompose_stage,
    estimate_variance,
    mean_squares,
    table_sums,
)
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError
from tests.analysis.manifests import small_manifest

ORDERS = ("forward", "shuffled", "reversed")


def mean_squares_by_loops(y):
    """Mean squares of one unit's random-effects ANOVA, y (K, S, O), from means and residuals."""
    K, S, P = y.shape
    grand = y.mean()
    v, s, o = y.mean((1, 2)) - grand, y.mean((0, 2)) - grand, y.mean((0, 1)) - grand
    ss = dict.fromkeys(("v", "s", "o", "vs", "vo", "so", "vso"), 0.0)
    for i, j, k in product(range(K), range(S), range(P)):
        vs = y[i, j].mean() - grand - v[i] - s[j]
        vo = y[i, :, k].mean() - grand - v[i] - o[k]
        so = y[:, j, k].mean() - grand - s[j] - o[k]
        rest = y[i, j, k] - grand - v[i] - s[j] - o[k] - vs - vo - so
        for name, effect in zip(ss, (v[i], s[j], o[k], vs, vo, so, rest), strict=True):
            ss[name] += effect**2
    df = {
        "v": K - 1,
        "s": S - 1,
        "o": P - 1,
        "vs": (K - 1) * (S - 1),
        "vo": (K - 1) * (P - 1),
        "so": (S - 1) * (P - 1),
    }
    df["vso"] = (K - 1) * (S - 1) * (P - 1)
    return {name: ss[name] / df[name] for name in ss}


def oracle(y):
    """Variance components of one unit, y (K, S, O): the expected mean squares, solved one by one."""
    K, S, P = y.shape
    ms = mean_squares_by_loops(y)
    vso = ms["vso"]
    vs, vo, so = (ms["vs"] - vso) / P, (ms["vo"] - vso) / S, (ms["so"] - vso) / K
    return [
        (ms["v"] - vso - P * vs - S * vo) / (S * P),
        (ms["s"] - vso - P * vs - K * so) / (K * P),
        (ms["o"] - vso - S * vo - K * so) / (K * S),
        vs,
        vo,
        so,
        vso,
    ]


def write_run(path, y):
    """A factorial run whose activations are y (K, S, O, C)."""
    K, S, P, C = y.shape
    cells = list(product(range(K), range(1, S + 1), ORDERS[:P]))
    views = pd.DataFrame(cells, columns=["clip", "style", "order"]).astype({"clip": str})
    views = views.assign(video=views["clip"], cluster=views["clip"], label=-1)
    manifest = small_manifest({"stage1": {"units": C, "stream": "rgb"}}, views)
    none = pd.DataFrame({"factor": [], "a": [], "b": [], "clip": [], "cluster": []}, dtype=int)
    store = Store.create_or_resume(path, manifest, views, none)
    store.write(np.arange(len(views)), {"stage1": y.reshape(-1, C).astype(np.float32)})
    store.commit()
    return path


@pytest.mark.parametrize("shape", [(2, 2, 2), (5, 3, 2), (7, 4, 2)])
def test_components_equal_the_textbook(shape):
    y = np.random.default_rng(0).standard_normal((*shape, 3)) + 10
    ours = components(mean_squares(table_sums(y).sum(0), *shape[1:]), *shape)
    for unit in range(3):
        np.testing.assert_allclose(ours[:, unit], oracle(y[..., unit]), rtol=1e-8, atol=1e-9)


def planted(clips, seed, styles=6):
    draw = np.random.default_rng(seed)
    e = lambda *shape: draw.standard_normal(shape)  # noqa: E731
    y = np.zeros((clips, styles, 2, 5))
    y[..., 0] = e(clips, 1, 1)
    y[..., 1] = e(1, styles, 1)
    y[..., 2] = e(1, 1, 2)
    y[..., 3] = e(clips, 1, 1) + e(clips, styles, 1) * np.sqrt(3)
    y[..., 4] = e(clips, styles, 2)
    return y


def test_pure_units_come_out_pure(tmp_path):
    units = estimate_variance(write_run(tmp_path / "run", planted(1000, 1))).units
    share = units.pivot(index="unit", columns="component", values="share")[list(COMPONENTS)].to_numpy()
    pure = np.zeros((5, 7))
    pure[[0, 1, 2, 4], [0, 1, 2, 6]] = 1
    pure[3, [0, 3]] = 0.25, 0.75
    np.testing.assert_allclose(share, pure, atol=0.05)


def test_the_components_are_unbiased():
    sums = (table_sums(planted(8, s, styles=3)).sum(0) for s in range(600))
    found = np.mean([components(mean_squares(each, 3, 2), 8, 3, 2)[:, 3] for each in sums], axis=0)
    np.testing.assert_allclose(found[[0, 3]], [1, 3], atol=0.15)
    np.testing.assert_allclose(found[[1, 2, 4, 5, 6]], 0, atol=0.05)


def interval_by_loops(y, component, level_quantile):
    """MOVER interval of one component of one unit, y (K, S, O); one clip per video."""
    K = len(y)
    names = ["v", "s", "o", "vs", "vo", "so", "vso"]
    whole = mean_squares_by_loops(y)
    pseudo = {name: [] for name in names}
    for k in range(K):
        without = mean_squares_by_loops(np.delete(y, k, axis=0))
        for name in names:
            pseudo[name].append(K * np.log(whole[name]) - (K - 1) * np.log(without[name]))
    energy = ((y - y.mean(0)) ** 2).sum((1, 2))
    videos = energy.sum() ** 2 / (energy**2).sum()
    t = level_quantile(DF_PER_VIDEO * videos - 1)
    weights = dict(zip(names, component_weights(*y.shape)[component], strict=True))
    estimate = sum(weights[name] * whole[name] for name in names)
    correlation = np.corrcoef([pseudo[name] for name in names])
    ends = []
    for side in (-1, 1):
        distance = []
        for name in names:
            reach = t * np.std(pseudo[name], ddof=1) / np.sqrt(K)
            direction = side * np.sign(weights[name])  # where this mean square lies at this end
            # The sign of the weight turns the correlation of two mean squares into that of their terms.
            distance.append(weights[name] * abs(whole[name] * np.exp(direction * reach) - whole[name]))
        squared = sum(
            a * b * correlation[i, j] for i, a in enumerate(distance) for j, b in enumerate(distance)
        )
        ends.append(estimate + side * np.sqrt(squared))
    return ends


def test_intervals_of_units_are_those_of_loops(tmp_path):
    y = np.random.default_rng(3).standard_normal((9, 3, 2, 2)) + planted(9, 4, styles=3)[..., :2]
    y = y.astype(np.float32).astype(float)
    units = estimate_variance(write_run(tmp_path / "run", y)).units.set_index(["unit", "component"])
    for unit, (k, name) in product(range(2), enumerate(COMPONENTS)):
        low, high = interval_by_loops(y[..., unit], k, lambda df: student_t.ppf(0.975, df))
        row = units.loc[(unit, name)]
        np.testing.assert_allclose([row["variance_low"], row["variance_high"]], [low, high], rtol=1e-6)


def test_intervals_of_shares_are_those_of_the_jackknife(tmp_path):
    y = np.random.default_rng(3).standard_normal((9, 3, 2, 4)) + planted(9, 4, styles=3)[..., :4]
    layers = estimate_variance(write_run(tmp_path / "run", y)).layers

    def shares(y):
        total = np.sum([oracle(y[..., unit]) for unit in range(4)], axis=0)
        return total / total.sum()

    pseudo = [9 * shares(y) - 8 * shares(np.delete(y, k, axis=0)) for k in range(9)]
    half = student_t.ppf(0.975, 8) * np.std(pseudo, axis=0, ddof=1) / 3
    np.testing.assert_allclose(layers["share_low"], shares(y) - half, rtol=1e-4)
    np.testing.assert_allclose(layers["share_high"], shares(y) + half, rtol=1e-4)


@pytest.mark.parametrize(("clips", "runs"), [(12, 60), (100, 30)])
def test_intervals_hold_what_they_say(clips, runs):
    """Bias that was corrected twice made these intervals cover style:order in 6 % of runs of 100 clips."""
    design = DESIGNS[0]
    held = coverage(design, clips, runs)
    assert held["share"].min() > 0.83 and held["share"].mean() > 0.92
    assert held["variance"].min() > 0.92 and held["variance"].mean() < 0.99


def test_every_interval_of_many_units_holds_its_estimate():
    y = np.random.default_rng(0).standard_normal((24, 4, 2, 1000))
    layer, units = decompose_stage(*grid(y), np.arange(24), 0.95)
    assert (units["variance_low"] <= units["variance"]).all()
    assert (units["variance"] <= units["variance_high"]).all()
    assert layer["share"].between(layer["share_low"], layer["share_high"]).all()


def test_a_unit_of_two_videos_has_no_interval(tmp_path):
    y = planted(10, 5)
    y[2:, ..., 0] = 0
    units = estimate_variance(write_run(tmp_path / "run", y)).units
    assert units[units["unit"] == 0]["variance_low"].isna().all()
    blind = units[units["unit"] == 3].set_index("component")  # order changes nothing, in any video
    assert blind["variance_low"].notna().all()
    ends = blind.loc["video:order", ["variance_low", "variance_high"]].to_numpy(float)
    np.testing.assert_allclose(ends, 0, atol=1e-12)


def test_activations_that_are_not_finite_are_refused(tmp_path):
    y = planted(10, 3)
    y[4, 2, 1, 2] = np.nan
    with pytest.raises(UserError, match="activations of stage1 hold NaN or infinity"):
        estimate_variance(write_run(tmp_path / "run", y))


def test_layers_are_sums_over_units(tmp_path):
    r = estimate_variance(write_run(tmp_path / "run", planted(50, 2)))
    sums = r.units.groupby("component")["variance"].sum()
    layer = r.layers.set_index("component")
    np.testing.assert_allclose(layer["variance"], sums[list(layer.index)])
    np.testing.assert_allclose(layer["share"].sum(), 1)
    assert (layer["share_low"] <= layer["share_high"]).all()


def test_constant_units_have_no_share(tmp_path):
    y = planted(10, 3)
    y[..., 0] = 0.1
    units = estimate_variance(write_run(tmp_path / "run", y)).units
    assert (
        units[units["unit"] == 0]["share"].isna().all() and (units[units["unit"] == 0]["variance"] == 0).all()
    )


def test_further_orders_change_nothing(tmp_path):
    y = planted(9, 3)
    reversed_too = np.concatenate([y, np.random.default_rng(0).standard_normal(y[:, :, :1].shape)], axis=2)
    tables = [estimate_variance(write_run(tmp_path / str(o.shape[2]), o)).layers for o in (y, reversed_too)]
    pd.testing.assert_frame_equal(*tables)


def test_a_run_that_is_not_factorial_is_refused(tmp_path):
    with pytest.raises(UserError, match="every style in both frame orders"):
        estimate_variance(write_run(tmp_path / "run", planted(5, 0)[:, :, :1]))
    with pytest.raises(UserError, match="need two clips that have all views"):
        estimate_variance(write_run(tmp_path / "one", planted(1, 0)))
