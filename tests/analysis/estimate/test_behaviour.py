"""Changes of the prediction against loops over views, hard inputs, and the coverage of the intervals."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.stats import t as student

from static_dynamic.analysis.estimate import behaviour
from static_dynamic.analysis.estimate.behaviour import contrast, estimate_behaviour, share_and_bounds
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import Clip, make_views
from static_dynamic.datasets.orders import ALTERED_ORDERS
from static_dynamic.errors import UserError
from tests.analysis.manifests import forget_checks, small_manifest

ORDERS = ("forward", *ALTERED_ORDERS)


def run_with_scores(path, draw, *, clips=12, clips_a_video=2, styles=(1, 2, 3), labelled=True, **options):
    """Write a finished run with the class scores draw(views), (views, classes), and return its store."""
    listed = [Clip(f"c{k}", f"c{k}", 0, 16, k % 3, f"v{k // clips_a_video}") for k in range(clips)]
    views, pairs = make_views(listed, styles, {"rgb": 4}, n_sample_frames=16, **{"orders": ORDERS} | options)
    scores = np.asarray(draw(views), np.float32)
    stages = {"stage1": {"units": 1, "stream": "rgb"}}
    entry = {"classes": scores.shape[1], "labelled": labelled}
    manifest = small_manifest(stages, views, {"pairs": "factorial"}, class_scores=entry)
    store = Store.create_or_resume(path, manifest, views, pairs)
    rows = np.arange(len(views))
    store.write(rows, {"stage1": np.zeros((len(rows), 1), np.float32), "logits": scores})
    store.commit()
    return store


def random_scores(classes=5, size=1.0, seed=0):
    """Scores with effects of clip, style and order, so that some predictions stay and others change."""

    def draw(views):
        rng = np.random.default_rng(seed)
        scores = 0.5 * rng.standard_normal((len(views), classes))
        for columns, spread in ((["clip"], 1.0), (["clip", "style"], 0.5), (["clip", "order"], 0.7)):
            group = views.groupby(columns).ngroup().to_numpy()
            scores += spread * rng.standard_normal((group.max() + 1, classes))[group]
        return size * scores

    return draw


def softmax(scores):
    top = max(scores)
    weights = [float(x == top) if np.isinf(top) else float(np.exp(x - top)) for x in scores]
    return [w / sum(weights) for w in weights]


def entropy(p):
    return -sum(x * np.log2(x) for x in p if x > 0)


def divergence(one, other):
    p, q = (softmax(np.asarray(scores, float)) for scores in (one, other))
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return entropy(middle) - (entropy(p) + entropy(q)) / 2


def summary(by_clip):
    """Mean over clips, standard error, degrees of freedom, and number of videos; {(video, clip): values}."""
    means = {key: float(np.mean(values)) for key, values in by_clip.items()}
    videos = sorted({video for video, _ in means})
    k, whole = len(videos), float(np.mean(list(means.values())))
    if k < 2:
        return whole, None, None, k
    pseudo = [
        k * whole - (k - 1) * np.mean([m for (video, _), m in means.items() if video != left_out])
        for left_out in videos
    ]
    deviations = [(p - np.mean(pseudo)) / np.sqrt(k * (k - 1)) for p in pseudo]
    variance = sum(d**2 for d in deviations)
    df = (
        min(max(3 * variance**2 / sum(d**4 for d in deviations) - 1, 1), k - 1) if variance > 1e-24 else k - 1
    )
    return whole, np.sqrt(variance), df, k


def interval_of_mean(by_clip):
    mean, error, df, _ = summary(by_clip)
    if error is None:
        return [mean, np.nan, np.nan]
    half = student.ppf(0.975, df) * error
    return [mean, max(0, mean - half), min(1, mean + half)]


def interval_of_share(by_clip):
    """All shares x with (s - x)^2 <= t^2 x (1 - x) / n; the ends are found by root finding."""
    share, error, df, videos = summary(by_clip)
    if error is None:
        return [share, np.nan, np.nan]
    n = min(sum(map(len, by_clip.values())), share * (1 - share) / error**2) if error > 1e-12 else videos
    t = student.ppf(0.975, df)

    def outside(x):
        return (share - x) ** 2 - t**2 * x * (1 - x) / n

    inside = (share + t**2 / (2 * n)) / (1 + t**2 / n)
    low = brentq(outside, 0, inside, xtol=1e-14) if outside(0) > 0 else 0.0
    high = brentq(outside, inside, 1, xtol=1e-14) if outside(1) > 0 else 1.0
    return [share, low, high]


def oracle(store):
    """All numbers of behaviour.csv by loops over clips and styles; {(change, measure): value and bounds}."""
    scores = {}
    for row, view in store.views.iterrows():
        own = store.activations("logits")[row]
        if store.status[row] == 1 and not any(np.isnan(own)) and any(own > -np.inf):
            scores[view["cluster"], view["clip"], view["style"], view["order"]] = own
    labels = dict(zip(store.views["clip"], store.views["label"], strict=True))
    styles = sorted({style for _, _, style, _ in scores})
    found, same, bits, right = {}, {}, {}, {}
    for video, clip in sorted({key[:2] for key in scores}):
        compared = [("new style", (s, "forward"), (t, "forward")) for s, t in combinations(styles, 2)]
        compared += [(order, (s, "forward"), (s, order)) for s in styles for order in ALTERED_ORDERS]
        for change, one, other in compared:
            a, b = (scores.get((video, clip, *view)) for view in (one, other))
            if a is not None and b is not None:
                stays = float(list(a).index(max(a)) == list(b).index(max(b)))
                same.setdefault(change, {}).setdefault((video, clip), []).append(stays)
                bits.setdefault(change, {}).setdefault((video, clip), []).append(divergence(a, b))
        for style in styles:
            moving, frozen = (
                scores.get((video, clip, style, o)) for o in ("new_background", "frozen_foreground")
            )
            if moving is not None and frozen is not None and labels[clip] >= 0:
                hits = [list(own).index(max(own)) == labels[clip] for own in (moving, frozen)]
                right.setdefault("contrasted", {}).setdefault((video, clip), []).append(
                    float(hits[0] and not hits[1])
                )
            for order in ORDERS:
                own = scores.get((video, clip, style, order))
                if own is not None and labels[clip] >= 0:
                    change = "none" if order == "forward" else order
                    hit = float(list(own).index(max(own)) == labels[clip])
                    right.setdefault(change, {}).setdefault((video, clip), []).append(hit)
    found |= {(change, "top1_kept"): interval_of_share(by_clip) for change, by_clip in same.items()}
    found |= {(change, "js_bits"): interval_of_mean(by_clip) for change, by_clip in bits.items()}
    found |= {(change, "accuracy"): interval_of_share(by_clip) for change, by_clip in right.items()}
    return found


def assert_equals_oracle(store, table):
    expected = oracle(store)
    by_change = table.set_index("change")
    for change, row in by_change.iterrows():
        for measure in ("top1_kept", "js_bits", "accuracy"):
            got = [row[f"{measure}{end}"] for end in ("", "_low", "_high")]
            wanted = expected.pop((change, measure), [np.nan] * 3)
            np.testing.assert_allclose(got, wanted, atol=1e-9, err_msg=f"{change} {measure}")
    assert not expected


@pytest.mark.parametrize("pairs", ["factorial", "both", "paper"])
@pytest.mark.parametrize("clips_a_video", [1, 3])
def test_it_equals_the_slow_oracle(tmp_path, monkeypatch, pairs, clips_a_video):
    orders = {} if pairs != "paper" else {"orders": ("forward", "shuffled")}
    monkeypatch.setattr(behaviour, "NUMBERS", 37)  # several blocks
    store = run_with_scores(tmp_path, random_scores(), clips_a_video=clips_a_video, pairs=pairs, **orders)
    table = estimate_behaviour(tmp_path)
    assert_equals_oracle(store, table)
    changes = ["none", "new style", *(ALTERED_ORDERS if pairs != "paper" else ("shuffled",))]
    changes += ["contrasted"] if pairs != "paper" else []
    assert table["change"].tolist() == changes
    assert 0 < table.loc[1, "top1_kept"] < 1 and table.loc[1, "js_bits"] > 0.01
    if pairs == "factorial":
        assert (table["clips"] == 12).all() and (table["videos"] == 12 // clips_a_video).all()


def test_views_that_were_skipped_or_have_no_scores_are_left_out(tmp_path):
    store = run_with_scores(tmp_path, random_scores(), clips=10)
    store.skip(np.array([0, 7, 16, 17, 18]), "several", "broken")
    forget_checks(tmp_path)
    store.activations("logits")[[0, 7, 16, 17, 18]] = 1e30
    store.activations("logits")[40, 2] = np.nan
    store.activations("logits")[41] = -np.inf
    assert_equals_oracle(store, estimate_behaviour(tmp_path))
    store.activations("logits")[[0, 7, 16, 17, 18]] = np.nan
    assert_equals_oracle(store, estimate_behaviour(tmp_path))


@pytest.mark.parametrize("size", [1e-3, 1e30])
def test_small_and_huge_scores(tmp_path, size):
    store = run_with_scores(tmp_path, random_scores(classes=2, size=size))
    table = estimate_behaviour(tmp_path)
    assert_equals_oracle(store, table)
    changes = table.iloc[1:-1]  # without the rows of accuracies alone
    assert np.isfinite(changes["js_bits"]).all()
    if size > 1:  # probabilities are 0 or 1: a bit wherever the top-1 class changes
        np.testing.assert_allclose(changes["js_bits"], 1 - changes["top1_kept"])


def test_infinite_scores_share_all_probability(tmp_path):
    def draw(views):
        scores = np.zeros((len(views), 3))
        scores[:, 0] = -np.inf
        scores[views["order"] == "shuffled", 1:] = np.inf  # half a probability each, as without them
        scores[views["order"] == "frozen", 2] = np.inf
        return scores

    store = run_with_scores(tmp_path, draw)
    table = estimate_behaviour(tmp_path).set_index("change")
    assert table.loc["shuffled", "js_bits"] == 0 and table.loc["shuffled", "top1_kept"] == 1
    assert table.loc["frozen", "top1_kept"] == 0
    assert_equals_oracle(store, table.reset_index())


def test_equal_scores_change_nothing(tmp_path):
    run_with_scores(tmp_path, lambda views: np.full((len(views), 4), 7.0))
    table = estimate_behaviour(tmp_path).iloc[1:-1]
    assert (table["top1_kept"] == 1).all() and not table[["js_bits", "js_bits_low", "js_bits_high"]].any(
        axis=None
    )
    low = table["top1_kept_low"]
    assert ((low > 0.4) & (low < 0.6)).all() and (table["top1_kept_high"] == 1).all()  # six videos


@pytest.mark.parametrize("clips", [1, 4])
def test_one_video_has_no_intervals(tmp_path, clips):
    store = run_with_scores(tmp_path, random_scores(), clips=clips, clips_a_video=4)
    table = estimate_behaviour(tmp_path)
    assert_equals_oracle(store, table)
    assert table.filter(regex="_(low|high)$").isna().all(axis=None) and (table["videos"] == 1).all()


def test_accuracy_needs_labels_that_are_the_networks(tmp_path):
    def scores_of_labels(views):
        # Right in the order forward, and otherwise class 0, which is the label of every third clip.
        return np.eye(3)[np.where(views["order"] == "forward", views["label"], 0)]

    run_with_scores(tmp_path / "known", scores_of_labels)
    table = estimate_behaviour(tmp_path / "known").set_index("change")
    np.testing.assert_allclose(table.loc["none", "accuracy"], 1)
    np.testing.assert_allclose(table.loc["frozen", "accuracy"], 1 / 3)
    assert table["labelled_clips"].to_dict() == {c: 12 * (c != "new style") for c in table.index}
    # one frame of the foreground is as right as the moving foreground: no class needs the motion
    assert table.loc["contrasted", "accuracy"] == 0
    assert np.isnan(table.loc["new style", "accuracy"])
    run_with_scores(tmp_path / "unknown", scores_of_labels, labelled=False)
    table = estimate_behaviour(tmp_path / "unknown")
    assert "none" not in set(table["change"]) and table["accuracy"].isna().all()
    store = run_with_scores(tmp_path / "some", scores_of_labels)
    views = store.views.assign(label=store.views["label"].where(store.views["clip"] != "c1", -1))
    forget_checks(tmp_path / "some")
    views.to_parquet(tmp_path / "some" / "views.parquet")
    table = estimate_behaviour(tmp_path / "some").set_index("change")
    assert table.loc["none", "labelled_clips"] == 11 and table.loc["none", "accuracy"] == 1


def test_a_run_without_class_scores_is_refused(tmp_path):
    run_with_scores(tmp_path, random_scores())
    forget_checks(tmp_path)
    store = Store(tmp_path, "r+")
    for entry, reason in (
        ({"reason": "the network has no class scores"}, "the network has no class scores"),
        (None, "an earlier version of this program began the run"),
    ):
        store.update_manifest(class_scores=entry)
        if entry is None:
            del store.manifest["class_scores"]
            store.update_manifest()
        with pytest.raises(UserError, match=f"has no class scores .{reason}.: give another run"):
            estimate_behaviour(tmp_path)


@pytest.mark.parametrize("videos, share, spread", [(12, 0.8, 0.5), (24, 0.95, 0.1), (100, 0.99, 0.1)])
def test_intervals_of_shares_cover_the_truth(videos, share, spread):
    """Each video has a share of its own; Student's interval alone covers 87, 69 and 60 % here."""
    rng, runs, covered, plain = np.random.default_rng(3), 1000, 0, 0
    table = pd.DataFrame({"cluster": np.arange(videos), "clip": np.arange(videos)})
    for _ in range(runs):
        own = rng.beta(share / spread, (1 - share) / spread, videos)
        values = (rng.random(videos) < own).astype(float)
        _, low, high = share_and_bounds(table, values, 0.95)
        covered += low <= share <= high
        half = student.ppf(0.975, videos - 1) * values.std(ddof=1) / np.sqrt(videos)
        plain += abs(values.mean() - share) <= half
    assert 0.94 <= covered / runs <= 0.995
    assert plain / runs < 0.94


def test_contrasted_accuracy_counts_clips_that_need_the_motion_of_the_foreground():
    rows = [
        # clip, right with the moving foreground, right with one frame of it
        ("a", 1, 0),
        ("b", 1, 1),
        ("c", 0, 0),
        ("d", 0, 1),
        ("e", 1, 0),
    ]
    moving, frozen = (
        pd.DataFrame(
            [
                {"cluster": c, "clip": c, "style": s, "right": float(right[k])}
                for c, *right in rows
                for s in (1, 2)
            ]
        )
        for k in (0, 1)
    )
    found = contrast(moving, frozen)
    assert found.groupby("clip")["right"].mean().to_dict() == {"a": 1, "b": 0, "c": 0, "d": 0, "e": 1}
    frozen["right"] = np.nan
    assert contrast(moving.assign(right=np.nan), frozen)["right"].isna().all()
