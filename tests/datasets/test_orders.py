"""Frame orders of views: reshuffled, reversed and frozen frames, and the flow of such videos."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from static_dynamic.analysis.run.setup import batch_size_of
from static_dynamic.datasets import flow_inputs, make_views
from static_dynamic.datasets.loader import ViewBatches
from static_dynamic.datasets.orders import shuffle
from static_dynamic.errors import UserError
from static_dynamic.rng import generator
from static_dynamic.stylize.flow import colour_flow
from tests.datasets.davis_trees import SIZE, write_davis
from tests.datasets.test_davis import SPEC, TWO, batches_of, listed
from tests.datasets.test_davis import views_of as flow_views
from tests.datasets.test_views import CLIPS, STYLES

ORDERS = ("forward", "shuffled", "reshuffled", "reversed", "frozen")
PATHWAYS = {"slow": 4, "fast": 16}


def views_of(clips=CLIPS, pairs="factorial", orders=ORDERS, pathways=PATHWAYS, **options):
    return make_views(clips, STYLES, pathways, n_sample_frames=16, pairs=pairs, orders=orders, **options)


def frames_by_order(views, clip, style, pathway):
    own = views[(views["clip"] == clip) & (views["style"] == style)].set_index("order")
    return {order: own.loc[order, f"frames_{pathway}"].tolist() for order in own.index}


def test_every_style_of_a_clip_is_shown_in_every_order():
    views, pairs = views_of()
    assert len(views) == len(CLIPS) * len(STYLES) * len(ORDERS)
    for clip in CLIPS:
        of_styles = [frames_by_order(views, clip.id, style, "fast") for style in STYLES]
        assert all(one == of_styles[0] for one in of_styles) and list(of_styles[0]) == list(ORDERS)
    # Pairs are those of a run without further orders, and contain none of the further views.
    plain_views, plain = views_of(orders=ORDERS[:2])
    key = ["clip", "style", "order"]
    for member in ("a", "b"):
        found, expected = views.loc[pairs[member], key], plain_views.loc[plain[member], key]
        assert found.to_numpy().tolist() == expected.to_numpy().tolist()
    merged = plain_views.merge(views, on=key)
    for pathway in PATHWAYS:
        same = zip(merged[f"frames_{pathway}_x"], merged[f"frames_{pathway}_y"], strict=True)
        assert all(np.array_equal(a, b) for a, b in same)


def test_orders_are_what_they_are_called():
    views, _ = views_of()
    distinct = 0
    for clip in CLIPS:
        slow, fast = (frames_by_order(views, clip.id, 1, pathway) for pathway in PATHWAYS)
        for frames in (slow, fast):
            assert frames["reversed"] == frames["forward"][::-1]
            for order in ("shuffled", "reshuffled"):
                assert sorted(frames[order]) == sorted(frames["forward"]) != frames[order]
            assert len(frames["frozen"]) == len(frames["forward"])
        distinct += fast["shuffled"] != fast["reshuffled"]
        assert set(slow["frozen"]) == set(fast["frozen"]) == {slow["forward"][2]}
    assert distinct == len(CLIPS)


@pytest.mark.parametrize("pairs", ["factorial", "both"])
def test_orders_do_not_depend_on_other_clips_or_orders(pairs):
    views, _ = views_of(pairs=pairs)
    part, _ = views_of(CLIPS[5:], pairs, orders=("forward", "shuffled", "frozen"))
    both = views.merge(part, on=["clip", "style", "order"])
    assert len(both) == len(part)
    for pathway in PATHWAYS:
        same = zip(both[f"frames_{pathway}_x"], both[f"frames_{pathway}_y"], strict=True)
        assert all(np.array_equal(a, b) for a, b in same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orders": ("forward", "shuffled", "revers")}, "unknown orders=revers; nearest known: reversed"),
        (
            {"orders": ("forward", "shuffled", "frozen_foreground")},
            "is compared with new_background: give both",
        ),
        ({"orders": ("forward", "reversed")}, "forward and shuffled are always needed"),
        ({"pairs": "paper"}, "two styles, which pairs=paper does not show"),
    ],
)
def test_unusable_orders_are_refused(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        views_of(**options)


def test_repeats_of_the_paper_have_orders_of_their_own():
    views, pairs = make_views(CLIPS, STYLES, {"rgb": 8}, n_sample_frames=16, pairs="paper", repeats=3)
    assert pairs.groupby("clip")["factor"].agg(["size", "nunique"]).isin([3, 2]).all(axis=None)
    shuffled = views[views["order"] == "shuffled"].groupby("clip")["frames_rgb"].agg(list)
    several = [orders for orders in shuffled if len(orders) > 1]
    assert several and all(not np.array_equal(one, other) for one, other, *_ in several)


@pytest.mark.parametrize("batch_size", [8, 12, "auto"])
@pytest.mark.parametrize("orders", [ORDERS, ("forward", "shuffled", "frozen"), ("forward", "shuffled")])
def test_one_decode_serves_all_orders(tmp_path, batch_size, orders):
    decoded: list[tuple[str, int, int]] = []

    def frames_of(video, style):
        def read(wanted, allocate):
            decoded.extend((video, style, frame) for frame in wanted)
            allocate((len(wanted), 2, 2, 3), np.uint8)

        return SimpleNamespace(read=read)

    cfg = OmegaConf.create({"batch_size": batch_size, "orders": orders, "device": "cpu"})
    views, _ = views_of(orders=orders)
    rows = np.arange(len(views))
    batches = ViewBatches(
        SimpleNamespace(frames_of=frames_of, masks=None, backgrounds=None),
        views,
        rows,
        batch_size_of(cfg, tmp_path),
    )
    shown = [one for i in range(len(batches)) for one in batches[i]]
    needed = {
        (view["video"], view["style"], frame)
        for _, view in views.iterrows()
        for pathway in PATHWAYS
        for frame in view[f"frames_{pathway}"]
    }
    assert sorted(decoded) == sorted(needed)  # the union of the frames of all orders, each frame once
    assert sum(len(one.rows) for one in shown) == len(views)
    assert len(shown) == len(CLIPS) * len(STYLES)


def test_random_streams_of_the_shuffled_orders():
    """Each pathway has a stream; the second order is drawn from a stream of its own."""
    views, _ = views_of(seed=5)
    for clip in CLIPS:
        for pathway in PATHWAYS:
            frames = frames_by_order(views, clip.id, 2, pathway)
            for order, purpose in (("shuffled", "order"), ("reshuffled", "second order")):
                rng = generator(5, clip.id, f"{purpose} {pathway}")
                assert frames[order] == shuffle(np.array(frames["forward"]), rng).tolist()


def test_flow_of_reversed_and_frozen_videos(tmp_path):
    davis = write_davis(tmp_path / "davis")
    plain, clips = listed(davis), listed(davis, reversed_flow=True)
    assert clips.flows == plain.flows == ("FlowImages_gap1",)
    first = [clip.id for clip in plain.clips if clip.first == 0]
    assert {clip.id for clip in plain.clips} - {clip.id for clip in clips.clips} == set(first)
    views, pairs = flow_views(clips, orders=ORDERS)
    assert list(dict.fromkeys(views["order"])) == ["forward", "reshuffled", "reversed", "frozen"]
    inputs = flow_inputs(batches_of(clips, views)[0], SPEC, torch.device("cpu"))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (SPEC.mean, SPEC.std))
    of_clip = views[(views["clip"] == clips.clips[0].id) & (views["style"] == 1)]
    rows = dict(zip(of_clip["order"] + of_clip["flow"].astype(str), of_clip.index, strict=True))
    assert list(rows) == ["forward0", "forward1", "reshuffled0", "reversed0", "frozen0"]
    assert all(torch.equal(inputs["Image"][k], inputs["Image"][rows["forward0"]]) for k in rows.values())
    flow = {name: inputs["Flow"][k] * std + mean for name, k in rows.items()}
    assert torch.allclose(flow["frozen0"], torch.ones_like(flow["frozen0"]), atol=1e-6)  # white
    file = clips.flow_file(clips.clips[0].video, "FlowImages_gap-1", clips.clips[0].first)
    with Image.open(file) as image:
        picture = image.resize(SIZE, Image.Resampling.BICUBIC) if image.size != SIZE else image.copy()
    expected = np.asarray(picture.resize((32, 20), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(flow["reversed0"].permute(1, 2, 0), expected, atol=1e-5)
    assert (flow["forward1"] - flow["reshuffled0"]).abs().mean() > 0.02  # two jitters


def test_all_styles_share_the_jitter_unless_pairs_are_the_papers(tmp_path):
    clips = listed(write_davis(tmp_path / "davis"), styles=(1, 2))
    for pairs, shared in (("factorial", True), ("both", True), ("paper", False)):
        views, _ = flow_views(clips, scheme=pairs)
        jittered = views[views["flow"] > 0]
        found = {clip: {tuple(j) for j in own["jitter"]} for clip, own in jittered.groupby("clip")}
        if shared:
            assert all(len(one) == 1 for one in found.values())
        assert len(set.union(*found.values())) == len(found)  # clips have jitters of their own
    styles = jittered.groupby("style")["jitter"].first()
    assert len(styles) == 2


def test_two_frames_and_both_flows_are_reversed_too(tmp_path):
    clips = listed(write_davis(tmp_path / "davis"), both_flows=True, frames_at_once=2, reversed_flow=True)
    views, _ = flow_views(clips, TWO, orders=("forward", "shuffled", "reversed"))
    inputs = flow_inputs(batches_of(clips, views)[0], SPEC, torch.device("cpu"))["Flow"]
    of_clip = views[(views["clip"] == clips.clips[0].id) & (views["style"] == 1) & (views["frame"] == 0)]
    forward, back = (
        int(of_clip.index[(of_clip["order"] == order) & (of_clip["flow"] == 0)][0]) // 2
        for order in ("forward", "reversed")
    )
    assert inputs.shape[1:3] == (2, 6)
    assert torch.equal(inputs[back][:, :3], inputs[forward][:, 3:])
    assert torch.equal(inputs[back][:, 3:], inputs[forward][:, :3])


def test_both_flows_of_a_frozen_video_are_white_as_flow_images_without_motion(tmp_path):
    clips = listed(write_davis(tmp_path / "davis"), both_flows=True)
    views, _ = flow_views(clips, orders=("forward", "shuffled", "frozen"))
    white = colour_flow(np.zeros((20, 32, 2), np.float32))
    for decoded in batches_of(clips, views)[0]:
        own = views.iloc[decoded.rows[0]]
        flows = decoded.frames[0, ..., 3:].numpy()
        assert (own["order"] == "frozen") == np.array_equal(flows, np.concatenate([white, white], axis=-1))
