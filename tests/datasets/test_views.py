from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import UserError
from datasets import Clip, make_views
from datasets.views import generator, subsample, window_frames

SHARED = Path(__file__).parents[3] / "shared" / "parity" / "data_checks.pt"
CLIPS = [Clip(id=f"c{i}", video=f"c{i}", first=0, length=20 + i, cluster=f"v{i // 2}") for i in range(9)]
STYLES = (1, 2, 3, 4)


def views_of(scheme, clips=CLIPS, seed=1, **options):
    return make_views(clips, STYLES, {"rgb": 8}, n_sample_frames=16, pairs=scheme, seed=seed, **options)


def test_factorial_has_every_pair_once():
    views, pairs = views_of("factorial")
    assert len(views) == 9 * 8 and len(pairs) == 9 * (6 + 4)
    a, b = views.iloc[pairs["a"]].reset_index(), views.iloc[pairs["b"]].reset_index()
    assert (a["clip"] == b["clip"]).all() and (a["clip"] == pairs["clip"]).all()
    dynamic = pairs["factor"] == 0
    assert (a["style"] != b["style"])[dynamic].all() and (a["order"] == b["order"])[dynamic].all()
    assert (a["style"] == b["style"])[~dynamic].all() and (a["order"] != b["order"])[~dynamic].all()
    assert not pairs.duplicated(["a", "b"]).any() and (pairs["a"] < pairs["b"]).all()


def test_both_and_paper():
    views, pairs = views_of("both")
    assert len(views) == 27 and list(pairs.groupby("clip")["factor"].sum()) == [1] * 9 and len(pairs) == 18
    views, pairs = views_of("paper")
    assert len(views) == 18 and len(pairs) == 9
    assert abs((pairs["factor"] == 0).sum() - 4.5) < 1  # balanced over the clips
    assert views.groupby("clip").size().eq(2).all()


@pytest.mark.parametrize("scheme", ["factorial", "both", "paper"])
def test_views_are_a_function_of_seed_and_clip(scheme):
    views, pairs = views_of(scheme)
    again, pairs_again = views_of(scheme)
    assert views.equals(again) or all(
        np.array_equal(np.stack(views[c]), np.stack(again[c])) for c in ["frames_rgb"]
    )
    assert pairs.equals(pairs_again)
    other, _ = views_of(scheme, seed=2)
    assert not np.array_equal(np.stack(views["frames_rgb"]), np.stack(other["frames_rgb"]))
    if scheme != "paper":  # there factors are balanced over the clips, so that these matter
        part, _ = views_of(scheme, clips=CLIPS[4:])
        mine = views[views["clip"].isin([c.id for c in CLIPS[4:]])]
        np.testing.assert_array_equal(np.stack(mine["frames_rgb"]), np.stack(part["frames_rgb"]))


def test_shuffled_views_see_the_same_frames_in_another_order_and_styles_share_it():
    views, _ = make_views(
        CLIPS, STYLES, {"slow": 4, "fast": 8}, n_sample_frames=16, pairs="factorial", seed=1
    )
    for _, clip in views.groupby("clip"):
        orders = {order: rows for order, rows in clip.groupby("order")}
        for pathway in ("frames_slow", "frames_fast"):
            forward, shuffled = (np.stack(orders[o][pathway]) for o in ("forward", "shuffled"))
            assert (forward == forward[0]).all() and (shuffled == shuffled[0]).all()
            assert sorted(forward[0]) == sorted(shuffled[0]) and list(forward[0]) != list(shuffled[0])
            assert list(forward[0]) == sorted(forward[0])


def test_a_shuffle_is_never_the_identity():
    short = [Clip(id=f"s{i}", video="s", first=0, length=2, cluster="s") for i in range(60)]
    views, _ = make_views(short, (1, 2), {"rgb": 2}, n_sample_frames=2, pairs="factorial")
    shuffled = np.stack(views[views["order"] == "shuffled"]["frames_rgb"])
    assert (shuffled == [1, 0]).all()


@pytest.mark.parametrize("length", [2, 3, 8, 15, 16, 17, 40])
def test_windows_equal_a_slow_oracle(length):
    for seed in range(20):
        clip = Clip(id="x", video="x", first=5, length=length)
        window = list(window_frames(clip, 16, generator(seed, "x", "window")))
        start = window[0] - 5
        assert 0 <= start <= max(0, length - 16)
        listed = list(range(5 + start, 5 + min(start + 16, length)))
        assert window == list(islice(cycle(listed), 16))


def test_windows_start_everywhere():
    clip = Clip(id="x", video="x", first=0, length=20)
    assert {int(window_frames(clip, 16, generator(s, "x", "window"))[0]) for s in range(200)} == set(range(5))


def test_subsampling_equals_torch_and_the_original():
    for n in range(2, 130):
        for count in (2, 4, 8, 13, 16, 32):
            exact = [i * (n - 1) // (count - 1) for i in range(count)]
            assert subsample(n, count).tolist() == exact, (n, count)
    if SHARED.exists():
        for key, expected in torch.load(SHARED, weights_only=True)["subsample"].items():
            assert subsample(*map(int, key.split("->"))).tolist() == list(expected)


def test_what_has_no_pairs_is_refused():
    with pytest.raises(UserError, match="two different styles"):
        make_views(CLIPS, (1,), {"rgb": 8}, n_sample_frames=16)
    with pytest.raises(UserError, match="no order"):
        make_views(CLIPS, STYLES, {"rgb": 1}, n_sample_frames=16)
    with pytest.raises(UserError, match="nearest known: factorial"):
        views_of("factorail")
