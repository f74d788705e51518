"""task=saliency as a user types it: graphs, tubes, page; static and dynamic kernels beside a profile; the
original program's flags; bad input is one clear line and status 2."""

import json
import sqlite3
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

import main
from misc import class_feature_pyramids as original_flags
from static_dynamic.analysis import class_feature_pyramid
from static_dynamic.analysis.estimate.estimator import UNIT_CLASSES
from static_dynamic.analysis.estimate.kinds import KINDS
from static_dynamic.analysis.explain.class_names import class_names, find_label
from static_dynamic.analysis.explain.explained_files import clip_folders, replaced_folder, write_graphs
from static_dynamic.analysis.explain.feature_path import trace_path
from static_dynamic.analysis.explain.kernel_classes import (
    BY_CLASS,
    BY_KIND,
    KernelClasses,
    class_shares,
    count_kernels,
    stage_kernels,
)
from static_dynamic.analysis.explain.pyramid_page import write_page
from static_dynamic.analysis.explain.tubes import draw_tube, level_map, overlay, scaled, tube_map
from static_dynamic.analysis.run.setup import build_network
from static_dynamic.analysis.tasks import saliency
from static_dynamic.configs import CONFIG_DIR
from static_dynamic.configs.options import check
from static_dynamic.errors import UserError
from static_dynamic.files import write_text
from static_dynamic.models import build_model
from static_dynamic.models.stages import InputSpec, Stage, Tap, VideoNetwork
from tests.browser import Browser
from tests.conftest import moving_square, write_frames
from tests.golden_pyramids import golden_graph

NET = ["model=x3d_xs", "model.init=random", "model.input.size=40", "model.input.crop=32"]
NET += ["model.args.depths=[1,1,1,1]", "cfp.theta=0.93", "task.kernels=1"]
TOKENS = ["model=mvit", "model.init=random", "model.args.crop=32", "model.args.depth=15"]
TOKENS += ["model.args.width=8", "model.args.kv_stride=1"]


@pytest.fixture
def run(in_process):
    """Run main.py or the original's script: (status, stdout, stderr)."""
    return lambda *arguments, program=main: in_process(program, *arguments)


@cache
def composed():
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("config", ["task=saliency", *NET])


@cache
def network():
    return build_network(composed().copy())


@pytest.fixture
def explain(tmp_path, monkeypatch):
    """The task alone, without the command line that other tests go through: OPTION=VALUE, ... -> folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *options: saliency.run(OmegaConf.merge(composed(), OmegaConf.from_dotlist(list(options))))


@pytest.fixture
def video(tmp_path):
    """A folder of 12 frames that has an awkward name."""
    return write_frames(tmp_path / 'a<b>&"c"', moving_square(0))


def read(folder):
    """The graph that was written."""
    return json.loads((folder / "node_link.json").read_text())


# -- outputs


def test_one_clip_gives_graphs_tubes_and_page(run, explain, video, tmp_path):
    status, out, err = run("task=saliency", *NET, f"task.input={main_quoted(video)}", "task.label=7")
    assert status == 0, err
    (folder,) = (tmp_path / "dim_outputs/saliency/x3d_xs").iterdir()
    graph, nested = read(folder), json.loads((folder / "class_dependency_graph.json").read_text())
    kernels = pd.read_csv(folder / "kernels.csv")
    assert len(graph["nodes"]) == len(kernels) and set(kernels["level"]) == {0, 1, 2, 3}
    ids = {node["id"] for node in graph["nodes"]}
    assert {end for link in graph["links"] for end in (link["source"], link["target"])} == ids
    first = {link["target"] for link in graph["links"] if link["source"] == "0:7"}
    assert {f"1:{unit}" for unit in nested["7"]} == first
    unit, below = next(iter(nested["7"].items()))
    assert {f"2:{c}" for c in below} == {k["target"] for k in graph["links"] if k["source"] == f"1:{unit}"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["label"] == 7 and len(summary["frames"]) == 4
    assert "level" in out and "most important" in out and str(folder.name) in out
    assert "faithfulness: percentage of the probability that is left" in out and "of 9" in out
    faithful = pd.read_csv(folder / "faithfulness.csv")
    assert faithful["level"].tolist() == [1, 2, 3] and (faithful["blurred_better"] <= 9).all()

    for name in ("levels/level_1", "levels/level_3", f"kernels/level_1_kernel_{top(kernels, 1)}"):
        strip = Image.open(folder / f"{name}.png")
        assert strip.size == (4 * 128, 2 * 128)
        assert Image.open(folder / f"{name}_stack.png").size[0] > 500
        with av.open(str(folder / f"{name}.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 4
        assert np.load(folder / f"{name}.npy").ndim == 3
    assert len(list((folder / "kernels").glob("level_2_*.npy"))) == 1
    page = (folder / "pyramid.html").read_text()
    assert "a&lt;b&gt;&amp;&quot;c&quot;" in page and "<b>&" not in page
    left = [p.name for p in tmp_path.rglob(".*")]
    assert not left, "temporary files stay"

    # again, with other options: nothing of the first run stays
    explain(f"task.input={video}", "task.pictures=false", "cfp.depth=1")
    assert not (folder / "pyramid.html").exists() and {n["level"] for n in read(folder)["nodes"]} == {0, 1}


def top(kernels, level):
    own = kernels[kernels["level"] == level]
    return own.loc[own["importance"].idxmax(), "unit"]


def main_quoted(path):
    """A path in quotes that Hydra's grammar takes."""
    return "'" + str(path) + "'"


def test_frame_store_and_video_give_the_same_graph(explain, tmp_path):
    frames = moving_square(1)
    folder = write_frames(tmp_path / "clip", frames)
    store = tmp_path / "stores" / "clip"
    store.mkdir(parents=True)
    with sqlite3.connect(store / "frames.db") as connection:
        connection.execute("CREATE TABLE Images (ObjId TEXT PRIMARY KEY, frames BLOB)")
        rows = [
            (f"clip/frame_{i:05d}", cv2.imencode(".png", frame[..., ::-1])[1].tobytes())
            for i, frame in enumerate(frames, start=1)
        ]
        connection.executemany("INSERT INTO Images VALUES (?, ?)", rows)
    film = tmp_path / "films" / "clip.mkv"
    film.parent.mkdir()
    with av.open(str(film), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 48, "bgr0"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    graphs = []
    for k, source in enumerate((folder, store, film)):
        explain(f"task.input={source}", f"task.outdir=out{k}", "task.pictures=false")
        graphs.append(read(tmp_path / f"out{k}" / "clip"))
    assert graphs[0] == graphs[1] == graphs[2]


def test_written_graph_is_that_of_the_original(tmp_path):
    golden, net, inputs = golden_graph("i3d_112")
    depth, label = max(map(int, golden["graphs"])), golden["label"]
    pyramid = class_feature_pyramid(net, inputs, label, theta=golden["theta"], depth=depth, rules="original")
    write_graphs(tmp_path, pyramid)
    written = json.loads((tmp_path / "class_dependency_graph.json").read_text())
    assert written == golden["graphs"][str(depth)]
    assert pyramid.n_paths == sum(map(len, leaves(written)))


def leaves(branch):
    if isinstance(branch, list):
        yield branch
    else:
        for below in branch.values():
            yield from leaves(below)


def test_a_nested_form_without_end_is_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("static_dynamic.analysis.explain.explained_files.MOST_PATHS", 3)
    net = branches()
    write_graphs(tmp_path, class_feature_pyramid(net, clip_of(net), 1, theta=0, depth=3))
    assert not (tmp_path / "class_dependency_graph.json").exists() and (tmp_path / "node_link.json").exists()
    assert "in its nested form this pyramid has" in caplog.text


# -- what is drawn


def test_importance_is_the_sum_over_all_ways():
    net = branches()
    pyramid = class_feature_pyramid(net, clip_of(net), 1, theta=0.2, depth=3)
    links = {}
    for link in pyramid.links.itertuples():
        links.setdefault((link.level, link.parent), []).append((link.child, link.strength))
    sums = {}

    def walk(level, unit, product):
        if level:
            sums[level, unit] = sums.get((level, unit), 0) + product
        for child, strength in links.get((level, unit), ()):
            walk(level + 1, child, product * strength)

    walk(0, 1, 1.0)
    for row in pyramid.nodes.query("level > 0").itertuples():
        most = max(value for (level, _), value in sums.items() if level == row.level)
        np.testing.assert_allclose(row.importance, sums[row.level, row.unit] / most, rtol=1e-5)


def test_what_a_blank_clip_shows_is_not_drawn():
    rng = np.random.default_rng(0)
    blank = rng.random((2, 7, 7)).astype(np.float32)
    blank[-1, :2, -2:] = 3000
    action = np.zeros_like(blank)
    action[:, 3, 2] = 5
    shown = scaled(blank + action, blank)
    assert np.unravel_index(shown[-1].argmax(), (7, 7)) == (3, 2)
    assert shown[-1, :2, -2:].max() == 0 and shown.max() == 1
    for nothing in (blank, np.full_like(blank, np.nan)):
        assert not scaled(nothing, blank).any()
    frames = rng.integers(0, 255, (2, 7, 7, 3)).astype(np.uint8)
    assert np.array_equal(overlay(frames, np.zeros((2, 7, 7))), frames)


@pytest.mark.parametrize("video", ["gif", "mp4", "none"])
def test_films_have_every_frame(tmp_path, video):
    frames = moving_square(0, n=5, side=33)  # an odd side
    maps = np.random.default_rng(0).random((2, 2, 5, 5)).astype(np.float32)
    draw_tube(tmp_path / "tube", *maps, frames, r"a $\frac$ _with_ signs", video)
    np.testing.assert_array_equal(np.load(tmp_path / "tube.npy"), maps[0])
    if video == "gif":
        assert Image.open(tmp_path / "tube.gif").n_frames == 5
    elif video == "mp4":
        with av.open(str(tmp_path / "tube.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 5
    expected = {"tube.npy", "tube.png", "tube_stack.png"} | ({f"tube.{video}"} - {"tube.none"})
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_maps_of_levels_and_kernels():
    net = branches()
    pyramid = class_feature_pyramid(net, clip_of(net), 1, theta=0.3, depth=3)
    np.testing.assert_allclose(level_map(pyramid, 1), pyramid.saliency_tube(0, 1), rtol=1e-5)
    parents = np.unique(pyramid.steps[2][0])
    expected = sum(pyramid.saliency_tube(2, int(unit)) for unit in parents)
    np.testing.assert_allclose(level_map(pyramid, 3), expected, rtol=1e-4)
    last = int(pyramid.steps[2][1][0])
    np.testing.assert_array_equal(tube_map(pyramid, 3, last), pyramid.feature_map(3, last))


def test_zeros_around_a_map_are_no_part_of_it():
    net = branches(padded=True)
    pyramid = class_feature_pyramid(net, clip_of(net), 1, theta=0.0, depth=3)
    for level, unit in pyramid.nodes.query("level < 3")[["level", "unit"]].to_numpy():
        assert pyramid.saliency_tube(int(level), int(unit)).shape == (4, 10, 10)


# -- the bridge to static and dynamic


class Joined(nn.Module):
    def __init__(self, padded):
        super().__init__()
        pad = 0 if padded else 1
        self.short = nn.Conv3d(6, 5, 1)
        self.first = nn.Conv3d(6, 4, 1)
        self.second = nn.Conv3d(4, 3, 3, padding=pad)
        self.pad = nn.ConstantPad3d(1, 0.0) if padded else nn.Identity()

    def forward(self, x):
        return torch.cat([self.short(x), self.second(self.pad(self.first(x)))], dim=1).relu()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv3d(8, 7, 1)
        self.b = nn.Conv3d(7, 8, 1)

    def forward(self, x):
        return (x + self.b(self.a(x).relu())).relu()


class Branches(VideoNetwork):
    """Concatenated branches, then a block with a shortcut; its stages are these, and one of tokens."""

    def __init__(self, padded):
        super().__init__()
        self.stem = nn.Conv3d(3, 6, 3, padding=1)
        self.joined, self.residual = Joined(padded), Residual()
        self.mixed = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)
        self.input_spec = InputSpec(4, 1, 10, 10, (0.5,) * 3, (0.5,) * 3)
        self.stages = {
            "stage1": Stage(8, (Tap("joined"),)),
            "stage2": Stage(8, (Tap("residual"),)),
            "stage3": Stage(8, (Tap("mixed", layout="channels_last"),)),
        }

    def forward(self, x):
        x = self.residual(self.joined(self.stem(x).relu()))
        self.mixed(x.movedim(1, -1))
        return self.head(x.mean(dim=(2, 3, 4)))


def branches(padded=False):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Branches(padded).eval().requires_grad_(False)


def clip_of(net, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return net.example_input(lambda shape: torch.randn(shape, generator=rng))


def test_a_kernel_is_a_unit_where_it_is_a_channel_of_a_stage():
    net = branches()
    table = stage_kernels(net, trace_path(net, clip_of(net)))
    found = {(r.layer, r.channel): (r.stage, r.unit) for r in table.itertuples()}
    expected = {("joined.short", c): ("stage1", c) for c in range(5)}
    expected |= {("joined.second", c): ("stage1", 5 + c) for c in range(3)}
    expected |= {("residual.b", c): ("stage2", c) for c in range(8)}
    assert found == expected  # none within a block, none of tokens


@pytest.mark.parametrize(
    ("name", "side", "depth"),
    [("x3d_xs", 32, 3), ("cfp_i3d", 112, 2), ("slowfast_r50_8x8", 32, 3)],
)
def test_units_of_stages_have_the_activations_of_their_kernels(name, side, depth):
    net = build_model(name, num_classes=12)
    rng = torch.Generator().manual_seed(1)
    video = torch.randn(1, 3, net.input_spec.frames, side, side, generator=rng)
    inputs = net.prepare(video)
    pyramid = class_feature_pyramid(net, inputs, 3, theta=0.9, depth=depth)
    kernels = stage_kernels(net, pyramid.clip.path).rename(columns={"unit": "column"})
    nodes = pyramid.nodes.query("level > 0").merge(kernels, on=["layer", "channel"])
    rows = net.read(inputs)
    assert len(nodes) > 5
    for row in nodes.itertuples():
        mean = pyramid.feature_map(row.level, row.unit).mean()
        np.testing.assert_allclose(rows[row.stage][0, row.column], mean, rtol=1e-3, atol=1e-5)


def planted(net):
    """Every second kernel dynamic, the others static."""
    units = stage_kernels(net, trace_path(net, clip_of(net)))
    units["class"] = np.where(units["unit"] % 2, "static", "dynamic")
    units["kind"] = np.where(units["unit"] % 3, "content", "motion")
    return KernelClasses(units, "planted")


def test_kernels_are_counted_by_their_class():
    net, classes = branches(), planted(branches())
    pyramid = class_feature_pyramid(net, clip_of(net), 1, theta=0.4, depth=3)
    expected = {}
    for row in pyramid.nodes.query("level > 0").itertuples():
        stage = {"joined.short": "stage1", "joined.second": "stage1", "residual.b": "stage2"}.get(
            row.layer, ""
        )
        unit = row.channel + 5 * (row.layer == "joined.second")
        kind = ("static" if unit % 2 else "dynamic") if stage else "unknown"
        expected[row.level, stage, kind] = expected.get((row.level, stage, kind), 0) + 1
    found = counts_of(count_kernels(pyramid, classes), (*UNIT_CLASSES, "unknown"))
    assert found == expected and {"", "stage1", "stage2"} <= {stage for _, stage, _ in found}


def counts_of(table, names):
    return {
        (row.level, row.stage, name): row[name] for _, row in table.iterrows() for name in names if row[name]
    }


def test_kernels_are_counted_by_their_kind():
    net, classes = branches(), planted(branches())
    pyramid = class_feature_pyramid(net, clip_of(net), 1, theta=0.4, depth=3)
    assert classes.labels == [BY_KIND, BY_CLASS]
    assert KernelClasses(classes.units.drop(columns="kind"), "old").labels == [BY_CLASS]
    of_unit = classes.units.set_index(["layer", "channel"])
    expected = {}
    for row in pyramid.nodes.query("level > 0").itertuples():
        profiled = (row.layer, row.channel) in of_unit.index
        stage, kind = (
            of_unit.loc[(row.layer, row.channel), ["stage", "kind"]] if profiled else ("", "not profiled")
        )
        expected[row.level, stage, kind] = expected.get((row.level, stage, kind), 0) + 1
    counts = count_kernels(pyramid, classes, BY_KIND)
    assert counts_of(counts, (*KINDS, "not profiled")) == expected
    counts = counts.assign(clip="c", cluster="v", label="a")
    table = class_shares(counts, classes, n_boot=10, seed=1, labels=BY_KIND)
    of_all = table[table["label"] == "all"].iloc[0]
    assert np.isclose(of_all[[f"share_{kind}" for kind in KINDS]].sum(), 1)
    own = of_unit[of_unit["stage"] == of_all["stage"]]
    assert of_all["stage_share_motion"] == (own["kind"] == "motion").mean()


def test_shares_over_clips_with_intervals_over_videos():
    rng = np.random.default_rng(0)
    rows = []
    for clip in range(40):  # two clips a video, a third of whose kernels is dynamic
        dynamic = rng.binomial(30, 1 / 3)
        about = {"clip": f"c{clip}", "cluster": f"v{clip // 2}", "label": "ab"[clip % 2]}
        zeros = dict.fromkeys(UNIT_CLASSES, 0)
        rows.append(
            about | {"level": 1, "stage": "stage1"} | zeros | {"dynamic": dynamic, "static": 30 - dynamic}
        )
        rows.append(about | {"level": 2, "stage": ""} | zeros | {"unknown": 9})
    counts = pd.DataFrame(rows)
    table = class_shares(counts, planted(branches()), n_boot=400, seed=1)
    assert table["label"].tolist() == ["all", "a", "b"] and set(table["level"]) == {1}
    whole = table.iloc[0]
    known = counts[counts["stage"] != ""]
    share = known["dynamic"].sum() / (30 * 40)
    assert np.isclose(whole["share_dynamic"], share) and whole["clips"] == 40 and whole["clusters"] == 20
    assert np.isclose(whole["share_static"], 1 - share) and whole["kernels"] == 1200
    assert whole["stage_share_dynamic"] == 0.5
    by_video = known.groupby("cluster")["dynamic"].sum() / 60
    error = by_video.std() / np.sqrt(20)
    half = (whole["share_dynamic_high"] - whole["share_dynamic_low"]) / 2
    assert 0.8 * 2.09 * error < half < 1.25 * 2.09 * error
    alone = class_shares(counts[counts["cluster"] == "v0"], planted(branches()), n_boot=50, seed=1)
    assert alone["share_dynamic_low"].isna().all()


def test_profile_colours_kernels_and_a_folder_gives_a_table(
    run, explain, monkeypatch, capsys, stylized, tmp_path
):
    data = ["dataset=folder", f"stylized_data_dir={stylized}", "styles='1,2'", "n_boot=20", "num_workers=0"]
    assert run("task=profile", *NET[:5], *data)[0] == 0
    profile = next(tmp_path.rglob("units.parquet")).parent
    clips = stylized / "style_1"
    common = [f"task.profile={profile}", "cfp.depth=3"]
    explain(*common, f"task.input={clips}", "task.outdir=many", "task.masks=2")
    out = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "many/kernel_classes.csv")
    counts = pd.read_csv(tmp_path / "many/kernel_counts.csv")
    assert counts["clip"].nunique() == 4 and "selected kernels by unit class of the paper" in out
    kinds = pd.read_csv(tmp_path / "many/kernel_kinds.csv")
    assert "selected kernels by kind" in out and (kinds["kernels"] == table["kernels"]).all()
    np.testing.assert_allclose(kinds[[f"share_{kind}" for kind in KINDS]].sum(axis=1), 1)
    shares = table[[f"share_{name}" for name in UNIT_CLASSES]].sum(axis=1)
    np.testing.assert_allclose(shares, 1)
    assert not list((tmp_path / "many").rglob("*.html"))
    assert "number of clips whose map does better than the mean of random masks" in out
    faithful = pd.read_csv(tmp_path / "many/faithfulness.csv")
    assert len(faithful) == 4 * 3 and faithful["clip"].nunique() == 4 and (faithful["masks"] == 2).all()

    status, _, err = run("task=saliency", *NET, *common, *data, "task.style=1", "task.outdir=same")
    assert status == 0, err
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "same/kernel_counts.csv"), counts)

    drawn = []  # tubes are drawn in other tests
    monkeypatch.setattr(
        "static_dynamic.analysis.explain.explained_files.draw_tube",
        lambda path, *rest: drawn.append(path.name),
    )
    explain(*common, f"task.input={clips / 'clip0'}", "task.outdir=one")
    assert sum(name.startswith("level_3") for name in drawn) == 2  # all of it, and one kernel
    assert "; the paper's class: " in (tmp_path / "one/clip0/pyramid.html").read_text()
    nodes = pd.DataFrame(read(tmp_path / "one/clip0")["nodes"])
    units = pd.read_parquet(profile / "units.parquet").set_index(["stage", "unit"])
    known = nodes.dropna(subset="stage")
    assert len(known) and set(known["stage"]) == {"stage5"}
    assert set(known["layer"]) == {"s5.pathway0_res0.branch2.c"}
    assert known["class"].tolist() == [units.loc[("stage5", c), "class"] for c in known["channel"]]

    differs = r"measured another network \(x3d_xs; its seed of the random weights differs\)"
    with pytest.raises(UserError, match=differs):
        explain(*common[:-1], f"task.input={clips / 'clip0'}", "seed=2")


# -- names


def test_names_of_classes(tmp_path):
    text, listed, numbered = tmp_path / "n.txt", tmp_path / "n.json", tmp_path / "m.json"
    text.write_text("archery\npetting cat\n\n")
    listed.write_text('["archery", "petting cat"]')
    numbered.write_text('{"petting cat": "1", "archery": "0"}')
    source = tmp_path / "n.py"
    source.write_text("raise SystemExit\nsmall = ['a']\nclasses = ['archery', 'petting_-cat-']\n")
    for path in (text, listed, numbered):
        assert class_names(path, 2) == ["archery", "petting cat"]
    assert class_names(source, 2) == ["archery", "petting (cat)"]
    names = ["archery", "petting (cat)"]
    assert (
        find_label("Petting_(cat)", names) == 1
        and find_label("1", names) == 1
        and find_label(None, names) is None
    )
    with pytest.raises(UserError, match="nearest known: archery"):
        find_label("archry", names)
    with pytest.raises(UserError, match="holds 2 names, but the network has 3 classes"):
        class_names(text, 3)
    for broken in ("{", "[" * 100_000, '{"archery": 1, "petting cat": 2}', '{"archery": 0, "cat": 0}'):
        listed.write_text(broken)
        with pytest.raises(UserError, match="holds no class names"):
            class_names(listed, 2)
    with pytest.raises(UserError, match="is neither a file nor a name in configs"):
        class_names(tmp_path / "nowhere.txt", 2)


# -- bad input: one line, status 2, before anything goes through the network


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["task.label=400"], "label=400: this network's classes are numbered 0 to 399"),
        (["task.label=-1"], "label=-1"),
        (["task.label=archery"], "because the names of this network's classes are unknown"),
        (["task.end=13"], "has only 12 frames"),
        (["task.start=12"], "has only 12 frames"),
        (["task.start=5", "task.end=5"], "task.start must be at least 0 and below task.end"),
        (["task.start=-1"], "task.start must be at least 0 and below task.end"),
        (["cfp.depth=99"], "depth=99: this network's pyramids have 1 to "),
        (["cfp.depth=0"], "depth=0"),
        (["cfp.theta=1.5"], "theta=1.5: give a number from 0 to 1"),
        (["cfp.rules=orignal"], "nearest known: original"),
        (["cfp.rules=original"], "rules=original works only for the networks of Stergiou et al.'s code"),
        (["cfp.select=best"], "topK_inL"),
        (["cfp.select=5"], "topK_inL"),
        (["task.input=nowhere"], "task.input=nowhere does not exist"),
        (["task.input=empty"], "task.input=empty holds no video, no frames and no frames.db"),
        (["task.profile=empty"], "is not a run folder"),
        (["task.names=empty/n.txt"], "is neither a file nor a name in configs"),
        (["task.names=5"], "task.names=5 is neither a file nor a name in configs"),
        (["task.outdir=taken"], "taken is a file: give another task.outdir"),
    ],
)
def test_bad_input_is_said_before_anything_is_computed(
    explain, tmp_path, monkeypatch, capsys, arguments, says
):
    write_frames(tmp_path / "clip", moving_square(0))
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").touch()
    monkeypatch.setattr("static_dynamic.analysis.explain.explained_clips.ShownClip.read", None)
    monkeypatch.setattr("static_dynamic.analysis.explain.explainer.build_network", lambda cfg: network())
    with pytest.raises(UserError) as error:
        explain("task.input=clip", *arguments)
    assert says in str(error.value) and "\n" not in str(error.value) and not capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("task.label=1.5", "task.label=1.5 (expected: whole number, text or null)"),
        ("task.label=true", "task.label=true (expected: whole number, text or null)"),
        ("task.end=late", "task.end=late (expected: whole number or null)"),
        ("cfp.theta=much", "cfp.theta=much (expected: number)"),
        ("cfp.depth=deep", "cfp.depth=deep (expected: whole number)"),
        ("task.video=avi", "task.video=avi; nearest known: "),
        ("task.kernels=0", "task.kernels=0: "),
    ],
)
def test_values_of_a_wrong_type_are_refused(argument, says):
    with pytest.raises(UserError) as error:
        check(["task=saliency", *NET[:5], argument])
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cfp.tetha=0.5"], "cfp.tetha"),
        ([*TOKENS, "model.input.size=40", "model.input.crop=32"], "not read feature maps of 3D convolutions"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, tmp_path, arguments, says):
    write_frames(tmp_path / "clip", moving_square(0))
    net = [] if arguments[0].startswith("model=") else NET
    status, out, err = run("task=saliency", *net, "task.input=clip", *arguments)
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert status == 2 and says in line and "Traceback" not in err and out == ""


@pytest.mark.parametrize("name", ["thesis.tex", "summary.json"])
def test_a_folder_of_something_else_is_not_replaced(explain, tmp_path, name):
    write_frames(tmp_path / "clip", moving_square(0))
    (tmp_path / "out" / "clip").mkdir(parents=True)
    (tmp_path / "out" / "clip" / name).write_text("mine")
    with pytest.raises(UserError, match="holds files not written by task=saliency"):
        explain("task.input=clip", "task.outdir=out", "task.pictures=false")
    assert (tmp_path / "out/clip" / name).read_text() == "mine"


def test_every_clip_has_a_folder_of_its_own_below_the_root(tmp_path):
    names = ["a/b", "a--b", "..", "clip", "a b", "."]
    expected = ["a--b", "a--b--2", "unnamed", "clip", "a--b--3", "unnamed--2"]
    assert [folder.name for folder in clip_folders(tmp_path, names)] == expected
    assert {folder.parent for folder in clip_folders(tmp_path, names)} == {tmp_path}


def test_an_earlier_result_outlives_a_failure(tmp_path, monkeypatch):
    folder, rename = tmp_path / "clip", Path.rename
    write_text(folder / "summary.json", "old")

    def failing(path, target):
        if path.name == "new":
            raise OSError("stopped")
        return rename(path, target)

    for patch in (lambda: None, lambda: monkeypatch.setattr(Path, "rename", failing)):
        patch()
        with pytest.raises(OSError, match="stopped"), replaced_folder(folder) as new:
            write_text(new / "summary.json", "new")
            if Path.rename is rename:
                raise OSError("stopped")
        assert [path.name for path in tmp_path.iterdir()] == ["clip"]
        assert (folder / "summary.json").read_text() == "old"


def test_a_broken_clip_among_many(explain, tmp_path, caplog):
    write_frames(tmp_path / "clips" / "good", moving_square(0))
    (tmp_path / "clips" / "bad.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 200)
    arguments = ["task.input=clips", "task.outdir=out", "task.pictures=false"]
    with pytest.raises(UserError, match=r"bad\.mp4 is not a readable video.*on_error=skip"):
        explain(*arguments)
    explain(*arguments, "on_error=skip")
    assert "bad is left out" in caplog.text and (tmp_path / "out/good/summary.json").exists()


def test_a_theta_that_nothing_reaches_says_so(explain, tmp_path, caplog):
    write_frames(tmp_path / "clip", moving_square(0))
    explain("task.input=clip", "cfp.theta=1", "cfp.depth=1")
    graph = read(next(tmp_path.rglob("summary.json")).parent)
    assert "no feature of class" in caplog.text and "give a smaller cfp.theta" in caplog.text
    assert [node["id"] for node in graph["nodes"]] == [f"0:{graph['nodes'][0]['unit']}"] and not graph[
        "links"
    ]


# -- the original's flags


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    net = build_model("cfp_mfnet", num_classes=12)
    path = tmp_path_factory.mktemp("weights") / "mfnet.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, path)
    return path


def flags(weights, folder, **other):
    given = {
        "num_classes": 12,
        "model_weights": weights,
        "model_name": "mfnet",
        "frame_dir": folder,
        "frames_start": 3,
        "frames_end": 19,
        "label": 7,
        "threshold": 0.88,
        "backprop_depth": 3,
        "visualisation_method": "all",
        **other,
    }
    return [word for name, value in given.items() for word in (f"--{name}", value)]


@pytest.fixture
def numbered(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, frame in enumerate(moving_square(0, n=20), start=1):
        cv2.imwrite(str(folder / f"frame_{i:010d}.jpg"), frame)
    return folder


def test_flags_of_the_original(run, weights, numbered, tmp_path):
    arguments = flags(weights, numbered, base_output_dir="vis", tubes_vis_method="concat", rules="original")
    status, _, err = run(*arguments, "--only_dep_graph", program=original_flags)
    assert status == 0, err
    summary = json.loads((tmp_path / "vis/frames/summary.json").read_text())
    assert summary["frames"] == list(range(2, 18)) and summary["model"] == "cfp_mfnet"
    assert (summary["rules"], summary["theta"], summary["depth"]) == ("original", 0.88, 3)
    nested = json.loads((tmp_path / "vis/frames/class_dependency_graph.json").read_text())
    assert list(nested) == ["7"] and nested["7"] and not (tmp_path / "vis/frames/pyramid.html").exists()


def test_flags_are_those_of_the_task(run, weights, numbered, monkeypatch):
    asked = []
    monkeypatch.setattr(original_flags, "explain_clips", asked.append)
    assert run(*flags(weights, numbered), program=original_flags)[0] == 0
    (cfg,) = asked
    assert cfg.cfp == {"rules": "corrected", "theta": 0.88, "depth": 3, "select": "all"}
    assert (cfg.task.start, cfg.task.end, cfg.task.label, cfg.task.pictures) == (2, 18, "7", True)
    assert (cfg.model.name, cfg.model.num_classes, cfg.task.outdir) == ("cfp_mfnet", 12, "visualisations")


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"frames_end": 22}, "has frames 1 to 20, and no frame 21"),
        ({"frames_start": 0}, "and no frame 0"),
        ({"frames_end": 3}, "--frames_start 3 --frames_end 3"),
        ({"fname_convention": "image_{:05d}.jpg"}, "holds no frames whose names match"),
        ({"fname_convention": "{"}, "is not a pattern such as frame_{:010d}.jpg"),
        ({"frame_dir": "nowhere"}, "--frame_dir nowhere does not exist"),
        ({"label": 12}, "label=12: this network's classes are numbered 0 to 11"),
        ({"threshold": 1.2}, "theta=1.2"),
        ({"backprop_depth": 90}, "depth=90"),
        ({"visualisation_method": "top5"}, "topK_inL"),
        ({"model_name": "resnet51"}, "nearest known: "),
        ({"model_weights": "lost.pth"}, "lost.pth"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(run, weights, numbered, other, says):
    status, out, err = run(*flags(weights, numbered, **other), program=original_flags)
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert status == 2 and says in line and out == ""


# -- the page in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def test_page_in_a_browser(browser, tmp_path):
    net, classes = branches(), planted(branches())
    inputs = clip_of(net)
    pyramid = class_feature_pyramid(net, inputs, 1, theta=0.4, depth=3)
    blank = class_feature_pyramid(net, torch.zeros_like(inputs), 1, theta=0.4, depth=3)
    blank = type(pyramid)(1, 0.4, "corrected", pyramid.steps, blank.clip)
    nodes = classes.of(pyramid.nodes)
    frames = np.random.default_rng(0).integers(0, 255, (4, 10, 10, 3)).astype(np.uint8)
    title = '</script><script>hacked = 1</script> {{content}} <img src=x onerror="hacked=1">'
    write_page(tmp_path / "page.html", pyramid, blank, nodes, nodes, frames, title, [title])
    browser.open(tmp_path / "page.html", 1280)
    count = len(nodes)
    assert browser.evaluate("document.documentElement.dataset.ready") == str(count)
    assert browser.evaluate("document.querySelectorAll('.node').length") == count
    assert browser.evaluate("document.querySelectorAll('.link').length") == len(pyramid.links)
    assert browser.evaluate("document.title") == title
    assert browser.evaluate("typeof hacked") == "undefined"
    assert browser.evaluate("document.documentElement.scrollWidth") <= 1280

    # no link runs over a number; at 390 pixels, the numbers stay readable and the tube stays in sight
    boxes = "[...document.querySelectorAll('.node text')].map(t => t.getBoundingClientRect())"
    end = "l.a.element.querySelector('text').getBBox()"
    assert browser.evaluate(
        f"links.filter(l => l.a.level).every(l => l.path.getPointAtLength(0).x >= {end}.x + {end}.width)"
    )
    browser.open(tmp_path / "page.html", 390)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert browser.evaluate(f"Math.min(...{boxes}.map(b => b.height))") >= 9
    tube = "canvas.getBoundingClientRect()"
    assert 0 <= browser.evaluate(f"{tube}.top") and browser.evaluate(f"{tube}.bottom") <= 900
    browser.open(tmp_path / "page.html", 1280)

    # pointing at a kernel: its name, its class, its own ways alone, and something is drawn
    chosen = nodes[(nodes["level"] == 2) & (nodes["layer"] == "residual.a")].iloc[0]
    element = f"document.querySelector('[data-id=\"2:{chosen['unit']}\"]')"
    browser.evaluate(f"{element}.dispatchEvent(new PointerEvent('pointerenter'))")
    text = browser.evaluate("document.getElementById('what').textContent")
    assert f"residual.a, kernel {chosen['channel']}" in text and "not profiled" in text
    parents = (pyramid.links.query("level == 1").child == chosen["unit"]).sum()
    below = (pyramid.links.query("level == 2").parent == chosen["unit"]).sum()
    near = "links.filter(l => l.path.classList.contains('near'))"
    assert browser.evaluate(f"{near}.filter(l => l.b.level === 2).length") == parents
    assert browser.evaluate(f"{near}.filter(l => l.a.level === 2).length") == below
    drawn = "context.getImageData(0, 0, canvas.width, canvas.height).data.some((v, i) => i % 4 < 3 && v > 0)"
    assert browser.evaluate(f"draw(), {drawn}") is True

    # a profiled kernel: its kind and its class; kinds have markers of their own
    legend = "[...document.querySelectorAll('#legend div')].map(e => e.textContent)"
    assert browser.evaluate(legend) == ["content", "motion", "not profiled"]
    for kind, shape in (("content", "polygon"), ("motion", "circle")):
        own = nodes[nodes["kind"] == kind].iloc[0]
        node = f"document.querySelector('[data-id=\"{own['level']}:{own['unit']}\"]')"
        browser.evaluate(f"{node}.dispatchEvent(new PointerEvent('pointerenter'))")
        text = browser.evaluate("document.getElementById('what').textContent")
        assert f"{kind}; the paper's class: {own['class']} ({own['stage']})" in text
        assert browser.evaluate(f"{node}.querySelector('.mark').tagName") == shape

    # click holds, Escape lets go; the slider thins the links out
    browser.evaluate(f"{element}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    assert browser.evaluate("held.id") == f"2:{chosen['unit']}"
    browser.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    assert browser.evaluate("held") is None and browser.evaluate("current.level") == 0
    browser.evaluate("slider.value = 1; slider.dispatchEvent(new Event('input'))")
    strongest = int((pyramid.links.strength >= 0.99995).sum())
    visible = "links.filter(l => l.path.style.display !== 'none').length"
    assert browser.evaluate(visible) == strongest

    problems = browser.of("Runtime.exceptionThrown", "Log.entryAdded")
    assert not problems
    asked = {e["request"]["url"].split(":")[0] for e in browser.of("Network.requestWillBeSent")}
    assert asked <= {"file", "data"}


def test_page_of_a_profile_without_kinds(browser, tmp_path):
    net, classes = branches(), planted(branches())
    classes = KernelClasses(classes.units.drop(columns="kind"), "old")
    pyramid = class_feature_pyramid(net, clip_of(net), 1, theta=0.4, depth=2)
    nodes, frames = classes.of(pyramid.nodes), np.zeros((4, 10, 10, 3), np.uint8)
    write_page(tmp_path / "page.html", pyramid, pyramid, nodes, nodes, frames, "t", ["f"])
    browser.open(tmp_path / "page.html", 400)
    legend = "[...document.querySelectorAll('#legend div')].map(e => e.textContent)"
    assert set(browser.evaluate(legend)) == {"dynamic", "static", "not profiled"}
    assert not browser.of("Runtime.exceptionThrown", "Log.entryAdded")


def test_page_without_a_profile_and_without_kernels(browser, tmp_path):
    net = branches()
    for theta in (0.5, 1.0):
        pyramid = class_feature_pyramid(net, clip_of(net), 2, theta=theta, depth=2)
        frames = np.zeros((4, 10, 10, 3), np.uint8)
        write_page(tmp_path / "page.html", pyramid, pyramid, pyramid.nodes, pyramid.nodes, frames, "t", ["f"])
        browser.open(tmp_path / "page.html", 400)
        assert browser.evaluate("document.documentElement.dataset.ready") == str(len(pyramid.nodes))
        assert not browser.of("Runtime.exceptionThrown", "Log.entryAdded")
