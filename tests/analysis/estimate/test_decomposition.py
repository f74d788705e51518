"""Content, motion, appearance and residual: given cases, a slow oracle, and truths by construction."""

import json

import numpy as np
import pandas as pd
import pytest

from static_dynamic.analysis import estimate_run, import_activations
from static_dynamic.analysis.estimate.altered_orders import FURTHER_ORDERS
from static_dynamic.analysis.estimate.decomposition import PARTS, decompose
from static_dynamic.analysis.estimate.kinds import KINDS, count_kinds, kind_of
from static_dynamic.analysis.estimate.motion_test import draw_pair_signs
from static_dynamic.analysis.estimate.order_table import OrderTable
from tests.analysis.estimate.slow_decomposition import jackknife_parts, motion_statistics
from tests.analysis.simulated import effects, independent, write_run
from tests.paths import GOLDEN

CASES = sorted(path.stem for path in (GOLDEN / "decomposition").glob("*.npz"))


def read_case(name):
    """Return the activations, the table of views, and the expected numbers by altered order."""
    data = np.load(GOLDEN / "decomposition" / f"{name}.npz")
    views = pd.DataFrame({key: data[key] for key in ("video", "clip", "style", "order")})
    return data["rows"], views, json.loads((GOLDEN / "decomposition" / f"{name}.json").read_text())


def columns_of(table, names):
    return table[list(names)].to_numpy(float).T


@pytest.mark.parametrize("name", CASES)
def test_given_cases_agree_to_six_digits(tmp_path, name):
    rows, views, expected = read_case(name)
    flips = 1999
    result = estimate_run(
        import_activations(tmp_path / "run", {"s": rows}, views), n_boot=20, n_permutations=flips
    )
    layer, units = result.layers.iloc[0], result.units
    case = expected.pop("shuffled")
    for suffix in ("", "_low", "_high"):
        names = [part + suffix for part in PARTS]
        np.testing.assert_allclose(
            columns_of(units, names), np.array(case[f"units{suffix}"], float), atol=1e-6
        )
        np.testing.assert_allclose(layer[names].to_numpy(float), case[f"layer{suffix}"], atol=1e-6)
    assert layer["effective_units"] == pytest.approx(case["effective_units"], abs=1e-6)
    require_p_values(layer, units, case, "motion", flips)
    for order, case in expected.items():
        column, factor, _ = FURTHER_ORDERS[order]
        for suffix in ("", "_low", "_high"):
            own = factor * np.array(case[f"units{suffix}"], float)[1]
            np.testing.assert_allclose(units[column + suffix], own, atol=1e-6)
            assert layer[column + suffix] == pytest.approx(factor * case[f"layer{suffix}"][1], abs=1e-6)
        require_p_values(layer, units, case, column, flips)


def require_p_values(layer, units, case, column, flips):
    """P-values of other flips agree within 4.5 standard deviations of the difference."""
    found = np.array([layer[f"p_{column}"], *units[f"p_{column}"], *units[f"p_family_{column}"]])
    given = [case["p_layer_999_flips"], *case["p_units_999_flips"], *case["p_family_999_flips"]]
    p = np.clip(found, 0.005, 0.995)
    assert (np.abs(found - given) < 4.5 * np.sqrt(p * (1 - p) * (1 / flips + 1 / 999)) + 1e-3).all()


def hard_views(seed, clips=7, styles=3, missing=9, clips_per_video=2):
    """Views of a few clips with random gaps, in random order; two styles at least stay."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        [
            (f"v{k // clips_per_video}", f"c{k}", s, order)
            for k in range(clips)
            for s in range(styles)
            for order in ("forward", "shuffled")
        ],
        columns=["cluster", "clip", "style", "order"],
    ).sample(frac=1, random_state=seed)
    return table.drop(index=random.choice(table.index, missing, replace=False)).reset_index(drop=True)


def hard_units(views, seed, units=8):
    """Activations with offsets, ties, dead units, units with style effects only, and an order-blind unit."""
    renamed = views.rename(columns={"cluster": "video"})
    rows = effects(seed, units=units)(renamed)
    rows[:, 1] += 1e5  # float32 keeps two digits behind the point
    rows[:, 2] = np.maximum(rows[:, 2] - 1, 0)
    rows[:, 3] = 7.0  # dead
    rows[:, 4] = views["style"] * 3.3  # dead: the same for all clips
    rows[:, 5] = views.groupby(["clip", "style"]).ngroup()  # does not depend on the order
    rows[:, 6] = rows[:, 0] * 1e-8
    return rows.astype(np.float32)


def cells_of(rows, views):
    keys = list(zip(views["clip"], views["style"], (views["order"] != "forward").astype(int), strict=True))
    return [dict(zip(keys, column.astype(float), strict=True)) for column in rows.T]


LAYOUTS = {
    "gaps": {},
    "complete": {"missing": 0},
    "two styles": {"styles": 2, "missing": 3},
    "two videos": {"clips": 4, "missing": 1},
    "one clip per video": {"clips_per_video": 1, "missing": 6},
    "many gaps": {"clips": 9, "missing": 22},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_parts_and_test_are_those_of_loops(layout, seed, monkeypatch):
    from tests.analysis.estimate.slow_decomposition import kept_cells

    monkeypatch.setattr("static_dynamic.analysis.estimate.order_table.NUMBERS", 300)  # several blocks
    views = hard_views(seed, **LAYOUTS[layout])
    rows = hard_units(views, seed)
    table = OrderTable.of_views(views, np.ones(len(views), bool), "shuffled")
    assert table is not None
    signs = draw_pair_signs(table, 40, (seed,))
    found = decompose(rows, table, np.zeros((1, table.videos)), signs)
    cells = [kept_cells(unit) for unit in cells_of(rows, views)]
    video_of = dict(zip(views["clip"], views["cluster"], strict=True))
    (units, *unit_ends), (layer, *ends) = jackknife_parts(cells, video_of)
    np.testing.assert_allclose(found.units, units, atol=1e-8)
    np.testing.assert_allclose(found.unit_bounds(0.95), unit_ends, atol=1e-7)
    np.testing.assert_allclose(found.layer.estimate, layer, atol=1e-8)
    np.testing.assert_allclose(found.bounds(found.layer, 0.95), ends, atol=1e-7)
    np.testing.assert_allclose(found.layer.estimate.sum(), 1)
    np.testing.assert_allclose(found.units[1, 5], 0, atol=1e-12)

    videos = sorted({video_of[k] for k, _, _ in cells[0]})
    styles = sorted(set(views["style"]))
    drawn = np.random.default_rng([seed]).integers(0, 2, (len(videos), 40, len(styles)), dtype=np.int8)

    def signs_of(flip):
        return lambda video, style: 2 * drawn[videos.index(video), flip, styles.index(style)] - 1

    seen = motion_statistics(cells, video_of, lambda video, style: 1)
    flipped = [motion_statistics(cells, video_of, signs_of(flip)) for flip in range(40)]
    count = sum(statistic >= seen[1] - 1e-5 for _, statistic in flipped)
    alive = [0, 1, 2, 5, 6, 7]
    np.testing.assert_array_equal(found.p_units[alive], (1 + count[alive]) / 41)
    largest = np.array([max(statistic[alive]) for _, statistic in flipped])
    family = (largest[:, None] >= seen[1][alive] - 1e-5).sum(0)
    np.testing.assert_array_equal(found.p_family[alive], (1 + family) / 41)
    of_layer = sum(statistic >= seen[0] - 1e-9 for statistic, _ in flipped)
    assert found.p_layer == (1 + of_layer) / 41
    assert (found.p_units[3:6] == 1).all()


def test_shift_scale_and_style_effects_change_nothing(tmp_path):
    views = hard_views(3)
    table = OrderTable.of_views(views, np.ones(len(views), bool), "shuffled")
    assert table is not None
    rows = effects(3, units=6)(views.rename(columns={"cluster": "video"}))
    of_style = np.random.default_rng(1).standard_normal((3, 6))[views["style"]]
    arguments = table, np.zeros((1, table.videos)), draw_pair_signs(table, 30, (3,))
    one, other = (decompose(y, *arguments) for y in (rows, -250 * rows + 900 + 70 * of_style))
    np.testing.assert_allclose(other.units, one.units, atol=1e-10)
    np.testing.assert_allclose(other.layer, one.layer, atol=1e-10) if False else None
    np.testing.assert_allclose(other.layer.estimate, one.layer.estimate, atol=1e-10)
    np.testing.assert_array_equal(other.p_family, one.p_family)


def test_independent_activations_are_residual_and_planted_parts_come_back(tmp_path):
    run = write_run(tmp_path / "independent", independent(0, units=40), 60)
    layer = estimate_run(run, n_boot=20).layers.iloc[0]
    np.testing.assert_allclose(columns_of(layer.to_frame().T, PARTS)[:, 0], [0, 0, 0, 1], atol=0.02)
    run = write_run(tmp_path / "planted", effects(0, units=60, clip=0.8, style=0.5, order=0.3, noise=0.2), 60)
    layer = estimate_run(run, n_boot=20).layers.iloc[0]
    planted = np.array([0.64, 0.09, 0.25, 0.04])
    np.testing.assert_allclose(layer[list(PARTS)].to_numpy(float), planted / planted.sum(), atol=0.03)


def test_kinds_follow_their_rules():
    parts = np.array(
        [
            [0.6, 0.2, 0.1, 0.1],  # content
            [0.05, 0.06, 0.0, 0.89],  # motion is more than half of 0.11
            [0.03, 0.03, 0.03, 0.91],  # below a tenth
            [0.3, 0.3, 0.3, 0.1],  # no half
            [-0.5, 1.5, 0.0, 0.0],  # turns its sign with the order
            [0.1, 0.1, 0.2, 0.6],  # exactly half
            [np.nan] * 4,
        ]
    ).T
    kinds = [KINDS[k] for k in kind_of(parts)]
    assert kinds == ["content", "motion", "residual", "mixed", "motion", "appearance", "unknown"]
    assert count_kinds(kind_of(parts)).tolist() == [1, 2, 1, 1, 1]


def test_a_unit_of_one_video_is_unknown_and_leaves_the_layer_alone(tmp_path):
    def draw(views):
        rows = effects(0, units=3)(views)
        rows[views["clip"] != "c0001", 2] = 0
        return rows

    found = estimate_run(write_run(tmp_path / "run", draw, 6), n_boot=20, n_permutations=20)
    own = write_run(tmp_path / "alone", lambda views: effects(0, units=3)(views)[:, :2], 6)
    alone = estimate_run(own, n_boot=20)
    unit, layer = found.units.iloc[2], found.layers.iloc[0]
    assert unit["kind"] == "unknown" and np.isnan(unit[list(PARTS)].astype(float)).all()
    assert layer["kind_unknown"] == 1 and layer[[f"kind_{kind}" for kind in KINDS[:5]]].sum() == 2
    names = [f"{part}{suffix}" for part in PARTS for suffix in ("", "_low", "_high")]
    assert layer[names].tolist() == alone.layers.iloc[0][names].tolist()


def test_columns_are_empty_without_two_styles_in_both_orders(tmp_path, caplog):
    run = write_run(tmp_path / "run", effects(0), 24, "paper")
    found = estimate_run(run, n_boot=20, n_permutations=20)
    complete = estimate_run(write_run(tmp_path / "other", effects(0), 6), n_boot=20, n_permutations=20)
    assert "content, motion and appearance stay empty" in caplog.text
    for table, other in ((found.layers, complete.layers), (found.units, complete.units)):
        assert set(table.columns) == set(other.columns)
        names = [*PARTS, "content_low", "p_motion"]
        assert table[names].isna().all(axis=None) and not other[names].isna().any(axis=None)
    assert found.layers["effective_units"].notna().all()


def test_two_styles_per_clip_give_the_parts_too(tmp_path):
    run = write_run(tmp_path / "run", effects(0, units=60), 80, "both")
    layer = estimate_run(run, n_boot=20).layers.iloc[0]
    planted = np.array([0.49, 0.16, 0.36, 0.04])
    np.testing.assert_allclose(layer[list(PARTS)].to_numpy(float), planted / planted.sum(), atol=0.04)


def test_rounding_of_float32_is_no_motion():
    """A network that averages over frames sums them in another order: only the last digits change."""
    random = np.random.default_rng(0)
    views = hard_views(0, missing=0, clips=12, clips_per_video=1)
    frames = random.standard_normal((12, 3, 16, 50)).astype(np.float32) + 30  # clip, style, frame, unit
    rows = np.empty((len(views), 50), np.float32)
    for i, view in views.iterrows():
        own = frames[int(view["clip"][1:]), view["style"]]
        order = np.arange(16) if view["order"] == "forward" else random.permutation(16)
        rows[i] = np.cumsum(own[order], axis=0, dtype=np.float32)[-1] / 16
    table = OrderTable.of_views(views, np.ones(len(views), bool), "shuffled")
    assert table is not None
    found = decompose(rows, table, np.zeros((1, 12)), draw_pair_signs(table, 99, (0,)))
    assert 0 < np.abs(found.units[1]).max() < 1e-6
    assert found.p_layer == 1 and (found.p_units == 1).all() and (found.p_family == 1).all()
