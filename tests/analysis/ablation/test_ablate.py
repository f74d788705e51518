"""The task on runs of networks whose routes are known: what is removed, and only that."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import main
from static_dynamic.analysis.ablation import passes
from static_dynamic.analysis.ablation.donors import donor_rows
from static_dynamic.analysis.ablation.measures import ClassMeasures, ClipViews, MaskMeasures
from static_dynamic.analysis.estimate.behaviour import estimate_behaviour
from static_dynamic.analysis.run.manifest import read_manifest
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError
from static_dynamic.models.ablation import ablated, tap_outputs
from static_dynamic.models.stages import Stage, Tap, VideoNetwork
from tests.analysis.ablation import routes
from tests.analysis.ablation.routes import BLIND, MOTION, TwoRoutes
from tests.conftest import write_frames


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a finished run of the network with two routes on eight videos in two styles."""
    root = tmp_path_factory.mktemp("routes")
    rng = np.random.default_rng(0)
    for video in range(8):
        # cells of random colours whose grey value changes over time
        cells = rng.integers(0, 256, (10, 6, 6, 3)).astype(float)
        colours = rng.integers(0, 256, (1, 6, 6, 3))
        frames = np.kron(0.5 * cells + 0.5 * colours, np.ones((1, 6, 6, 1))).astype(np.uint8)
        write_frames(root / "data" / "style_1" / f"v{video}", frames)
        write_frames(root / "data" / "style_2" / f"v{video}", 255 - frames)
    options = ("model=custom", "model.target=tests.analysis.ablation.routes.build", "model.stages=[both]")
    options += ("model.input.frames=8", "model.input.sampling_rate=1", "model.input.size=36")
    options += ("model.input.crop=36", "model.input.mean=[0.5,0.5,0.5]", "model.input.std=[0.5,0.5,0.5]")
    options += ("dataset=folder", f"stylized_data_dir={root / 'data'}", f"run_dir={root / 'run'}")
    options += (f"save_dir={root / 'out'}", "num_workers=0", "n_boot=20", "n_permutations=20", "styles='1,2'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [main.__file__, *options])
        assert main.main() == 0
    return root / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def ablate(in_process, folder, *options):
    status, out, err = in_process(main, "task=ablate", f"runs=[{folder}]", "task.random=20", *options)
    assert status == 0, out + err
    return pd.read_csv(folder / "ablation.csv").set_index(["replace", "set", "measure"]), out, err


def listed(units):
    return ("task.sets=[listed]", f"task.units={list(units)}".replace(" ", ""))


def test_removing_a_route_removes_its_dependence_and_only_that(run, in_process):
    whole = estimate_behaviour(run).set_index("change")["js_bits"]
    table, out, _ = ablate(in_process, run, *listed(MOTION))
    order, style = (table.loc[("mean", "listed", f"{kind}_bits")] for kind in ("order", "style"))
    assert order["whole"] == pytest.approx(whole["shuffled"], abs=1e-6)
    assert style["whole"] == pytest.approx(whole["new style"], abs=1e-6)
    assert order["whole"] > 0.05 and order["ablated"] < 1e-9 and order["p"] <= 1 / 21 + 1e-9
    assert style["ablated"] > 0.5 * style["whole"]
    assert "listed (50 %)" in out and "*" in out and (run / "ablation.png").stat().st_size > 10_000
    table, _, _ = ablate(in_process, run, *listed(BLIND))
    order, style = (table.loc[("mean", "listed", f"{kind}_bits")] for kind in ("order", "style"))
    assert style["ablated"] < 1e-9 < style["whole"] and order["ablated"] > 0.5 * order["whole"]
    kept, change = (table.loc[("mean", "listed", name)] for name in ("top1_kept", "divergence"))
    assert kept["whole"] == 1 and change["whole"] == 0 and change["ablated"] > 0


def test_patching_a_route_with_the_other_order(run, in_process):
    """The order-blind route sees no difference, so the network is that on the other order."""
    table, _, _ = ablate(in_process, run, *listed(MOTION), "task.replace=order")
    store = Store.open(run)
    views, logits = store.views, store.activations("logits").astype(np.float64)
    p = torch.from_numpy(logits).log_softmax(1).numpy()
    other = (
        views.assign(row=range(len(views)))
        .groupby(["clip", "style"])["row"]
        .transform(lambda r: r.to_numpy()[::-1])
    )
    divergence = (np.exp(p) * (p - p[other])).sum(1) / np.log(2)
    found = table.loc[("order", "listed", "divergence")]
    assert found["ablated"] == pytest.approx(divergence.mean(), rel=1e-5)
    order = table.loc[("order", "listed", "order_bits")]
    assert order["ablated"] == pytest.approx(order["whole"], rel=1e-5)
    for replace in ("style", "clip", "zero"):
        table, _, _ = ablate(in_process, run, *listed(MOTION), f"task.replace={replace}")
    change = table.xs("divergence", level="measure")["ablated"]
    # the motion route does not see the style
    assert change["style", "listed"] < 1e-6 < 1e-3 < change["clip", "listed"]
    assert set(table.index.get_level_values("replace")) == {"order", "style", "clip", "zero"}


class Net(TwoRoutes, VideoNetwork):
    """The network with two routes, outside of a run."""

    stages = {"both": Stage(16, (Tap("both"),))}


def test_patching_equals_the_network_on_mixed_input():
    net = Net()
    x = torch.randn(3, 3, 8, 36, 36, generator=torch.Generator().manual_seed(1))
    y = x[:, :, torch.randperm(8, generator=torch.Generator().manual_seed(2))]
    donors = tap_outputs(net, "both", y)
    with torch.inference_mode():
        with ablated(net, "both", MOTION, donors):
            patched = net(x)
        assert (patched - net(y)).abs().max() <= 1e-6 * net(y).abs().max()
        with ablated(net, "both", BLIND, donors):
            patched = net(x)
        assert (patched - net(x)).abs().max() <= 1e-6 * net(x).abs().max()
        # an ablated unit is a classifier without its column
        with ablated(net, "both", [3, 9], torch.zeros(16)):
            found = net(x)
        net.head.weight[:, [3, 9]] = 0
        torch.testing.assert_close(found, net(x))


def test_a_stopped_command_goes_on(run, in_process, monkeypatch):
    whole, _, err = ablate(in_process, run, "task.sets=[kind,motion]", "task.doses=[10,50]")
    assert "8 clips of 4 views x" in err
    done = sorted((run / "ablation").glob("*/*.npy"))
    assert len(done) == 8
    done[3].unlink()
    read = []
    inputs_of = passes.RebuiltRun.inputs_of

    def counted(self, rows):
        read.append(self.store.views["clip"].iloc[rows[0]])
        return inputs_of(self, rows)

    monkeypatch.setattr(passes.RebuiltRun, "inputs_of", counted)
    again, _, _ = ablate(in_process, run, "task.sets=[kind,motion]", "task.doses=[10,50]")
    assert len(set(read)) == 1, "one clip is read again"
    pd.testing.assert_frame_equal(again, whole)
    done[5].write_bytes(b"")
    status, _, err = in_process(
        main,
        "task=ablate",
        f"runs=[{run}]",
        "task.random=20",
        "task.sets=[kind,motion]",
        "task.doses=[10,50]",
    )
    assert status == 2 and "000005.npy is damaged: remove this file" in err


def test_rows_of_other_stages_and_replacements_stay(run, in_process):
    ablate(in_process, run, *listed([1]), "task.examples=3")
    table, _, _ = ablate(in_process, run, *listed([2]), "task.replace=zero", "task.examples=3")
    assert table.index.get_level_values("replace").tolist() == ["mean"] * 4 + ["zero"] * 4
    assert (table["clips"] == 3).all()
    status, out, err = in_process(main, "task=report", f"runs=[{run}]")
    page = (run / "report.html").read_text()
    assert status == 0 and "Ablation" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["task.sets=[listed]"], "give for example task.units"),
        (["task.replace=nothing"], "task.replace=nothing"),
        (["stg=9"], "9"),
        (["task.data_root=nowhere"], "the videos of the run"),
        (["task.doses=[0]"], "task.doses=0"),
    ],
)
def test_bad_input_is_one_line(run, in_process, options, message):
    status, _, err = in_process(main, "task=ablate", f"runs=[{run}]", *options)
    assert status == 2 and message in err and "Traceback" not in err


def test_another_network_is_refused(run, in_process, monkeypatch):
    other = TwoRoutes()
    with torch.no_grad():
        other.mix += 1
    monkeypatch.setattr(routes, "TwoRoutes", lambda: other)
    status, _, err = in_process(main, "task=ablate", f"runs=[{run}]", *listed([1]))
    assert status == 2 and "was computed with other weights than pretrained: give checkpoint=FILE" in err


def test_other_frames_are_refused(run, in_process, tmp_path):
    root = shutil.copytree(read_manifest(run)["root"], tmp_path / "moved")
    frame = root / "style_1" / "v0" / "000004.png"
    frame.write_bytes((root / "style_2" / "v1" / "000001.png").read_bytes())
    options = ("task=ablate", f"runs=[{run}]", f"task.data_root={root}", *listed([1]))
    status, _, err = in_process(main, *options)
    assert status == 2 and "the pixels of clip v0" in err


def test_donors_of_every_kind():
    rows = [
        (clip, clip, style, altered, 0) for clip in ("a", "b") for style in (1, 2, 4) for altered in (0, 1)
    ]
    views = pd.DataFrame(rows, columns=["clip", "cluster", "style", "altered", "position"])
    assert donor_rows(views, "order", 1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]
    assert donor_rows(views, "style", 1).tolist()[:6] == [2, 3, 4, 5, 0, 1]
    assert donor_rows(views, "clip", 1).tolist() == [*range(6, 12), *range(6)]
    # a view without donor is left out
    assert donor_rows(views.drop(index=1), "order", 1).index.tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    with pytest.raises(UserError, match="no other video"):
        donor_rows(views[views["clip"] == "a"], "clip", 1)


def test_measures_of_masks():
    rng = np.random.default_rng(0)
    truth = np.zeros((8, 12), bool)
    truth[2:6, 3:9] = True
    table = pd.DataFrame({"style": [1, 1, 2, 2], "altered": [0, 1, 0, 1], "position": 0})
    views = ClipViews.of(table)
    assert views.orders == [(0, 1), (2, 3)] and views.styles == [(0, 2)] and views.forward.tolist() == [0, 2]
    views = ClipViews(views.forward, views.orders, views.styles, -1, [truth, truth])
    whole = np.where(truth, 0.9, 0.2)[None].repeat(4, 0).astype(np.float32)
    measures = MaskMeasures(None)
    same = dict(zip(measures.names, measures.measure(whole, whole, views), strict=True))
    assert same == {
        "divergence": 0, "kept": 1, "J": 1, "F": 1, "mIoU": 1, "order_change": 0, "style_change": 0
    }  # fmt: skip
    found = whole.copy()
    found[1] = 0.1  # the object is lost in the altered view of style 1
    changed = dict(zip(measures.names, measures.measure(whole, found, views), strict=True))
    assert changed["J"] == 1 and changed["kept"] == 0.75 and changed["order_change"] == 0.5
    p, q = whole[1].astype(float), found[1].astype(float)
    bits = (p * np.log2(p / q) + (1 - p) * np.log2((1 - p) / (1 - q))).mean() / 4
    assert changed["divergence"] == pytest.approx(bits, rel=1e-5)
    found = rng.random(whole.shape).astype(np.float32)
    one = measures.measure(whole, found, views)
    mask = found[[0, 2]] > 0.5
    iou = [(m & truth).sum() / (m | truth).sum() for m in mask]
    back = [(~m & ~truth).sum() / (~m | ~truth).sum() for m in mask]
    assert one[2] == pytest.approx(np.mean(iou)) and one[4] == pytest.approx(np.mean([iou, back]))


def test_accuracy_needs_labels():
    views = ClipViews.of(pd.DataFrame({"style": [1, 1], "altered": [0, 1], "position": 0}), label=2)
    scores = np.eye(4)[[2, 1]]
    names = ClassMeasures.names
    known = dict(zip(names, ClassMeasures(None, True).measure(scores, scores, views), strict=True))
    unknown = dict(zip(names, ClassMeasures(None, False).measure(scores, scores, views), strict=True))
    assert known["accuracy"] == 1 and np.isnan(unknown["accuracy"]) and np.isnan(known["style_bits"])
    assert known["divergence"] == 0 and known["top1_kept"] == 1 and known["order_bits"] > 0
