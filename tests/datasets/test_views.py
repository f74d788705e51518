import random
from itertools import cycle, islice

import numpy as np
import pytest
import torch

from static_dynamic.datasets import Clip, make_views
from static_dynamic.datasets.orders import window_frames
from static_dynamic.errors import UserError
from static_dynamic.rng import generator

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
    assert list(pairs.groupby("clip")["factor"].sum()) == [1] * 9 and len(pairs) == 18
    assert len(views) == 36 and (views.groupby("clip")["style"].nunique() == 2).all()
    assert (views.groupby(["clip", "style"])["order"].nunique() == 2).all()
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


def paper_window(length: int, n: int, whole: bool, draw) -> list[int]:
    """The paper's loaders, line by line: SSv2 and Diving48, or (whole) ActivityNet's segment."""
    if whole:
        start, end = 0, length
    else:
        start = draw(0, length - n) if length > n else draw(0, length - 8)
        end = min(start + n, length)
    return list(islice(cycle(range(start, end)), n))


@pytest.mark.parametrize("n", [16, 64])
def test_the_papers_windows_equal_a_slow_oracle(n):
    for length in [*range(8, 2 * n + 3), 500]:
        clip = Clip(id="x", video="x", first=0, length=length)
        ours = {tuple(window_frames(clip, n, generator(s, "x", "w"), "drawn_short")) for s in range(60)}
        possible = set()
        for start in range(length + 1):
            try:
                possible.add(tuple(paper_window(length, n, False, lambda a, b, s=start: range(a, b + 1)[s])))
            except IndexError:
                break
        assert ours <= possible and (len(possible) > 6 or ours == possible), length
        whole = window_frames(clip, n, generator(0, "x", "w"), "first")
        assert whole.tolist() == paper_window(length, n, True, random.randint)


def test_the_papers_views_see_what_load_then_subsample_gives():
    """Only the frames that are seen are listed: those of a window that is loaded whole, then subsampled."""
    for length in (8, 9, 40, 64, 65, 130):
        clip = Clip(id="c", video="c", first=3, length=length)
        pathways = {"slow": 4, "fast": 16}
        views, _ = make_views(
            [clip], (1, 2), pathways, n_sample_frames=64, pairs="paper", window="drawn_short"
        )
        (view, *_) = views[views["order"] == "forward"].itertuples()
        loaded = window_frames(clip, 64, generator(1, "c", "window"), "drawn_short")
        for name, count in pathways.items():
            picked = [loaded[int(i)] for i in torch.linspace(0, 63, count).long()]
            assert getattr(view, f"frames_{name}").tolist() == picked


@pytest.mark.parametrize(("fps", "wanted"), [(5, 30), (12, 30), (30, 12), (29.97, 30), (25, 25), (60, 8)])
@pytest.mark.parametrize("window", ["first", "drawn", "drawn_short"])
def test_resampled_windows_equal_a_slow_oracle(fps, wanted, window):
    for length in (8, 20, 61, 300):
        clip = Clip(id="x", video="x", first=7, length=length, fps=fps)
        got = window_frames(clip, 16, generator(0, "x", "w"), window, wanted)
        shown = []  # the clip as it would be at the wanted rate: the last frame at or before each moment
        while len(shown) < max(1, int(length * wanted / fps + 1e-9)):
            shown.append(7 + min(int(len(shown) * (fps / wanted)), length - 1))
        expected = window_frames(Clip("x", "x", 0, len(shown)), 16, generator(0, "x", "w"), window)
        assert got.tolist() == [shown[i] for i in expected]
    with pytest.raises(UserError, match="give dataset.fps"):
        window_frames(Clip("x", "x", 0, 20), 16, generator(0, "x", "w"), resample_fps=30)


LABELLED = [
    Clip(id=f"c{i}", video=f"c{i}", first=0, length=20, label=i % 3, cluster=f"v{i // 2}") for i in range(12)
]


def members(views, pairs, factor):
    chosen = pairs[pairs["factor"] == factor]
    a, b = (views.iloc[chosen[side]].reset_index(drop=True) for side in "ab")
    return chosen, a, b


@pytest.mark.parametrize("scheme", ["factorial", "both", "paper"])
def test_app_shuffle_false_pairs_two_classes_in_one_style(scheme):
    views, pairs = views_of(scheme, LABELLED, app_shuffle=False)
    assert (views["order"] == "forward").all() and not views.duplicated(["clip", "style"]).any()
    chosen, a, b = members(views, pairs, 1)
    assert len(chosen) and (a["style"] == b["style"]).all() and (a["label"] != b["label"]).all()
    assert (a["clip"] == chosen["clip"].to_numpy()).all()
    _, a, b = members(views, pairs, 0)
    assert (a["clip"] == b["clip"]).all() and (a["style"] != b["style"]).all()
    with pytest.raises(UserError, match="'c0' has no class"):
        views_of(scheme, CLIPS, app_shuffle=False)
    with pytest.raises(UserError, match="of one class"):
        views_of(scheme, LABELLED[::3], app_shuffle=False)


@pytest.mark.parametrize("scheme", ["factorial", "both", "paper"])
def test_m_same_false_pairs_two_videos_of_one_class(scheme):
    views, pairs = views_of(scheme, LABELLED, m_same=False)
    chosen, a, b = members(views, pairs, 0)
    assert len(chosen) and (a["style"] != b["style"]).all() and (a["label"] == b["label"]).all()
    assert (a["cluster"] != b["cluster"]).all() and (a["order"] == "forward").all()
    _, a, b = members(views, pairs, 1)
    assert (a["clip"] == b["clip"]).all() and (a["order"] != b["order"]).all()
    with pytest.raises(UserError, match="every class has only one video"):
        views_of(scheme, LABELLED[:3], m_same=False)


def test_a_clip_alone_in_its_class_has_no_dynamic_pair(caplog):
    alone = Clip(id="x", video="x", first=0, length=20, label=9, cluster="x")
    views, pairs = views_of("both", [*LABELLED[:6], alone], m_same=False)
    assert "1 clips are the only video of their class" in caplog.text
    assert set(pairs[pairs["clip"] == "x"]["factor"]) == {1}


@pytest.mark.parametrize(("scheme", "count"), [("factorial", 4 + 2), ("both", 4), ("paper", 2)])
def test_use_normal_app_shows_unstylized_videos_in_static_pairs(scheme, count):
    views, pairs = views_of(scheme, use_normal_app=True)
    assert len(views) == count * len(CLIPS)
    _, a, b = members(views, pairs, 1)
    assert (a["style"] == 0).all() and (b["style"] == 0).all() and (a["order"] != b["order"]).all()
    _, a, b = members(views, pairs, 0)
    assert (a["style"] > 0).all() and (b["style"] > 0).all()
    assert not pairs.duplicated(["a", "b"]).any()


def test_what_has_no_pairs_is_refused():
    with pytest.raises(UserError, match="two different styles"):
        make_views(CLIPS, (1,), {"rgb": 8}, n_sample_frames=16)
    with pytest.raises(UserError, match="no order"):
        make_views(CLIPS, STYLES, {"rgb": 1}, n_sample_frames=16)
    with pytest.raises(UserError, match="nearest known: factorial"):
        views_of("factorail")
