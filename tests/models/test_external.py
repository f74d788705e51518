"""Networks of other packages and the user's own: stages against plain pooling, weights, inputs, refusals."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from static_dynamic import configs
from static_dynamic.errors import UserError
from static_dynamic.models import build_model, list_models
from static_dynamic.models.checkpoints import weights_file
from static_dynamic.models.stage_discovery import find_candidates, layout_of

ADAPTERS = ("custom", "huggingface", "pytorchvideo", "timm", "torchvision")
HERE = __name__
INPUT = {
    "frames": 4,
    "sampling_rate": 2,
    "size": 36,
    "crop": 32,
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
}


class CNN(nn.Module):
    """Stem, two layers of two blocks, a pool, a head; one ReLU for all blocks."""

    def __init__(self, num_classes=5, width=4):
        super().__init__()
        self.stem = nn.Conv3d(3, width, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Block(width, self.relu), Block(width, self.relu))
        self.down = nn.MaxPool3d(2)
        self.layer2 = nn.Sequential(Block(width, self.relu), Block(width, self.relu))
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.layer2(self.down(self.layer1(self.relu(self.stem(x)))))
        return self.head(self.pool(x).flatten(1))


class Block(nn.Module):
    def __init__(self, width, relu):
        super().__init__()
        self.conv, self.relu = nn.Conv3d(width, width, 3, padding=1), relu

    def forward(self, x):
        return x + self.relu(self.conv(x))


class Tokens(nn.Module):
    """A class token in front of patches of 2 x 8 x 8; attention over time inside a block folds places."""

    def __init__(self, depth=3, width=6):
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.patches = nn.Conv3d(3, width, (2, 8, 8), (2, 8, 8))
        self.blocks = nn.ModuleList(TokenBlock(width) for _ in range(depth))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = rearrange(self.patches(x), "b c t h w -> b (h w t) c")
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x, _ = block(x)
        return {"logits": self.head(x[:, 0]), "tokens": x}


class TokenBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.over_time, self.mlp = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        places = self.over_time(rearrange(x[:, 1:], "b (n t) c -> (b n) t c", t=2))
        x = torch.cat([x[:, :1], rearrange(places, "(b n) t c -> b (n t) c", b=len(x))], dim=1)
        return x + self.mlp(x), "attention"


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv3d(3, 6, (1, 8, 8), (1, 8, 8))
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 10))

    def forward(self, x):
        return self.layers(rearrange(self.patches(x), "b c t h w -> b t h w c")).mean(dim=(1, 2, 3))


class Frame(nn.Module):
    """An image network: (B, 3, H, W)."""

    def __init__(self, num_classes=5):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.fc = nn.Linear(6, num_classes)

    def forward(self, x):
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean(dim=(2, 3)))


class TwoPathways(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage = Split()

    def forward(self, pathways):
        return torch.cat([x.mean(dim=(2, 3, 4)) for x in self.stage(pathways)], dim=1)


class Split(nn.Module):
    def __init__(self):
        super().__init__()
        self.slow, self.fast = nn.Conv3d(3, 4, 1), nn.Conv3d(3, 2, 1)

    def forward(self, pathways):
        return [self.slow(pathways[0]), self.fast(pathways[1])]


class TimeFirst(nn.Module):
    """Tokens before clips: (N, B, C), which no stage can be read from."""

    def __init__(self):
        super().__init__()
        self.patches, self.mix = nn.Conv3d(3, 6, (2, 8, 8), (2, 8, 8)), nn.Linear(6, 6)

    def forward(self, x):
        return self.mix(rearrange(self.patches(x), "b c t h w -> (t h w) b c")).mean(dim=0)


class NoHead(CNN):
    """The output is the feature maps of the last layer."""

    def forward(self, x):
        return self.layer2(self.down(self.layer1(self.relu(self.stem(x)))))


class Features(CNN):
    """The output is a row of features per clip, as of timm's networks without a classifier."""

    num_classes = 0


def custom(kind, **options):
    return build_model("custom", **{"network": f"{HERE}.{kind.__name__}", "input": INPUT, **options})


def clip(net, batch=2):
    spec = net.input_spec
    shape = (batch, 3, spec.frames, spec.crop, spec.crop)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def outputs_of(net, inputs):
    """What every module of the wrapped network returns, by plain hooks."""
    seen = {}
    handles = [
        module.register_forward_hook(lambda m, i, o, path=path: seen.update({path: o}))
        for path, module in net.net.named_modules()
    ]
    with torch.inference_mode():
        net(inputs)
    for handle in handles:
        handle.remove()
    return seen


def test_cnn_is_read_at_its_top_level():
    net = custom(CNN)
    assert list(net.stages) == ["stem", "layer1", "layer2"]
    x = clip(net)
    rows, seen = net.read(x, [*net.stages, "logits"]), outputs_of(net, x)
    for name in ("layer1", "layer2"):  # the stem's output is changed in place behind it
        torch.testing.assert_close(rows[name], seen[name].double().mean(dim=(2, 3, 4)).float())
    torch.testing.assert_close(rows["stem"], net.net.stem(x).mean(dim=(2, 3, 4)))
    torch.testing.assert_close(rows["logits"], seen[""])
    assert net.stage_name(None) == "layer2" and net.stage_name("layer1") == "layer1"


@pytest.mark.parametrize(
    "patterns, expected",
    [
        (["layer2", "stem"], ["stem", "layer2"]),  # in depth order
        (["layer1.*"], ["layer1.0", "layer1.1"]),  # one part of a path
        (["layer?.1.conv"], ["layer1.1.conv", "layer2.1.conv"]),
        ("head", ["head"]),
    ],
)
def test_stages_by_path_or_pattern(patterns, expected):
    assert list(custom(CNN, stages=patterns).stages) == expected


@pytest.mark.parametrize(
    "kind, patterns, line",
    [
        (CNN, ["layer3"], "the network runs no module 'layer3'; nearest known: layer"),
        (CNN, ["relu"], "'relu' cannot be read, because the module runs 5 times"),
        (TimeFirst, ["mix"], "'mix' cannot be read, because the module has an output without a batch axis"),
    ],
)
def test_stages_that_are_not_there(kind, patterns, line):
    with pytest.raises(UserError, match=line):
        custom(kind, stages=patterns)


def test_tokens_are_read_without_the_class_token_which_has_a_stage_of_its_own():
    net = custom(Tokens)
    blocks = ["blocks.0", "blocks.1", "blocks.2"]
    assert list(net.stages) == [name for block in blocks for name in (block, f"{block}/cls")]
    assert net.shown_stages() == blocks and net.stage_name(None) == "blocks.2"
    x = clip(net)
    rows, seen = net.read(x, [*net.stages, "logits"]), outputs_of(net, x)
    for block in blocks:
        tokens = seen[block][0]  # (B, 1 + 32, C)
        assert tokens.shape[1] == 33
        torch.testing.assert_close(rows[block], tokens[:, 1:].mean(dim=1))
        torch.testing.assert_close(rows[f"{block}/cls"], tokens[:, 0])
    torch.testing.assert_close(rows["logits"], seen[""]["logits"])


def test_places_folded_into_the_batch_are_averaged_clip_by_clip():
    net = custom(Tokens, stages=["blocks.0.over_time", "blocks.0.mlp"])
    # attention over time sees no class token, so that there is none to leave out
    assert list(net.stages) == ["blocks.0.over_time", "blocks.0.mlp", "blocks.0.mlp/cls"]
    x = clip(net)
    folded = outputs_of(net, x)["blocks.0.over_time"]  # (B * 16, 2, C)
    assert folded.shape[:2] == (32, 2)
    expected = torch.stack([folded[:16].mean(dim=(0, 1)), folded[16:].mean(dim=(0, 1))])
    torch.testing.assert_close(net.read(x, ["blocks.0.over_time"])["blocks.0.over_time"], expected)


def test_leading_tokens_may_be_said():
    assert "blocks.0/cls" not in custom(Tokens, leading_tokens=0).stages


def test_channels_last_is_told_by_the_square_axes():
    net = custom(ChannelsLast)
    assert {name: stage.units for name, stage in net.stages.items()} == {
        "patches": 6,
        "layers.0": 8,
        "layers.1": 10,
    }
    x = clip(net)
    expected = outputs_of(net, x)["layers.0"].mean(dim=(1, 2, 3))
    torch.testing.assert_close(net.read(x, ["layers.0"])["layers.0"], expected)
    # as the user says
    assert custom(ChannelsLast, layout="maps").stages["layers.0"].units == 4


@pytest.mark.parametrize(
    "shape, frame, layout",
    [
        ((1, 5), (32, 32), "maps"),
        ((1, 9, 5), (32, 32), "tokens"),
        ((8, 5, 7, 7), (32, 32), "maps"),
        ((8, 7, 7, 5), (32, 32), "channels_last"),
        ((1, 5, 4, 7, 7), (32, 32), "maps"),
        ((1, 4, 7, 7, 5), (32, 32), "channels_last"),
        ((1, 3, 9, 5), (32, 32), None),  # heads
        ((1, 256, 30, 54), (480, 854), "maps"),
        ((1, 30, 54, 256), (480, 854), "channels_last"),
    ],
)
def test_layouts(shape, frame, layout):
    assert layout_of(shape, frame) == layout


def test_frame_by_frame_is_blind_to_order():
    net = custom(Frame, feed="(b t) c h w")
    assert list(net.stages) == ["conv1", "conv2"]
    x = clip(net)
    rows = net.read(x, [*net.stages, "logits"])
    by_frame = torch.stack([net.net(x[:, :, t]) for t in range(4)]).mean(dim=0)
    torch.testing.assert_close(rows["logits"], by_frame)
    torch.testing.assert_close(
        rows["conv1"], torch.stack([net.net.conv1(x[:, :, t]).mean(dim=(2, 3)) for t in range(4)]).mean(dim=0)
    )
    shuffled = net.read(x[:, :, [2, 0, 3, 1]], [*net.stages, "logits"])
    for name, values in rows.items():
        torch.testing.assert_close(shuffled[name], values)


def test_pathways_side_by_side():
    net = custom(TwoPathways, input={**INPUT, "pathways": {"slow": 2, "fast": 4}}, stages=["stage"])
    slow, fast = net.prepare(clip(net))
    assert slow.shape[2] == 2 and torch.equal(fast, clip(net)) and torch.equal(slow[:, :, 1], fast[:, :, 3])
    rows = net.read([slow, fast], ["stage"])["stage"]
    expected = [net.net.stage.slow(slow).mean(dim=(2, 3, 4)), net.net.stage.fast(fast).mean(dim=(2, 3, 4))]
    torch.testing.assert_close(rows, torch.cat(expected, dim=1))


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


class Diverged(CNN):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.stem.weight.data[0] = torch.nan


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
    assert (spec.frames, spec.sampling_rate, spec.size, spec.crop, spec.fps) == (16, 2, 36, 32, 30)
    assert spec.mean == (0.43,) * 3 and spec.std == (0.22,) * 3
    assert net(clip(net)).shape == (2, 3)
    untrained = build_model("torchvision", network="mvit_v1_b", options={"width": 6})
    assert untrained.input_spec.sampling_rate == 4 and untrained(clip(untrained)).shape == (2, 400)
    with pytest.raises(UserError, match="has no network 'r3d_17'; nearest known: r3d_18"):
        build_model("torchvision", network="r3d_17")


def test_timm_by_its_interface(monkeypatch):
    config = {"input_size": (3, 32, 32), "crop_pct": 0.8, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    stand_in(
        monkeypatch,
        "timm",
        list_models=lambda: ["resnet50"],
        create_model=lambda name, pretrained, **options: Frame(**options),
        data=SimpleNamespace(resolve_model_data_config=lambda module: config),
    )
    net = build_model("timm", network="resnet50.a1_in1k", num_classes=7)
    spec = net.input_spec
    assert (spec.frames, spec.size, spec.crop, spec.mean) == (8, 40, 32, (0.5,) * 3)
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
    monkeypatch.setattr(sys.modules[HERE], "checkpoint_paths", {"x3d_xs": "URL"}, raising=False)
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


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed")


SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 5,
}
CLIP = {"image_size": 32, "num_frames": 4}
# kind -> arguments of its config, and whether it has a class token
HUGGINGFACE = {
    "Timesformer": (CLIP | {"patch_size": 8}, True),
    "VideoMAE": (CLIP | {"patch_size": 8}, False),
    "Vivit": (CLIP | {"tubelet_size": [2, 8, 8]}, True),
    "VJEPA2": (
        {"crop_size": 32, "patch_size": 8, "frames_per_clip": 4, "mlp_ratio": 2}
        | {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
        False,
    ),
}


def save(transformers, folder: Path, kind: str, *, head: bool, preprocessor: bool = True) -> nn.Module:
    """A small network with random weights, saved as the hub has it."""
    config = getattr(transformers, f"{kind}Config")(**SMALL, **HUGGINGFACE[kind][0])
    torch.manual_seed(0)
    suffix = "ForVideoClassification" if head else "Model"
    net = getattr(transformers, kind + suffix)(config).eval()
    net.save_pretrained(folder)
    if preprocessor:
        said = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "size": {"shortest_edge": 40}}
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return net


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", HUGGINGFACE)
def test_huggingface(transformers, tmp_path, kind, head):
    theirs = save(transformers, tmp_path, kind, head=head)
    net = build_model("huggingface", network=str(tmp_path), checkpoint="pretrained")
    spec = net.input_spec
    assert (spec.frames, spec.size, spec.crop, spec.mean) == (4, 40, 32, (0.4,) * 3)
    x = clip(net)
    rows = net.read(x, [*net.stages, "logits"])
    with torch.inference_mode():
        outputs = theirs(x.transpose(1, 2), output_hidden_states=True)
    has_class = HUGGINGFACE[kind][1]
    blocks = net.shown_stages()
    assert len(blocks) == 3 and len(net.stages) == (6 if has_class else 3)
    # hidden states: the embeddings, then what each block returns (VJEPA2's last is behind the last norm)
    for block, tokens in list(zip(blocks, outputs.hidden_states[1:], strict=True))[:2]:
        torch.testing.assert_close(rows[block], tokens[:, int(has_class) :].mean(dim=1))
        if has_class:
            torch.testing.assert_close(rows[f"{block}/cls"], tokens[:, 0])
    assert net.classes == (outputs.logits.shape[1] if head else None)
    if head:
        torch.testing.assert_close(rows["logits"], outputs.logits)
    # the same weights as a file, whose keys may be those of an older version of the package
    from_file = build_model("huggingface", network=str(tmp_path), checkpoint=tmp_path / "model.safetensors")
    assert all(torch.equal(v, from_file.state_dict()[k]) for k, v in net.state_dict().items())
    untrained = build_model("huggingface", network=str(tmp_path), num_classes=7, seed=5)
    key = next(k for k, v in net.state_dict().items() if v.dim() > 1 and v.std() > 0)
    assert not torch.equal(untrained.state_dict()[key], net.state_dict()[key])


def test_huggingface_refusals(transformers, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"model=huggingface \(.*nowhere\)"):
        build_model("huggingface", network=str(tmp_path / "nowhere"))
    save(transformers, tmp_path, "VideoMAE", head=False, preprocessor=False)
    with pytest.raises(UserError, match="does not declare its preprocessing: give model.input.mean"):
        build_model("huggingface", network=str(tmp_path))
    said = {"mean": [0.5] * 3, "std": [0.2] * 3}
    assert build_model("huggingface", network=str(tmp_path), input=said).input_spec.crop == 32
    # the encoder's weights alone do not make a classifier
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["VideoMAEForVideoClassification"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="do not fit VideoMAEForVideoClassification: .* missing keys"):
        build_model("huggingface", network=str(tmp_path), input=said, checkpoint="pretrained")


def test_huggingface_where_no_package_datasets_is_installed(transformers, tmp_path):
    # transformers then finds the checkout's folder; test_user_packages.py covers an installed package
    found = importlib.util.find_spec("datasets").origin
    assert Path(found) == Path(configs.__file__).parents[1] / "datasets" / "__init__.py"
    save(transformers, tmp_path, "Timesformer", head=True)
    assert build_model("huggingface", network=str(tmp_path), checkpoint="pretrained").stages


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


def test_candidates_come_in_the_order_of_execution():
    found = find_candidates(custom(CNN))
    paths = list(found)
    assert paths[0] == "net.stem" and paths[-1] == "net"
    assert paths.index("net.layer1.0.conv") < paths.index("net.layer1") < paths.index("net.layer2.0.conv")
    assert found["net.relu"].reason == "runs 5 times" and not found["net.relu"].taps
    assert [candidate.depth for candidate in found.values()] == list(range(len(found)))
