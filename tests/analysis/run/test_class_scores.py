"""Class scores are read with the stages: rows, resumed and older runs, shards, labels, reasons for none."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from static_dynamic.analysis.run.class_scores import class_scores_of, same_classes
from static_dynamic.analysis.run.extraction import extract
from static_dynamic.analysis.run.forward import Reader
from static_dynamic.analysis.run.shards import merge_shards
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.tasks import profile
from static_dynamic.configs import row
from static_dynamic.datasets import list_clips, make_views
from static_dynamic.models import build_model
from static_dynamic.models.cost import operations_after_stages
from tests.analysis.manifests import edit_manifest, forget_checks, small_manifest
from tests.analysis.run.test_extraction import OrderBlind, T, contents, planted_clips
from tests.analysis.run.test_shards import asked, bytes_of, undrawn
from tests.datasets.test_loader import dataset
from tests.models.toys import CNN, custom

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def whole(stylized, tmp_path, monkeypatch):
    """A run of the main job: (arguments, folder)."""
    undrawn(monkeypatch)
    arguments = [f"stylized_data_dir={stylized}", "orders=[forward,shuffled,reversed]"]
    return arguments, profile.run(asked(*arguments, f"save_dir={tmp_path / 'whole'}"))


def forget_class_scores(folder, *, done):
    """Make a run one of an earlier version, without class scores; only the first `done` views are done."""
    forget_checks(folder)
    edit_manifest(folder, class_scores=None)
    for name in ("activations/logits.npy", "behaviour.csv", "layers.csv"):
        (folder / name).unlink(missing_ok=True)
    store = Store(folder, "r+")
    store.status[done:] = 0
    for stage in store.stages:
        store.activations(stage)[done:] = np.nan


def test_the_class_scores_of_each_view_are_those_of_the_network(whole, monkeypatch, stylized, tmp_path):
    _, folder = whole
    store = Store.open(folder)
    assert store.manifest["class_scores"] == {"classes": 400, "labelled": False}
    assert "logits" not in store.stages and store.activations("logits").shape == (len(store.views), 400)
    net = build_model("x3d_xs", seed=1).eval()
    clips = list_clips(dataset(stylized), (1, 2))
    for number in (0, 5, len(store.views) - 1):
        view = store.views.iloc[number]
        frames = torch.from_numpy(clips.frames_of(view["video"], view["style"]).read(view["frames_rgb"]))
        x = torch.nn.functional.interpolate(frames.permute(0, 3, 1, 2) / 255, (40, 40), mode="bilinear")
        x = (x[..., 4:36, 4:36] - 0.45) / 0.225
        expected = net(x.permute(1, 0, 2, 3)[None])[0].numpy()
        found = store.activations("logits")[number]
        assert np.corrcoef(found - expected.mean(), expected - expected.mean())[0, 1] > 0.99


def test_stages_and_passes_are_as_without_class_scores(tmp_path):
    root = planted_clips(tmp_path / "set", clips=5, styles=(1, 2))

    class Counted(OrderBlind):
        passes = 0

        def forward(self, x):
            Counted.passes += 1
            return super().forward(x)

    passes = []
    for name, entry in (("with", {"classes": 4, "labelled": False}), ("without", {"reason": "none"})):
        Counted.passes = 0
        store = read(Counted(), root, tmp_path / name, entry)
        passes.append(Counted.passes)
    assert passes[0] == passes[1] > 1
    ours, theirs = (contents(tmp_path / name / "activations") for name in ("with", "without"))
    assert ours.pop("logits.npy") and ours == theirs
    scores = Store.open(tmp_path / "with").activations("logits")
    np.testing.assert_allclose(scores, store.activations("stage2"), rtol=1e-5)  # here both are the same means


def read(net, root, folder, entry, **options):
    """Extract as the main job does, with the entry ``class_scores`` of the manifest."""
    clips = list_clips(dataset(root), (1, 2))
    views, pairs = make_views(clips.clips, (1, 2), net.input_spec.pathways, n_sample_frames=T, seed=1)
    stages = {name: {"units": s.units, "stream": s.stream} for name, s in net.stages.items()}
    manifest = small_manifest(stages, views, {"seed": 1}, class_scores=entry)
    store = Store.create_or_resume(folder, manifest, views, pairs)
    options = {"device": torch.device("cpu"), "batch_size": 6, "num_workers": 0} | options
    extract(net.eval(), clips, views, store, **options)
    return store


class Masked(OrderBlind):
    """The score of the last class is minus infinity, and that of the first is NaN for bright clips."""

    def forward(self, x):
        scores = super().forward(x).clone()
        scores[:, 3] = -torch.inf
        scores[x.mean(dim=(1, 2, 3, 4)) > 0, 0] = torch.nan
        return scores


def test_class_scores_that_are_not_finite_stop_nothing(tmp_path):
    root = planted_clips(tmp_path / "set", clips=5, styles=(1, 2))
    store = read(Masked(), root, tmp_path / "run", {"classes": 4, "labelled": False})
    scores = store.activations("logits")
    assert (store.status == 1).all() and np.isneginf(scores[:, 3]).all()
    assert 0 < np.isnan(scores[:, 0]).sum() < len(scores)


def test_a_view_that_is_skipped_has_no_class_scores(tmp_path):
    root = planted_clips(tmp_path / "set", clips=5, styles=(1, 2))
    (root / "style_2" / "clip002" / "000003.png").write_bytes(b"not an image")
    entry = {"classes": 4, "labelled": False}
    store = read(OrderBlind(), root, tmp_path / "run", entry, on_error="skip")
    missing = np.isnan(store.activations("logits")).all(axis=1)
    assert missing.sum() == 2 and (missing == (store.status == 2)).all()


@pytest.mark.parametrize("done", [0, 7])
def test_a_run_that_an_earlier_version_began_goes_on_without_class_scores(whole, tmp_path, caplog, done):
    arguments, folder = whole
    old = shutil.copytree(folder, tmp_path / "old" / folder.relative_to(tmp_path / "whole"))
    forget_class_scores(old, done=done)
    caplog.set_level("INFO")
    assert profile.run(asked(*arguments, f"save_dir={tmp_path / 'old'}")) == old
    lines = [line for line in caplog.messages if "behaviour.csv" in line]
    assert lines == [
        "behaviour.csv is left out, because there are no class scores: an earlier version of this program "
        "began the run"
    ]
    ours, theirs = bytes_of(folder), bytes_of(old)
    assert set(ours) - set(theirs) - {"inputs.parquet"} == {
        "activations/logits.npy",
        "behaviour.csv",
        "checksums.npy",
        "pixels.npy",
    }
    assert all(
        ours[name] == data for name, data in theirs.items() if name not in ("manifest.json", "SHA256SUMS")
    )


def test_a_shard_that_an_earlier_version_began_is_merged_without_class_scores(whole, tmp_path):
    arguments, folder = whole
    save = f"save_dir={tmp_path / 'shards'}"
    shards = [profile.run(asked(*arguments, save, "shards=2", f"shard={k}")) for k in (0, 1)]
    merge_shards(tmp_path / "new", shards)
    stored = (tmp_path / "new" / "activations" / "logits.npy").read_bytes()
    assert stored == (folder / "activations" / "logits.npy").read_bytes()
    forget_class_scores(shards[1], done=99)
    merge_shards(tmp_path / "merged", shards)
    merged = Store.open(tmp_path / "merged")
    assert merged.names == list(merged.stages) and "class_scores" not in merged.manifest
    for stage in merged.stages:
        np.testing.assert_array_equal(merged.activations(stage), Store.open(folder).activations(stage))


def test_compiled_networks_yield_class_scores(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    net = OrderBlind().eval()
    reader = Reader(net, [*net.stages, "logits"], torch.device("cpu"))
    reader.use("compile")
    x = torch.randn(3, 3, T, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(reader.read(x)["logits"], net(x))


def test_reasons_for_no_class_scores():
    cfg = asked()
    vos = build_model("fusionseg")
    assert class_scores_of(cfg, vos, None, True) == {"reason": "the network has no class scores"}
    late, early = custom(CNN), custom(CNN, stages=["stem"])
    early.net.layer1[0].conv = torch.nn.Conv3d(4, 4, 9, padding=4)
    after, total = operations_after_stages(late)
    assert after == 2 * 4 * 5 and total > 1000 * after  # the linear layer
    clips = SimpleNamespace(classes=0)
    assert class_scores_of(cfg, late, clips, True) == {"classes": 5, "labelled": False}
    after, total = operations_after_stages(early)
    assert 0.9 < after / total < 1
    reason = class_scores_of(cfg, early, clips, True)["reason"]
    assert reason == f"{after / total:.0%} of the network's operations come after the deepest stage"
    late.stages["logits"] = late.stages["stem"]
    assert "a stage has the name logits" in class_scores_of(cfg, late, clips, True)["reason"]


@pytest.mark.parametrize(
    "annotated, options, trained, labelled",
    [
        (5, ["+dataset.num_classes=5"], True, True),
        (5, ["+dataset.num_classes=5"], False, False),  # random weights
        (5, ["+dataset.num_classes=5", "drop_head=true"], True, False),  # random classifier
        (5, [], True, False),  # class folders may be numbered in another way than the network's classes
        (3, ["+dataset.num_classes=5"], True, False),  # the list names some classes only
        (5, ["+dataset.num_classes=7"], True, False),  # a pretrained network of another data set
        (0, ["+dataset.num_classes=5"], True, False),  # no labels
    ],
)
def test_labels_are_used_where_class_numbers_are_the_networks(annotated, options, trained, labelled):
    clips, net = SimpleNamespace(classes=annotated), SimpleNamespace(classes=5)
    assert same_classes(asked(*options), net, clips, trained) == labelled


def test_the_annotations_number_the_classes(tmp_path, stylized):
    assert list_clips(dataset(stylized), (1, 2)).classes == 0
    for style in (1, 2):
        for clip in range(4):
            folder = tmp_path / "classes" / f"style_{style}" / "abc"[clip % 3]
            shutil.copytree(stylized / f"style_{style}" / f"clip{clip}", folder / str(clip))
    assert list_clips(dataset(tmp_path / "classes"), (1, 2)).classes == 3
    kinetics = row("dataset", "Kinetics")
    kinetics.root = tmp_path / "classes"
    kinetics.subset = "static"
    lines = ["label,youtube_id,time_start,time_end", "yoga,0,0,1", "abseiling,x,0,1", "zumba,y,0,1"]
    (tmp_path / "classes" / "val.csv").write_text("\n".join(lines))
    for style in (1, 2):
        shutil.copytree(stylized / f"style_{style}" / "clip0", tmp_path / "classes" / f"style_{style}" / "0")
    found = list_clips(kinetics, (1, 2))
    assert [clip.label for clip in found.clips] == [1] and found.classes == 3  # also classes of other subsets
