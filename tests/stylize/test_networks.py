"""The stylizer's networks against golden outputs of the original's, and their files."""

import json
import os
import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from static_dynamic.errors import UserError
from static_dynamic.stylize import build_generator, load_generator
from static_dynamic.stylize.checkpoints import save_generator
from static_dynamic.stylize.features import NeighbourDifferences, VGGFeatures, build_features
from static_dynamic.stylize.networks import Discriminator, stylize_any_size
from tests.keyed import keyed_image, keyed_state_dict
from tests.paths import GOLDEN

WHOLE_MODULE = GOLDEN / "fspbt_tiny_whole_module.pth"


def golden(name):
    return torch.load(GOLDEN / f"fspbt_{name}.pt", weights_only=True)


def keys(net):
    return [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in net.state_dict().items()]


def built(name):
    stored = golden(name)
    net = build_generator(**stored["args"])
    net.load_state_dict(keyed_state_dict(stored["name"], net.state_dict()))
    return stored, net


def image(case):
    return keyed_image(case["input_tag"], case["input_shape"]).clamp(-1, 1)


@pytest.mark.parametrize("name", ["tiny", "generator_F"])
def test_generator_is_the_original(name):
    stored, net = built(name)
    assert keys(net) == stored["keys"]
    assert sum(p.numel() for p in net.parameters()) == stored["n_params"]
    for case in stored["cases"]:
        training = case["tag"] == "train_forward"
        net.train(training)
        # Statistics of one batch magnify rounding: instruction sets differ by 9e-6 in training
        with torch.no_grad():
            assert torch.allclose(net(image(case)), case["output"], atol=3e-5 if training else 1e-6)
        # in training conv2's running statistics move twice
        for key, value in case.get("buffers_after", {}).items():
            assert torch.allclose(net.state_dict()[key], value, atol=1e-6), key


def test_discriminator_is_the_original():
    stored = golden("discriminator")
    net = Discriminator(**stored["args"])
    assert keys(net) == stored["keys"]
    net.load_state_dict(keyed_state_dict(stored["name"], net.state_dict()))
    (case,) = stored["cases"]
    assert torch.allclose(net(keyed_image(case["input_tag"], case["input_shape"])), case["output"], atol=1e-6)


@pytest.mark.parametrize("size", [(64, 96), (61, 94), (5, 7), (3, 2), (1, 1)])
def test_any_size(size):
    _, net = built("tiny")
    x = keyed_image("odd", (2, 3, *size)).clamp(-1, 1)
    with torch.no_grad():
        y = stylize_any_size(net.eval(), x)
    assert y.shape == x.shape
    if size == (64, 96):
        assert torch.equal(y, net(x))


def test_whole_module_of_the_original_loads():
    net = load_generator(WHOLE_MODULE)
    case = golden("tiny")["cases"][0]
    with torch.no_grad():
        assert torch.allclose(net(image(case)), case["output"], atol=1e-6)
    assert not net.training


@pytest.fixture
def old_module(monkeypatch):
    """A module ``models`` with classes of the original's names, as whoever wrote a checkpoint had it."""
    fake = types.ModuleType("models")
    for name in ("GeneratorJ", "UpsamplingLayer", "Spy"):
        setattr(fake, name, type(name, (nn.Module,), {"__module__": "models"}))
    monkeypatch.setitem(sys.modules, "models", fake)
    return fake


def as_original(net, cls):
    whole = cls()
    for name, child in net.named_children():
        if name == "resnets":
            blocks = (nn.Sequential() for _ in child)
            child = nn.ModuleList(blocks)
            for block, ours in zip(child, net.resnets, strict=True):
                for part, layer in ours.named_children():
                    block.add_module(part, layer)
        whole.add_module(name, child)
    return whole


@pytest.mark.parametrize("zipped", [True, False])
def test_both_forms_of_whole_modules_load(tmp_path, old_module, zipped):
    _, net = built("tiny")
    path = tmp_path / "model_00001.pth"
    whole = as_original(net, old_module.GeneratorJ)
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    loaded = load_generator(path)
    assert loaded.config == net.config
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in loaded.state_dict().items())


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_any_other_class_is_refused_by_name_and_nothing_runs(tmp_path, old_module, zipped):
    _, net = built("tiny")
    whole = as_original(net, old_module.GeneratorJ)
    for value, name in (
        (Malicious(tmp_path / "it_ran"), r"(posix|nt|os)\.system"),
        (old_module.Spy(), r"models\.Spy"),
    ):
        whole.extra = value
        torch.save(whole, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(UserError, match=rf"evil.pth was refused: the file contains {name}"):
            load_generator(tmp_path / "evil.pth")
        assert not (tmp_path / "it_ran").exists()
        del whole.extra


def test_a_script_is_refused(tmp_path):
    _, net = built("tiny")
    torch.jit.trace(net.eval(), torch.zeros(1, 3, 8, 8)).save(tmp_path / "script.pth")
    with pytest.raises(UserError, match="script.pth was refused: the file contains a TorchScript program"):
        load_generator(tmp_path / "script.pth")


@pytest.mark.parametrize("half", [False, True])
def test_saved_generators_come_back(tmp_path, half):
    net = build_generator((4, 8, 12, 12, 10, 6), 2, 9, append_smoothers=False, tanh=False)
    save_generator(net, tmp_path / "g.safetensors", half=half)
    loaded = load_generator(tmp_path / "g.safetensors")
    assert loaded.config == net.config
    own = net.state_dict()
    assert all(torch.allclose(v, own[k], atol=1e-3 if half else 0) for k, v in loaded.state_dict().items())


def test_a_state_dict_says_the_arguments_by_its_shapes(tmp_path):
    net = build_generator((4, 8, 12, 12, 10, 6), 2, 6)
    for name, content in (("a.pth", net.state_dict()), ("b.pth", {"state_dict": net.state_dict()})):
        torch.save(content, tmp_path / name)
        assert load_generator(tmp_path / name).config == net.config
    save_file(net.state_dict(), tmp_path / "c.safetensors")
    assert load_generator(tmp_path / "c.safetensors").config == net.config


def test_files_that_are_no_generator_are_said(tmp_path):
    (tmp_path / "page.pth").write_text("<html>")
    (tmp_path / "cut.pth").write_bytes(WHOLE_MODULE.read_bytes()[:50_000])
    torch.save({"w": torch.zeros(2)}, tmp_path / "other.pth")
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name in ("page.pth", "cut.pth"):
        with pytest.raises(UserError, match=f"{name} is damaged"):
            load_generator(tmp_path / name)
    for name in ("other.pth", "other.safetensors"):
        with pytest.raises(UserError, match=f"{name} holds no stylization generator"):
            load_generator(tmp_path / name)
    with pytest.raises(UserError, match="does not exist"):
        load_generator(tmp_path / "none.pth")


def test_damage_and_wrong_numbers_of_a_generator_are_noticed(tmp_path):
    path = tmp_path / "g.safetensors"
    save_generator(build_generator((4, 8, 8, 8, 8, 6), 1), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])  # the last digits of one weight
    with pytest.raises(UserError, match="g.safetensors is damaged .wrong SHA-256 of the tensors"):
        load_generator(path)
    state = build_generator((4, 8, 8, 8, 8, 6), 1).state_dict()
    save_file(
        state, path, metadata={"generator": json.dumps({"filters": [10**9] * 6, "resnet_blocks": 10**9})}
    )
    assert load_generator(path).config["resnet_blocks"] == 1  # the shapes decide
    for value, message in (
        (torch.nan, "4 of 4 values of conv0.conv.bias are NaN"),
        (1j, "conv0.conv.bias holds complex"),
    ):
        torch.save({**state, "conv0.conv.bias": torch.full((4,), value)}, tmp_path / "g.pth")
        with pytest.raises(UserError, match=f"g.pth: {message}"):
            load_generator(tmp_path / "g.pth")
    for shape in ((10**9, 0, 7, 7), (4, 10**9, 0, 7)):
        torch.save({**state, "conv0.conv.weight": torch.zeros(shape)}, tmp_path / "g.pth")
        with pytest.raises(UserError, match="g.pth does not fit the stylization generator"):
            load_generator(tmp_path / "g.pth")


def test_a_module_that_holds_itself_is_refused(tmp_path, old_module):
    whole = old_module.GeneratorJ()
    whole._modules["again"] = whole
    torch.save(whole, tmp_path / "endless.pth")
    with pytest.raises(UserError, match="endless.pth is damaged .it holds more than 10000 modules"):
        load_generator(tmp_path / "endless.pth")


def test_vgg_is_used_where_its_weights_are(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert isinstance(build_features(), NeighbourDifferences)
    assert "no VGG19 weights" in caplog.text
    whole = VGGFeatures((0, 3, 5, 35))
    torch.save(whole.state_dict(), tmp_path / "vgg.pth")
    loaded = build_features((0, 3, 5), tmp_path / "vgg.pth")
    assert set(loaded.state_dict()) == {f"features.{i}.{p}" for i in (0, 2, 5) for p in ("weight", "bias")}
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "vgg.pth").rename(tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth")
    assert isinstance(build_features(), VGGFeatures)
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match="wrong.pth holds no VGG19 weights"):
        build_features(weights=tmp_path / "wrong.pth")
