"""Networks of the atlas: weights placed strictly, outputs and stages equal to those of the packages."""

import importlib
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from examples.atlas import efficientphys, inception, physformer, physnet, transnetv2, tscan
from examples.atlas.contrasts import Number, lean_of_scores, parts, scores
from examples.atlas.keras_weights import place, read_weights, variables
from examples.atlas.networks import BY_NAME, NETWORKS, UNTRAINED, Run, all_runs, overrides
from examples.atlas.page import fill
from examples.atlas.run import composed, log_of, profile_all
from examples.atlas.tables import TABLES
from static_dynamic.analysis.estimate.paired_parts import PairedParts
from static_dynamic.analysis.run.store import Store
from static_dynamic.assets import asset_row, cache_dir
from static_dynamic.configs.options import check
from static_dynamic.errors import UserError
from static_dynamic.models import build_model
from static_dynamic.models.registry import build_from_row
from tests.analysis.finished import finished_run
from tests.paths import GOLDEN, ROOT

sys.path.insert(0, str(GOLDEN / "atlas"))
seeded = importlib.import_module("seeded")
sys.path.remove(str(GOLDEN / "atlas"))

KERAS = {"physnet": physnet, "tscan": tscan, "efficientphys": efficientphys, "physformer": physformer}
TOLERANCE = 1e-5


def golden(network):
    with np.load(GOLDEN / "atlas" / f"{network}.npz") as file:
        return dict(file)


def asset(name):
    """The name of an asset, if its file is in the cache already; else the test is skipped."""
    if not (cache_dir() / "assets" / name / asset_row(name).member.rpartition("/")[2]).exists():
        pytest.skip(f"the weights {name} are not in the cache: run make atlas once")
    return name


def keras_arrays(net, layers):
    """Seeded arrays with the names of the weights file, in Keras' order of axes."""
    arrays = {}
    for path, layer in layers.items():
        module = net.get_submodule(path)
        for number, key in enumerate(variables(module)):
            shape = getattr(module, key).shape
            axes = (*shape[2:], shape[1], shape[0]) if len(shape) > 1 else shape
            name = f"{layer}/vars/{number}"
            arrays[name] = seeded.weights(name, axes)
    return arrays


def compare(net, network, kind):
    """Compare output and stage means with the golden file; return the largest relative error."""
    expected = {k.rpartition("/")[0]: v for k, v in golden(network).items() if k.endswith(f"/{kind}")}
    found = {}
    for stage in expected.keys() - {"output"}:
        net.get_submodule(stage).register_forward_hook(
            lambda module, inputs, maps, stage=stage: found.update({stage: maps.double().mean((0, 2, 3, 4))})
        )
    clip = torch.from_numpy(seeded.clip(network)).permute(3, 0, 1, 2)[None].float() / 255
    with torch.no_grad():
        found["output"] = net(clip)[0]
    errors = {}
    for name, value in expected.items():
        assert found[name].shape == value.shape
        errors[name] = np.abs(found[name].numpy() - value).max() / np.abs(value).max()
    worst = max(errors, key=errors.get)
    print(f"{network} {kind}: {errors[worst]:.1e} at {worst}")
    return errors[worst]


@pytest.mark.parametrize("network", KERAS)
def test_seeded_weights_give_the_outputs_of_the_package(network):
    module = KERAS[network]
    net = module.build()
    place(net, module.LAYERS, keras_arrays(net, module.LAYERS))
    assert compare(net, network, "seeded") < TOLERANCE


@pytest.mark.parametrize("weights", ["rlap", "pure"])
@pytest.mark.parametrize("network", KERAS)
def test_trained_weights_give_the_outputs_of_the_package(network, weights):
    pytest.importorskip("h5py", reason="h5py is not installed")
    asset(f"open_rppg_{network}_{weights}")
    assert compare(KERAS[network].build(weights), network, weights) < TOLERANCE


@pytest.mark.parametrize("network", KERAS)
def test_every_array_of_the_file_is_used_once_and_every_weight_gets_one(network):
    pytest.importorskip("h5py", reason="h5py is not installed")
    module = KERAS[network]
    arrays = read_weights(asset(f"open_rppg_{network}_rlap"))
    net = module.build()
    assert arrays.keys() == keras_arrays(net, module.LAYERS).keys()
    # strict loading writes every weight: none keeps the NaN
    with torch.no_grad():
        for value in (*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())):
            value.fill_(torch.nan)
    place(net, module.LAYERS, arrays)
    assert not any(value.isnan().any() for value in net.state_dict().values())


def test_weights_that_are_missing_left_over_or_of_another_shape_are_refused():
    net = tscan.build()
    arrays = keras_arrays(net, tscan.LAYERS)
    with pytest.raises(UserError, match="1 weights are left over, such as other"):
        place(net, tscan.LAYERS, {**arrays, "other": np.zeros(3)})
    name = "inner/attn1/layers/conv2d/vars/0"
    with pytest.raises(UserError, match=f"{name} are missing, or are used twice"):
        place(net, tscan.LAYERS, {k: v for k, v in arrays.items() if k != name})
    with pytest.raises(UserError, match=f"{name} have the shape"):
        place(net, tscan.LAYERS, {**arrays, name: np.zeros((1, 1, 31, 1))})
    twice = tscan.LAYERS | {"fused2.attention": "inner/attn1/layers/conv2d"}
    with pytest.raises(UserError, match=f"{name} are missing, or are used twice"):
        place(net, twice, arrays)


def test_transnetv2_gives_the_outputs_of_the_package():
    asset("transnetv2")
    assert compare(transnetv2.build(trained=True), "transnetv2", "trained") < TOLERANCE


def test_dilated_block_of_transnetv2_equals_a_slow_second_implementation():
    """One output value of each branch, summed by hand over taps in time and space."""
    torch.manual_seed(0)
    block = transnetv2.DilatedBlock(2, 3).eval()
    x = torch.randn(1, 2, 20, 5, 5)
    with torch.no_grad():
        y = block(x)[0, :, 9, 2, 2]
        for b, rate in enumerate((1, 2, 4, 8)):
            space, time = block.get_submodule(f"Conv3D_{rate}").layers
            total = torch.zeros(3)
            for tap, t in enumerate((9 - rate, 9, 9 + rate)):
                maps = torch.einsum("oikl,ikl->o", space.weight[:, :, 0], x[0, :, t, 1:4, 1:4])
                total += time.weight[:, :, tap, 0, 0] @ maps
            assert torch.allclose(y[3 * b : 3 * b + 3], total / (1 + 1e-3) ** 0.5, atol=1e-6)


def test_temporal_shift_stays_inside_segments():
    x = torch.arange(8.0).reshape(1, 1, 8, 1, 1).repeat(1, 3, 1, 1, 1)
    later, earlier, still = tscan.TemporalShift(4)(x)[0, :, :, 0, 0].tolist()
    assert later == [1, 2, 3, 3, 5, 6, 7, 7]
    assert earlier == [0, 0, 1, 2, 4, 4, 5, 6]
    assert still == list(range(8))


def test_inception_has_the_logits_and_stages_of_the_programs_network():
    torch.manual_seed(0)
    net = inception.build()
    own = build_model("i3d_inception")
    own.load_state_dict(net.state_dict())
    x = torch.rand(1, 3, 9, 224, 224)  # the smallest clip of the program's network
    with torch.no_grad():
        assert torch.allclose(net(x), own(x), atol=1e-6)
        assert net(x[..., :64, :64]).shape == (1, 400)


SHAPES = {
    "physnet": ((8, 32, 32), (2, 8)),
    "tscan": ((20, 36, 36), (2, 20)),
    "efficientphys": ((8, 72, 72), (2, 8)),
    "physformer": ((4, 128, 128), (2, 4)),
    "transnetv2": ((8, 27, 48), (2, 8, 2)),
}


@pytest.mark.parametrize("network", SHAPES)
def test_clips_of_a_batch_do_not_mix(network):
    net = importlib.import_module(f"examples.atlas.{network}").build()
    size, expected = SHAPES[network]
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        together = net(x)
        alone = torch.cat([net(one[None]) for one in x])
    assert together.shape == expected
    assert torch.allclose(together, alone, atol=1e-4)


def test_the_appearance_stream_does_not_see_the_order_of_the_frames():
    net = tscan.build()
    x = torch.rand(1, 3, 20, 36, 36)
    seen = []
    net.appearance2.register_forward_hook(lambda module, inputs, maps: seen.append(maps))
    with torch.no_grad():
        net(x)
        net(x[:, :, torch.randperm(20, generator=torch.Generator().manual_seed(0))])
    assert torch.allclose(*seen, atol=1e-5)


@pytest.mark.parametrize("network", [n.name for n in NETWORKS])
def test_the_stages_of_every_network_are_read(network, tmp_path, monkeypatch):
    """The untrained network is built with the options of its run, on rendered videos of the same size."""
    monkeypatch.setenv("SD_CACHE", str(tmp_path))
    options = [o for o in overrides(Run(network, UNTRAINED, "calibrated"), tmp_path) if "videos" not in o]
    cfg = composed([*options, "dataset.render.videos=1", "dataset.render.frames=2"])
    net = build_from_row(cfg.model)
    assert set(net.stages) == set(BY_NAME[network].stages)
    assert not net.has_head or network == "inception"
    spec = net.input_spec
    rows = net.read(torch.rand(1, 3, spec.frames, *spec.shape), tuple(net.stages))
    assert all(row.isfinite().all() and row.shape[0] == 1 for row in rows.values())


def test_options_of_all_runs_are_known_and_folders_differ(tmp_path):
    runs = all_runs()
    for run in runs:
        if run.data == "calibrated" and run.weights not in (UNTRAINED, "pure"):
            check(overrides(run, tmp_path))
    assert len({run.folder(tmp_path) for run in runs}) == len(runs)


def test_finished_runs_are_not_repeated(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("examples.atlas.run.execute", lambda *a: pytest.fail("a run was repeated"))
    for run in all_runs():
        log = log_of(run, tmp_path)
        log.parent.mkdir(exist_ok=True)
        log.touch()
    profile_all(tmp_path)
    assert capsys.readouterr().out.count("finished before") == len(all_runs())


def test_numbers_are_those_of_the_programs_tables(tmp_path):
    one = finished_run(tmp_path / "one", noise=0.5)
    two = finished_run(tmp_path / "two", model="other", noise=0.5)
    layers = pd.read_csv(one / "layers.csv").set_index("stage")
    for name, number in parts(one, "stage2").items():
        row = layers.loc["stage2"]
        assert np.isclose(number.value, row[name])
        assert np.isclose(number.value - number.half, row[f"{name}_low"])
    assert np.isclose(scores(one, "stage2")["score_dynamic"].value, layers.loc["stage2", "score_dynamic"])
    shares = layers.loc["stage2", ["share_dynamic", "share_static"]]
    assert np.isclose(lean_of_scores(one, "stage2").value, shares.iloc[0] - shares.iloc[1])
    expected = PairedParts([Store.open(one), Store.open(two)], [0, 0]).difference(
        [(0, "stage1")], [(1, "stage1")]
    )
    found = parts(one, "stage1")["motion"] - parts(two, "stage1")["motion"]
    assert np.isclose(found.value, expected["motion"])
    assert np.isclose(found.value + found.half, expected["motion_high"])


def test_arithmetic_of_numbers():
    """The linearised ratio has the deviations of a jackknife of the ratio, up to their square."""
    rng = np.random.default_rng(0)
    a, b = Number(2.0, 1e-4 * rng.standard_normal(20)), Number(5.0, 1e-4 * rng.standard_normal(20))
    ratio, total = a.over(b), a + b
    assert np.allclose(ratio.deviation, (2 + a.deviation) / (5 + b.deviation) - 0.4, atol=1e-7)
    assert total.value == 7 and np.allclose(total.deviation, a.deviation + b.deviation)
    assert (a - b).value == -3 and np.allclose((a - b).deviation, a.deviation - b.deviation)


def test_signs_of_intervals():
    assert Number(1.0, np.array([0.1, -0.1])).sign == 0  # Student's t with one degree of freedom
    assert Number(2.0, np.array([0.1, -0.1])).sign == 1
    assert Number(-2.0, np.array([0.1, -0.1])).sign == -1
    assert abs(Number(-2.0, np.array([0.1, -0.1]))).text(1, 1) == "2.0 [0.2, 3.8]"
    # order-blind stages: rounding errors are not motion
    assert Number(1e-15, np.zeros(5)).sign == 0


def table(name):
    """Rows of a table of docs/atlas.md."""
    text = (ROOT / "docs" / "atlas.md").read_text().partition(f"<!-- table {name} -->")[2]
    lines = [line.strip("| ").split(" | ") for line in text.partition("<!-- end -->")[0].split("\n") if line]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def certain(cell):
    """1 or -1 if the interval of a cell lies above or below 0, else 0."""
    low, high = map(float, cell.partition("[")[2].partition("]")[0].split(","))
    return (low > 0) - (high < 0)


# Networks whose lean by the paper's shares is uncertain on the calibrated data set.
UNCERTAIN = (("PhysNet", "RLAP"), ("PhysNet", "PURE"), ("PhysFormer", "RLAP"))


def test_the_findings_are_what_the_tables_say():
    whole = ("Inception-I3D", "TransNetV2", "PhysNet", "PhysFormer")
    for row in table("balance"):
        if row["network"] in whole:
            assert row["leans to"] == "appearance", row
            uncertain = row["data"] == "calibrated" and (row["network"], row["trained on"]) in UNCERTAIN
            assert row["leans to (paper)"] == ("uncertain" if uncertain else "static"), row
        elif row["data"] == "embedded":
            assert row["leans to"] == "motion", row
    for row in table("training"):
        if row["network"] in whole[:3]:
            assert certain(row["motion"]) == 1, row
        if row["network"] == "PhysFormer":
            lower = row["data"] == "calibrated" and row["trained on"] == "PURE"
            assert certain(row["motion"]) == -lower, row
    for row in table("rises"):
        if row["network"] in whole and row["trained on"] != "-":
            assert row["verdict"] == "rises", row
        if row["network"] in whole[:2] and row["trained on"] == "-":
            assert row["verdict"] != "rises", row
    for row in table("connections"):
        changes = [certain(row[c]) for c in ("motion", "appearance", "dynamic - static share")]
        assert not any(changes) if row["data"] == "embedded" else min(changes) >= 0, row
    for row in table("against"):
        verdicts = [row[c].split()[-1] for c in ("parts", "motion share", "paper's shares")]
        assert verdicts[1] != "yes" and not ("EfficientPhys" in row["compared with"] and "yes" in verdicts), (
            row
        )
    assert all(certain(row["layout"]) == 0 for row in table("scenes"))


def test_the_guide_has_every_table_and_is_filled():
    page = (ROOT / "docs" / "atlas.md").read_text()
    for name in TABLES:
        assert f"<!-- table {name} -->\n\n| " in page, f"docs/atlas.md lacks the table {name}"
    filled = fill(page, {"networks": "| a |"})
    assert "<!-- table networks -->\n\n| a |\n\n<!-- end -->" in filled
    assert fill(filled, {"networks": "| b |"}).count("| b |") == 1
