"""Networks of other packages and the user's own: stages against plain pooling, weights, inputs, refusals."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from static_dynamic import configs
from static_dynamic.errors import UserError
from static_dynamic.models import build_model, list_models
from static_dynamic.models.checkpoints import weights_file
from tests.models.toys import (
    CNN,
    HERE,
    INPUT,
    ChannelsLast,
    Diverged,
    Features,
    Frame,
    NoHead,
    Tokens,
    clip,
    custom,
)

ADAPTERS = ("custom", "huggingface", "pytorchvideo", "timm", "torchvision")


def test_outputs_that_are_class_scores():
    assert [custom(kind).classes for kind in (CNN, Tokens, ChannelsLast)] == [5, 5, 10]
    assert custom(Frame, feed="(b t) c h w").classes == 5
    assert custom(NoHead).classes is None and custom(Features).classes is None


def test_weights_are_those_of_the_wrapped_network(tmp_path):
    other = CNN()
    torch.save({"state_dict": other.state_dict()}, tmp_path / "cnn.pth")
    net = custom(CNN, checkpoint=tmp_path / "cnn.pth")
    assert list(net.state_dict()) == list(other.state_dict())
    x = clip(net)
    torch.testing.assert_close(net(x), other.eval()(x))
    torch.save({"state_dict": CNN(width=6).state_dict()}, tmp_path / "wide.pth")
    with pytest.raises(UserError, match=r"misshapen \(stem.weight"):
        custom(CNN, checkpoint=tmp_path / "wide.pth")
    same, another = custom(CNN, seed=3).state_dict(), custom(CNN, seed=4).state_dict()
    assert all(torch.equal(v, custom(CNN, seed=3).state_dict()[k]) for k, v in same.items())
    assert not torch.equal(same["stem.weight"], another["stem.weight"])
    assert not any(p.requires_grad for p in net.parameters()) and not net.training


def test_nan_in_a_package_s_own_weights_is_refused():
    with pytest.raises(
        UserError, match=r"Diverged\): the weights 'stem.weight' contain NaN: give other weights"
    ):
        custom(Diverged, checkpoint="pretrained")


def test_a_package_s_own_weights_have_a_file_that_names_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SD_CACHE", str(tmp_path))
    first, second = custom(CNN, checkpoint="pretrained"), custom(CNN, checkpoint="pretrained", seed=1)
    path = weights_file(first, "pretrained", "package")
    assert path.read_text().count("\n") == len(first.state_dict())
    assert path == weights_file(custom(CNN, checkpoint="pretrained"), "pretrained", "package")
    assert path != weights_file(second, "pretrained", "package")


def test_options_and_classes_are_passed_on():
    net = custom(CNN, num_classes=7, options={"width": 6})
    assert net.stages["layer1"].units == 6 and net(clip(net)).shape == (2, 7)
    with pytest.raises(
        UserError, match="num_classes=7: the pretrained weights of model=custom fix the number"
    ):
        custom(CNN, num_classes=7, checkpoint="pretrained")
    with pytest.raises(UserError, match="unexpected keyword argument 'depth'"):
        custom(CNN, options={"depth": 6})


def test_refusals_of_inputs_and_targets():
    with pytest.raises(UserError, match="does not run on a clip of 4 x 32 x 32"):
        custom(Frame)
    with pytest.raises(UserError, match="size=36 must be at least crop=64"):
        custom(CNN, input={**INPUT, "crop": 64})
    with pytest.raises(UserError, match="give model.input.mean, model.input.std"):
        custom(CNN, input={**INPUT, "mean": None, "std": None})
    for target in (f"{HERE}.CNNN", "no_such_package.function", "function"):
        with pytest.raises(UserError, match=f"model.target={target} cannot be imported"):
            build_model("custom", network=target)


def test_rows_are_adapters_and_no_networks_of_the_table():
    rows = {name: configs.row("model", name) for name in configs.rows("model") if name in ADAPTERS}
    assert sorted(rows) == sorted(ADAPTERS) and not set(ADAPTERS) & set(list_models())
    for name, row in rows.items():
        assert row.adapter and row.family == name
        with pytest.raises(UserError, match=f"model={name} needs the name of a network"):
            build_model(name)


@pytest.mark.parametrize("package", ["torchvision", "timm", "transformers", "pytorchvideo"])
def test_a_missing_package_is_one_line(package, monkeypatch):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for module in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    family = {"transformers": "huggingface"}.get(package, package)
    with pytest.raises(UserError) as caught:
        build_model(family, network="r3d_18")
    assert str(caught.value) == f"model={family} needs the package {package}: pip install {package}"


def stand_in(monkeypatch, name, **contents):
    """Put a module under a package's name, with the part of its documented interface that is used."""
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def torchvision(monkeypatch):
    """``torchvision.models`` with one network and its weights."""
    trained, asked = CNN(num_classes=3).state_dict(), {}

    def get_state_dict(**options):
        asked.update(options)
        return trained

    preset = {"crop_size": [32], "resize_size": [36, 48], "mean": [0.43] * 3, "std": [0.22] * 3}
    weights = SimpleNamespace(
        meta={"categories": ["a", "b", "c"]},
        transforms=lambda: SimpleNamespace(**preset),
        get_state_dict=get_state_dict,
    )

    def get_model(name, weights=None, num_classes=400, **options):
        assert weights is None  # else the package would unpickle a file
        return CNN(num_classes, **options)

    models = stand_in(
        monkeypatch,
        "torchvision.models",
        list_models=lambda: ["mvit_v1_b", "r3d_18"],
        get_model_weights=lambda name: SimpleNamespace(DEFAULT=weights),
        get_model=get_model,
    )
    stand_in(monkeypatch, "torchvision", models=models)
    return SimpleNamespace(trained=trained, asked=asked)


def test_torchvision(torchvision):
    net = build_model("torchvision", network="r3d_18", checkpoint="pretrained")
    assert torchvision.asked == {"check_hash": True, "weights_only": True}
    assert all(torch.equal(v, torchvision.trained[k]) for k, v in net.state_dict().items())
    spec = net.input_spec
    assert (spec.frames, spec.sampling_rate, spec.size, spec.crop, spec.fps) == (16, 2, (36, 48), 32, 30)
    assert spec.mean == (0.43,) * 3 and spec.std == (0.22,) * 3
    assert net(clip(net)).shape == (2, 3)
    untrained = build_model("torchvision", network="mvit_v1_b", options={"width": 6})
    assert untrained.input_spec.sampling_rate == 4 and untrained(clip(untrained)).shape == (2, 400)
    with pytest.raises(UserError, match="has no network 'r3d_17'; nearest known: r3d_18"):
        build_model("torchvision", network="r3d_17")


def test_timm_by_its_interface(monkeypatch):
    config = {
        "crop_mode": "center",
        "input_size": (3, 32, 32),
        "crop_pct": 0.81,
        "mean": (0.5,) * 3,
        "std": (0.2,) * 3,
    }
    stand_in(
        monkeypatch,
        "timm",
        list_models=lambda: ["resnet50"],
        create_model=lambda name, pretrained, **options: Frame(**options),
        data=SimpleNamespace(resolve_model_data_config=lambda module: config),
    )
    net = build_model("timm", network="resnet50.a1_in1k", num_classes=7)
    spec = net.input_spec
    assert (spec.frames, spec.size, spec.crop, spec.mean) == (8, 39, 32, (0.5,) * 3)
    assert net(clip(net)).shape == (2, 7)
    assert [tap.fold for stage in net.stages.values() for tap in stage.taps] == [8, 8]
    with pytest.raises(UserError, match="has no network 'resnet5'; nearest known: resnet50"):
        build_model("timm", network="resnet5")


def test_pytorchvideo_by_its_interface(monkeypatch):
    def x3d_xs(pretrained, model_num_class=400):
        assert not pretrained  # else the package would unpickle a file
        return CNN(model_num_class)

    trained, asked = CNN(num_classes=400).state_dict(), []

    def load_state_dict_from_url(url, **options):
        asked.append((url, options))
        return {"model_state": trained}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load_state_dict_from_url)
    monkeypatch.setattr(sys.modules[__name__], "checkpoint_paths", {"x3d_xs": "URL"}, raising=False)
    for name in ("pytorchvideo", "pytorchvideo.models"):
        stand_in(monkeypatch, name)
    stand_in(monkeypatch, "pytorchvideo.models.hub", x3d_xs=x3d_xs)
    net = build_model("pytorchvideo", network="x3d_xs", checkpoint="pretrained")
    assert asked == [("URL", {"map_location": "cpu", "weights_only": True})]
    assert all(torch.equal(v, trained[k]) for k, v in net.state_dict().items())
    assert (net.input_spec.frames, net.input_spec.sampling_rate, net.input_spec.crop) == (4, 12, 160)


# --- the packages themselves, where they are installed


@pytest.mark.parametrize(
    "network, stages",
    [
        ("r3d_18", ["stem", "layer1", "layer2", "layer3", "layer4"]),
        ("mvit_v2_s", [name for i in range(16) for name in (f"blocks.{i}", f"blocks.{i}/cls")]),
        ("swin3d_t", ["patch_embed", *(f"features.{i}" for i in range(7)), "norm"]),
    ],
)
def test_real_torchvision(network, stages):
    pytest.importorskip("torchvision.models", reason="torchvision is not installed", exc_type=ImportError)
    net = build_model("torchvision", network=network)
    assert list(net.stages) == stages
    if network == "swin3d_t":
        assert [s.units for s in net.stages.values()] == [96, 96, 192, 192, 384, 384, 768, 768, 768]
    if network == "r3d_18":
        rows = net.read(clip(net, 1), [*net.stages, "logits"])
        assert rows["layer4"].shape == (1, 512) and rows["logits"].shape == (1, 400)


@pytest.mark.parametrize(
    "network, stages, leading",
    [
        ("resnet18", ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"], 0),
        ("swin_tiny_patch4_window7_224", ["patch_embed", *(f"layers.{i}" for i in range(4)), "norm"], 0),
        ("vit_tiny_patch16_224", [n for i in range(12) for n in (f"blocks.{i}", f"blocks.{i}/cls")], 1),
        ("vit_small_patch14_reg4_dinov2", None, 5),
    ],
)
def test_real_timm(network, stages, leading):
    pytest.importorskip("timm", reason="timm (or torchvision, for it) is not installed", exc_type=ImportError)
    net = build_model("timm", network=network)
    assert stages is None or list(net.stages) == stages
    first = next(iter(net.stages.values())).taps[0]
    assert (first.fold, first.skip) == (8, leading)
    assert net.classes == (None if network.endswith("dinov2") else 1000)


def test_real_pytorchvideo():
    pytest.importorskip(
        "pytorchvideo.models.hub", reason="pytorchvideo is not installed", exc_type=ImportError
    )
    net = build_model("pytorchvideo", network="slowfast_r50")
    assert {name: stage.units for name, stage in net.stages.items()} == {
        f"blocks.{i}": units for i, units in enumerate((88, 352, 704, 1408, 2304))
    }
    slow, fast = net.prepare(torch.empty(1, 3, 32, 8, 8))
    assert slow.shape[2] == 8 and fast.shape[2] == 32


def test_a_package_that_does_not_go_with_this_torch_is_one_line(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist\n...")

    for module in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(UserError, match=r"with torch .* \(operator torchvision::nms does not exist\)"):
        build_model("torchvision", network="r3d_18")


def test_the_package_that_does_not_fit_torch_is_named(tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text("import torchvision")
    (tmp_path / "torchvision.py").write_text("import torch\ntorch.ops.torchvision.nms(1)")
    for module in [m for m in sys.modules if m.partition(".")[0] in ("timm", "torchvision")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="timm cannot be imported .*: install the version of torchvision for"):
        build_model("timm", network="resnet50")
