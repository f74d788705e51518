"""Networks of images and flow, from json file to result files: a tiny one in place of the real ones where
the network does not matter."""

import json
import os
import re
import stat
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from static_dynamic.analysis import estimate_run
from static_dynamic.analysis.outputs import report
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.show import figures
from static_dynamic.analysis.vos.original_writer import write_statistics
from static_dynamic.configs import CONFIG_DIR, row
from static_dynamic.configs.cfg_file import expand, read_cfg_file
from static_dynamic.configs.options import check, translate
from static_dynamic.errors import UserError
from static_dynamic.models import build_model, resnet2d
from static_dynamic.models.registry import FAMILIES
from static_dynamic.models.stages import Tap
from static_dynamic.models.twostream import TwoStreamNetwork, declare
from tests.datasets.davis_trees import write_davis
from tests.paths import ROOT
from tests.test_main import errors, run, run_folders  # noqa: F401  a fixture

FUSIONSEG = "twostream_deeplabv3plus_resnet101"
LINE = re.compile(r"Stage: \w+,\w+ , Dimensions: \[\d+, \d+, \d+\] \[\d+\.\d, \d+\.\d, \d+\.\d\]")
FILES = sorted(CONFIG_DIR.glob("*.json")) + sorted(CONFIG_DIR.glob("*_types/*.json"))


class Tiny(TwoStreamNetwork):
    """One convolution a stream, and one of both; of rows in turn, where two frames are seen at once."""

    def __init__(self, num_classes, trunk=None, **options):
        super().__init__()
        if trunk:
            self.channels, self.clip = {"Image": 3, "Flow": 6}, (2,)
        self.image = nn.Conv2d(3, 5, 3, stride=2)
        self.flow = nn.Conv2d(self.channels["Flow"], 6, 3, stride=2)
        self.both = nn.Conv2d(11, 4, 1)
        self.stages = declare(
            {
                "layer1,app_stream": (5, Tap("image")),
                "layer1,mot_stream": (6, Tap("flow")),
                "layer1,sensor_fusion": (4, Tap("both")),
            }
        )

    def forward(self, inputs):
        image, flow = (inputs[name] for name in ("Image", "Flow"))
        if image.dim() == 5:
            image, flow = image.flatten(0, 1), flow.flatten(0, 1)
        return self.both(torch.cat([self.image(image).relu(), self.flow(flow).relu()], dim=1))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(FAMILIES, "tiny", Tiny)


@pytest.fixture
def undrawn(monkeypatch):
    """Call it, and runs from then on leave out figure and report, which cost more than they do."""

    def call():
        monkeypatch.setattr(report, "write_report", lambda folder: None)
        monkeypatch.setattr(figures, "draw_profile", lambda layers, path, title: None)

    return call


@pytest.fixture
def davis(tmp_path):
    return write_davis(tmp_path / "davis")


def arguments_of(davis, name, *more):
    return [
        *("--cfg_file", f"configs/{name}.json", "--original_data_root", davis, "--stylized_data_root", davis),
        *("--crop_size", "24,32", "--styles", "1,2", "--num_workers", "0", "--batch_size", "3", "n_boot=20"),
        *("model.init=random", "model.family=tiny", *more),
    ]


@pytest.mark.parametrize(
    ("name", "model", "frames"),
    [("matnet_davis", "matnet_fusion_type_gated", 5 + 4), ("rtnet_davis", "rtnet", 4 + 3)],
)
def test_results_have_the_originals_form(
    run,  # noqa: F811
    davis,
    tmp_path,
    tiny,
    undrawn,
    name,
    model,
    frames,
):
    arguments = arguments_of(davis, name, "--joint_encoding", "True", "--random_seed", "3")
    if name == "matnet_davis":  # the original's word for no checkpoint at all
        arguments = [*(a for a in arguments if a != "model.init=random"), "--checkpoint", "imgnet"]
    else:
        undrawn()
    status, out, err = run(*arguments)
    assert status == 0, err
    undrawn()
    assert "(untrained)" in out and ("no weights are loaded" in err) == (name == "matnet_davis")
    vos = tmp_path / "dim_outputs" / "vos_models"
    lines = (vos / "final" / model / f"{model}_final_003.txt").read_text().splitlines()
    assert len(lines) == 3 and all(LINE.fullmatch(line) for line in lines)
    assert lines[0].startswith("Stage: layer1,app_stream , Dimensions: [")
    (folder,) = run_folders(tmp_path / "dim_outputs")
    rows = 2 if name == "rtnet_davis" else 1
    views, units = pd.read_parquet(folder / "views.parquet"), pd.read_parquet(folder / "units.parquet")
    assert len(views) == rows * frames * 2 * 2
    assert json.loads((folder / "manifest.json").read_text())["counts"]["clusters"] == 2
    # the truths: members of a pair share the input of one stream bit for bit
    for stream, factor in (("app_stream", "static"), ("mot_stream", "dynamic")):
        own = units[units["stage"] == f"layer1,{stream}"]
        assert (own[f"score_{factor}"] == 1).all() and (own["class"] == factor).sum() >= 3
    store, alike = Store.open(folder).activations("layer1,app_stream"), {}
    for k, view in views.iterrows():  # the image's stream knows the frame and the style alone
        seen = alike.setdefault((view["video"], view["frame"], view["style"]), store[k])
        np.testing.assert_allclose(store[k], seen, rtol=1e-6)
    assert len({tuple(row) for row in alike.values()}) == len(alike)
    fused = units[units["stage"] == "layer1,sensor_fusion"]
    assert (fused[["score_dynamic", "score_static"]] < 1).all().all()
    for stage, own in units.groupby("stage"):
        shares = np.load(vos / "idv_scores" / model / f"{stage}.npy")
        scores = np.column_stack([own["score_dynamic"], own["score_static"], np.ones(len(own))])
        expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        np.testing.assert_allclose(shares, expected, rtol=1e-12)
        joint = pd.read_parquet(vos / "joint_encoding" / model / f"{stage}.parquet")
        assert list(joint.columns) == ["unit", "dynamic", "static", "class"]
        np.testing.assert_array_equal(joint["static"], own["score_static"])
        table = pd.read_csv(vos / "stats_tables" / model / f"{stage}_3.csv", header=None)
        np.testing.assert_allclose(table[1], own["score_dynamic"], atol=1e-5)
        np.testing.assert_allclose(table[3], sharing_neither(views, Store.open(folder), stage), atol=1e-5)
        assert (table[4] == 1).all()
    # once more: the same lines, not more of them
    before = {p: p.read_bytes() for p in vos.rglob("*") if p.is_file()}
    assert run(*arguments)[0] == 0
    assert before == {p: p.read_bytes() for p in vos.rglob("*") if p.is_file()}


def sharing_neither(views, store, stage, skipped=None):
    """Correlation of each unit over frames in one style, and in another with other flow; one by one."""
    values = store.activations(stage).astype(float)
    of_view = {
        (
            view["clip"],
            k % views.groupby(["clip", "style", "flow"]).size().iloc[0],
            view["style"],
            view["flow"],
        ): k
        for k, view in views.iterrows()
    }
    a, b = [], []
    for (clip, place, style, flow), k in of_view.items():
        for (other_clip, other_place, other_style, other_flow), j in of_view.items():
            if (
                (clip, place, flow) == (other_clip, other_place, 0)
                and style != other_style
                and other_flow
                and skipped not in (k, j)
            ):
                a.append(values[k])
                b.append(values[j])
    both = np.concatenate([a, b])
    centred_a, centred_b = np.array(a) - both.mean(0), np.array(b) - both.mean(0)
    return (centred_a * centred_b).mean(0) / both.var(0)


def test_a_frame_that_was_skipped_moves_no_other_into_its_place(run, davis, tmp_path, tiny, undrawn):  # noqa: F811
    undrawn()
    assert run(*arguments_of(davis, "rtnet_davis"))[0] == 0
    (folder,) = run_folders(tmp_path / "dim_outputs")
    store = Store(folder, "r+")
    store.skip(np.array([0]), "goat/00001", "the first frame of the first look")
    result = estimate_run(folder, 0, 1)
    write_statistics(tmp_path, "net", 1, folder, result)
    table = pd.read_csv(tmp_path / "stats_tables/net/layer1,app_stream_1.csv", header=None)
    views, stage = pd.read_parquet(folder / "views.parquet"), "layer1,app_stream"
    expected = sharing_neither(views, store, stage, skipped=0)
    np.testing.assert_allclose(table[3], expected, atol=1e-5)


def test_a_killed_run_goes_on_to_the_same_bytes(run, davis, tmp_path, tiny, undrawn, monkeypatch):  # noqa: F811
    undrawn()
    arguments = arguments_of(davis, "rtnet_davis", "orders=[forward,shuffled,reversed]")
    assert run(*arguments, "--save_dir", tmp_path / "whole", "num_workers=1")[0] == 0
    write, calls = Store.write, []

    def killed(self, rows, *values):
        calls.append(rows)
        if len(calls) == 4:
            raise KeyboardInterrupt
        write(self, rows, *values)

    monkeypatch.setattr(Store, "write", killed)
    status, _, err = run(*arguments, "--save_dir", tmp_path / "parts")
    assert status == 130 and "run the same command to resume" in err
    assert not list((tmp_path / "parts").rglob("*_final_*"))
    assert run(*arguments, "--save_dir", tmp_path / "parts")[0] == 0
    batches = 28 * 3 // 2 // 3  # views in three orders, three per batch
    assert len(calls) == 4 + batches - 3
    whole, parts = (
        {
            p.relative_to(root): p.read_bytes()
            for p in root.rglob("*")
            if p.suffix in (".npy", ".parquet", ".csv", ".txt", ".png") and p.is_file()
        }
        for root in (tmp_path / "whole", tmp_path / "parts")
    )
    assert whole.keys() == parts.keys() and all(parts[p] == whole[p] for p in whole)


def test_fusionseg_is_exactly_static_in_one_stream_and_dynamic_in_the_other(
    run,  # noqa: F811
    davis,
    tmp_path,
    undrawn,
    monkeypatch,
):
    undrawn()
    kind, blocks, widths = resnet2d.ARCHITECTURES["resnet101"]
    monkeypatch.setitem(resnet2d.ARCHITECTURES, "resnet101", (kind, (1,) * len(blocks), widths))  # less deep
    arguments = arguments_of(
        davis, "twostreamv3plus_davis", "pairs=both", "n_examples=4", "--trained_on", "taovos"
    )
    arguments.remove("model.family=tiny")
    status, _, err = run(*arguments)
    assert status == 0, err
    name = f"{FUSIONSEG}_taovos"
    assert (tmp_path / f"dim_outputs/vos_models/final/{name}/{name}_final_001.txt").exists()
    (folder,) = run_folders(tmp_path / "dim_outputs")
    units = pd.read_parquet(folder / "units.parquet")
    for stream, factor in (("app_stream", "static"), ("mot_stream", "dynamic")):
        own = units[units["stage"].str.endswith(stream) & (units["class"] != "dead")]
        assert own["stage"].nunique() == 5 and len(own) > 3000
        np.testing.assert_allclose(own[f"score_{factor}"], 1, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cfg_file=configs/matnt_davis.json"], "nearest known: configs/matnet_davis.json"),
        (["--cfg_file", "configs/matnet_davis.json", "--model", "rtnet"], "already names the network"),
        (["--cfg_file", "configs/rtnet_davis.json", "fwbwflow=False"], "accepts only fwbwflow=True"),
        (["--cfg_file", "configs/matnet_davis.json", "variant=img"], "accepts only variant=img_flow"),
        (["--cfg_file", "configs/matnet_davis.json", "spilt=val"], "nearest known: split"),
        (["--cfg_file", "configs/matnet_davis.json", "crop_size=[32,x]"], "crop_size"),
        (
            ["model=matnet", "model.family=tiny", "model.init=random", "dataset=StylizedDAVIS"],
            "needs a folder",
        ),
        (["--crop_size", "24,32"], "crop_size is an option of networks that take images and flow"),
        (["model=x3d_xs", "model.init=random", "dataset=StylizedDAVIS"], "for networks that take images and"),
        (["--cfg_file", "configs/matnet_davis.json", "--dataset", "folder"], "give dataset=StylizedDAVIS"),
        (
            ["--cfg_file", "configs/matnet_davis.json", "model.input.size=[9,9]", "model.init=random"],
            "set both with crop_size=",
        ),
        (["--cfg_file", "configs/matnet_davis.json"], "give checkpoint=FILE, or model.init=random"),
    ],
)
def test_bad_input_is_one_line(run, tiny, arguments, says):  # noqa: F811
    status, out, err = run(*arguments)
    assert status == 2 and out == ""
    (line,) = errors(err)
    assert says in line, line


def test_a_checkpoint_of_another_network_is_one_line(run, davis, tmp_path, tiny):  # noqa: F811
    torch.save({"state_dict": {"module.encoder.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    arguments = [a for a in arguments_of(davis, "matnet_davis") if a != "model.init=random"]
    status, _, err = run(*arguments, "--checkpoint", tmp_path / "other.pth")
    (line,) = errors(err)
    assert status == 2 and "other.pth does not fit Tiny: 6 missing" in line
    status, _, err = run(*arguments, "--checkpoint", tmp_path)
    assert status == 2 and "is a folder: give a file in the folder" in errors(err)[0]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_json_file_is_understood(file):
    content = read_cfg_file(file)
    assert {
        "original_data_root",
        "stylized_data_root",
        "split",
        "nreps",
        "random_seed",
        "model",
        "gpu_id",
    } < set(content)
    assert content["crop_size"] == [480, 854] and content["sampling_method"] == "noisy_flow"
    check(translate(["--cfg_file", str(file)]))


def test_the_command_line_wins_over_the_file(tmp_path):
    file = tmp_path / "my.json"
    content = {"model": "matnet", "extra_args": {"fusion_type": "gated", "use_global": False}, "nreps": 2}
    file.write_text(json.dumps({**content, "random_seed": 7, "crop_size": [32, 48], "split": "my split"}))
    said = dict(word.split("=", 1) for word in translate(["--cfg_file", str(file)]))
    assert said["seed"] == "7" and said["dataset.split"] == "'my split'" and said["model"] == "matnet"
    assert said["model.input.size"] == said["model.input.crop"] == "[32,48]"
    assert said["model.args.use_global"] == "false" and said["dataset"] == "StylizedDAVIS"
    assert said["model.original_name"] == "matnet_fusion_type_gated_use_global_False"
    file.write_text(json.dumps({**content, "num_classes": 2, "output_stride": 16, "gpu_id": "0"}))
    assert not any("num_classes" in w or "stride" in w for w in translate(["--cfg_file", str(file)]))
    words = translate(["--cfg_file", str(file), "--random_seed", "2", "nreps=3", "--crop_size", "8,9"])
    assert words.count("seed=2") == 1 and not any(word.startswith("seed=7") for word in words)
    assert "dataset.nreps=3" in words and "model.input.crop=[8,9]" in words
    words = translate(["model=rtnet", "--crop_size", "8,9", "dataset=StylizedDAVIS"])
    assert words == [
        "model.input.size=[8,9]",
        "model.input.crop=[8,9]",
        "model=rtnet",
        "dataset=StylizedDAVIS",
    ]
    assert expand(["seed=2", "-m"]) == ["seed=2", "-m"]
    for change, says in (
        ({"crop_sise": 3}, "unknown key 'crop_sise'; nearest known: crop_size"),
        ({"model": "matnett"}, "unknown model 'matnett'; nearest known: matnet"),
        ({"extra_args": {"cc_tpye": "coatt"}}, "no option 'cc_tpye'; nearest known: cc_type"),
        ({"sampling_method": "diff_sq"}, "accepts only sampling_method=noisy_flow"),
        ({"model": ["matnet"]}, "unknown model ['matnet']"),
        ({"extra_args": "gated"}, "extra_args='gated': a dict"),
        ({"extra_args": {"use_global": "no"}}, "extra_args: use_global='no': true or false"),
        ({"extra_args": {"cc_type": ["coatt"]}}, "extra_args: cc_type=['coatt']: a word"),
        ({"crop_size": [True, 8]}, "crop_size=[True, 8]: height and width"),
        ({"nreps": 0}, "nreps=0: a whole number from 1 on"),
        ({"split": None}, "split=None: a word"),
        ({"stylized_data_root": ["a"]}, "stylized_data_root=['a']: a word"),
        ({"split": "${oc.env:HOME}"}, "${...}, which is not allowed"),
    ):
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises(UserError, match=re.escape(says)):
            translate(["--cfg_file", str(file)])
    for text in ("[1", "[1]", "{}", "[" * 100_000):
        file.write_text(text)
        with pytest.raises(UserError, match="my.json"):
            translate(["--cfg_file", str(file)])


def test_merged_shards_write_the_originals_files(run, davis, tmp_path, tiny, undrawn):  # noqa: F811
    undrawn()
    arguments = arguments_of(davis, "matnet_davis", "orders=[forward,shuffled,reshuffled,reversed,frozen]")
    for shard in (0, 1):
        status, _, err = run(*arguments, "shards=2", f"shard={shard}")
        assert status == 0, err
    status, out, err = run("task=merge", "n_boot=20")
    assert status == 0 and "result file in the format of Kowal et al.'s code" in out, err
    (merged,) = (folder for folder in run_folders(tmp_path / "dim_outputs") if "-of-" not in folder.name)
    assert run(*arguments, f"run_dir={tmp_path / 'whole'}")[0] == 0
    for file in ("views.parquet", "layers.csv", "units.parquet", "activations/layer1,mot_stream.npy"):
        assert (merged / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    name = "matnet_fusion_type_gated"  # as without shards
    assert (tmp_path / f"dim_outputs/vos_models/final/{name}/{name}_final_001.txt").exists()


def test_extra_args_are_options_of_the_network():
    known = row("model", "matnet").args
    for file in FILES:
        content = read_cfg_file(file)
        assert set(content.get("extra_args", ())) <= set(known)
    with pytest.raises(UserError, match="nearest"):
        build_model("matnet", cc_type="coat")


@pytest.fixture
def sweep(tmp_path):
    """Run run_main_vos.sh with a stand-in for the interpreter, which notes its arguments and fails where
    one of them is named in ``fail``: (status, calls, stderr)."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/bash\necho "${@:2}" >>"$LOG"\n'
        '[[ -n $FAIL && "$*" == *$FAIL* ]] && exit "${FAIL_STATUS:-2}"\nexit 0\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    data = tmp_path / "data"
    data.mkdir()

    def call(*arguments, **variables):
        log = tmp_path / "log"
        log.write_text("")
        settings = {"PYTHON": python, "LOG": log, "ORIGINAL_DATA_ROOT": data, "FAIL": "", **variables}
        done = subprocess.run(
            ["bash", ROOT / "run_main_vos.sh", *arguments],
            cwd=tmp_path,
            env={**os.environ, **{k: str(v) for k, v in settings.items()}},
            capture_output=True,
            text=True,
        )
        return done.returncode, log.read_text().splitlines(), done.stderr

    return call


def test_the_sweep_runs_what_the_original_ran(sweep, tmp_path):
    status, calls, err = sweep("model.init=random", "crop_size=[24,32]")
    assert status == 0 and len(calls) == 20 and "20 runs done, 0 left out" in err
    assert all(call.endswith("model.init=random crop_size=[24,32]") for call in calls)
    assert [("--joint_encoding True" in call) for call in calls] == [True] * 5 + [False] * 15
    assert sum("rtnet_davis.json" in c and "--batch_size 5" in c for c in calls) == 4
    assert sum("matnet_davis.json" in c and "--batch_size 10" in c for c in calls) == 4
    for data in ("davis", "taovos", "imgnetvid"):
        assert sum(f"--batch_size 32 --trained_on {data}" in c for c in calls) == 4
    for call in calls[:3]:  # one of each network
        check(translate(call.replace(str(tmp_path / "data"), "x").split()))


def test_the_sweep_names_what_is_not_there(sweep, tmp_path):
    status, calls, err = sweep()
    assert status == 2 and not calls and err.count("left out: ") == 20
    assert "left out: matnet_davis (checkpoints_matnet), seed 1: " in err
    (tmp_path / "my.pth").write_text("")
    status, calls, err = sweep(RTNET_CHECKPOINT=tmp_path / "my.pth", SEEDS="1 2")
    assert status == 1 and len(calls) == 2 and f"--checkpoint {tmp_path / 'my.pth'}" in calls[0]
    assert err.count("left out: ") == 8
    status, calls, err = sweep("model.init=random", FAIL="rtnet")
    assert status == 1 and len(calls) == 20 and err.count("failed: rtnet_davis") == 4
    for stopped in (130, 143):  # by Ctrl-C, by SIGTERM
        status, calls, _ = sweep("model.init=random", FAIL="matnet", FAIL_STATUS=stopped)
        assert status == stopped and len(calls) == 2
    status, calls, err = sweep("model.init=random", ORIGINAL_DATA_ROOT=tmp_path / "nowhere")
    assert status == 2 and not calls and "nowhere does not exist" in err


@pytest.mark.parametrize("name", ["matnet_davis", "rtnet_davis"])
def test_motion_of_networks_that_see_flow(run, davis, tmp_path, tiny, undrawn, name):  # noqa: F811
    """The image stream does not see the jittered, reversed or absent flow; the flow stream sees no style."""
    undrawn()
    orders = "orders=[forward,shuffled,reshuffled,reversed,frozen]"
    status, _, err = run(*arguments_of(davis, name, "n_permutations=19", orders))
    assert status == 0, err
    (folder,) = run_folders(tmp_path)
    layers = pd.read_csv(folder / "layers.csv").set_index("stage")
    columns = ["motion", "motion_reshuffled", "motion_direction", "motion_any"]
    image, flow = layers.loc["layer1,app_stream"], layers.loc["layer1,mot_stream"]
    np.testing.assert_allclose(image[columns].astype(float), 0, atol=1e-6)
    assert (image[[f"p_{column}" for column in columns]] == 1).all()
    np.testing.assert_allclose(flow[["appearance", "residual"]].astype(float), 0, atol=1e-6)
    np.testing.assert_allclose(flow["content"] + flow["motion"], 1)
    assert flow["motion_any"] > 0.1
