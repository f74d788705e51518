"""The variance decomposition against a textbook ANOVA written with loops, and on planted units."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from static_dynamic.analysis.estimate.variance import COMPONENTS, components, estimate_variance, table_sums
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError

ORDERS = ("forward", "shuffled")


def oracle(y):
    """Random-effects ANOVA of one unit, y (K, S, O): means, residuals, mean squares, solved one by one."""
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
    ms = {name: ss[name] / df[name] for name in ss}
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
    views = views.assign(cluster=views["clip"])
    manifest = {"identity": {}, "stages": {"stage1": {"units": C, "stream": "rgb"}}, "skipped_views": []}
    store = Store.create_or_resume(path, manifest, views, pd.DataFrame({"factor": [], "a": [], "b": []}))
    store.write(np.arange(len(views)), {"stage1": y.reshape(-1, C).astype(np.float32)})
    store.commit()
    return path


@pytest.mark.parametrize("shape", [(2, 2, 2), (5, 3, 2), (7, 4, 2)])
def test_components_equal_the_textbook(shape):
    y = np.random.default_rng(0).standard_normal((*shape, 3)) + 10
    ours = components(table_sums(y).sum(0), *shape[1:])
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
    units = estimate_variance(write_run(tmp_path / "run", planted(1000, 1)), n_boot=100).units
    share = units.pivot(index="unit", columns="component", values="share")[list(COMPONENTS)].to_numpy()
    pure = np.zeros((5, 7))
    pure[[0, 1, 2, 4], [0, 1, 2, 6]] = 1
    pure[3, [0, 3]] = 0.25, 0.75
    np.testing.assert_allclose(share, pure, atol=0.05)


def test_the_components_are_unbiased():
    found = np.mean(
        [components(table_sums(planted(8, s, styles=3)).sum(0), 3, 2)[:, 3] for s in range(600)], axis=0
    )
    np.testing.assert_allclose(found[[0, 3]], [1, 3], atol=0.15)
    np.testing.assert_allclose(found[[1, 2, 4, 5, 6]], 0, atol=0.05)


def test_intervals_hold_the_video_component(tmp_path):
    hits = 0
    for seed in range(60):
        table = estimate_variance(
            write_run(tmp_path / str(seed), planted(40, seed)[..., 3:4]), n_boot=200
        ).units
        row = table[table["component"] == "video"].iloc[0]
        hits += row["variance_low"] <= 1 <= row["variance_high"]
    assert hits >= 52


def test_layers_are_sums_over_units(tmp_path):
    r = estimate_variance(write_run(tmp_path / "run", planted(50, 2)), n_boot=50)
    sums = r.units.groupby("component")["variance"].sum()
    layer = r.layers.set_index("component")
    np.testing.assert_allclose(layer["variance"], sums[list(layer.index)])
    np.testing.assert_allclose(layer["share"].sum(), 1)
    assert (layer["share_low"] <= layer["share_high"]).all()


def test_constant_units_have_no_share(tmp_path):
    y = planted(10, 3)
    y[..., 0] = 0.1
    units = estimate_variance(write_run(tmp_path / "run", y), n_boot=20).units
    assert (
        units[units["unit"] == 0]["share"].isna().all() and (units[units["unit"] == 0]["variance"] == 0).all()
    )


def test_a_run_that_is_not_factorial_is_refused(tmp_path):
    with pytest.raises(UserError, match="every style in both frame orders"):
        estimate_variance(write_run(tmp_path / "run", planted(5, 0)[:, :, :1]))
    with pytest.raises(UserError, match="need two clips that have all views"):
        estimate_variance(write_run(tmp_path / "one", planted(1, 0)))
