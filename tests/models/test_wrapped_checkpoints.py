"""Checkpoints of training programs: wrapped networks, averaged weights, objects beside the tensors."""

import argparse
import collections
import datetime
import decimal
import enum
import functools
import logging
import os
import pathlib
import pickle
import types
import typing
import uuid

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

from static_dynamic.errors import UserError
from static_dynamic.files import sha256
from static_dynamic.misc import convert_checkpoint
from static_dynamic.models import build_model
from static_dynamic.models.checkpoints import load_weights, read_checkpoint, weights_file
from static_dynamic.models.classifier_keys import head_keys

NAME = "small_cnn"


@pytest.fixture(scope="module")
def net():
    return build_model(NAME, seed=1)


@pytest.fixture(autouse=True)
def log_level(caplog):
    caplog.set_level(logging.INFO)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def load(path, **options):
    """Load a file into a network of other weights; return the state dict."""
    return build_model(NAME, seed=2, checkpoint=path, **options).state_dict()


def other_weights(net):
    return build_model(NAME, seed=3, num_classes=net.classes).state_dict()


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """One process of torch.distributed."""
    store = tmp_path_factory.mktemp("gloo") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", world_size=1, rank=0)
    yield
    torch.distributed.destroy_process_group()


class LightningLike(nn.Module):
    """A training module: the network, a loss with a weight, and a metric with a state."""

    def __init__(self, net, name):
        super().__init__()
        self.add_module(name, net)
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(5))
        self.register_buffer("seen", torch.zeros(3))


def trained(net, wrap):
    """Return a network with the weights of `net`, wrapped, and able to train."""
    copy = build_model(NAME, seed=5)
    copy.load_state_dict(net.state_dict())
    return wrap(copy.requires_grad_(True))


def compiled_blocks(net):
    net.blocks = torch.compile(net.blocks)
    return net


WRAPS = {
    "compile": torch.compile,
    "data_parallel": nn.DataParallel,
    "ddp": nn.parallel.DistributedDataParallel,
    "ddp_of_compile": lambda net: nn.parallel.DistributedDataParallel(torch.compile(net)),
    "compile_of_ddp": lambda net: torch.compile(nn.parallel.DistributedDataParallel(net)),
    "twice": lambda net: nn.DataParallel(nn.DataParallel(net)),
    "lightning_model": lambda net: LightningLike(net, "model"),
    "lightning_net": lambda net: LightningLike(net, "net"),
    "lightning_compiled": lambda net: LightningLike(torch.compile(net), "model"),
    "lightning_ddp": lambda net: LightningLike(nn.DataParallel(net), "net"),
    "average": torch.optim.swa_utils.AveragedModel,
    "compiled_blocks": compiled_blocks,
}


@pytest.mark.parametrize("name", WRAPS)
def test_the_state_dict_of_a_wrapped_network_loads(tmp_path, net, name, distributed, caplog):
    wrapped = trained(net, WRAPS[name]).state_dict()
    assert wrapped.keys() != net.state_dict().keys()
    for content in (wrapped, {"state_dict": wrapped, "epoch": 3}):
        torch.save(content, tmp_path / "w.pt")
        caplog.clear()
        assert same(load(tmp_path / "w.pt"), net.state_dict())
        if "lightning" in name:
            kind = name.replace("lightning_", "")
            prefix = {"compiled": "model.", "ddp": "net."}.get(kind, f"{kind}.")
            assert f"all {len(net.state_dict())} keys fit with the prefix '{prefix}' removed" in caplog.text
            assert "2 other keys are left out (seen, ...)" in caplog.text


@pytest.mark.parametrize(
    "entry", ["module", "model", "net", "network", "state_dict", "model_state", "student"]
)
def test_every_entry_loads(tmp_path, net, entry, caplog):
    torch.save({entry: net.state_dict(), "optimizer": {"state": {0: torch.ones(2)}}}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"), net.state_dict())
    torch.save({"state": {entry: net.state_dict()}, "args": {"lr": 0.1}}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"), net.state_dict())
    assert ("the weights 'student' are taken" in caplog.text) == (entry == "student")


@pytest.mark.parametrize(
    "plain, averaged", [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("net", "ema")]
)
def test_plain_weights_are_taken_and_averaged_ones_are_offered(tmp_path, net, plain, averaged, caplog):
    average = other_weights(net)
    torch.save({averaged: average, plain: net.state_dict()}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"), net.state_dict())
    assert f"also holds averaged weights (EMA), which checkpoint_key={averaged} chooses" in caplog.text
    assert caplog.text.count("checkpoint_key=") == 1
    assert same(load(tmp_path / "w.pt", checkpoint_key=averaged), average)
    with pytest.raises(
        UserError, match=f"at checkpoint_key=emma that fit .*entries and prefixes that fit: .*{averaged}"
    ):
        load(tmp_path / "w.pt", checkpoint_key="emma")
    # averaged weights alone are taken, and the log says so
    torch.save({averaged: average, plain: "too large"}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"), average)
    assert f"the weights '{averaged}' are taken" in caplog.text


def test_another_entry_is_not_taken_if_the_usual_one_does_not_fit(tmp_path, net):
    """The averages, or the momentum of the optimizer, have the same keys, but are not what was asked for."""
    for entry in ("ema", "momentum"):
        torch.save(
            {"model": {**net.state_dict(), "adapter": torch.ones(1)}, entry: net.state_dict()},
            tmp_path / "w.pt",
        )
        with pytest.raises(
            UserError, match=rf"1 unexpected .adapter.; the weights '{entry}' would fit: give check"
        ):
            load(tmp_path / "w.pt")
        assert same(load(tmp_path / "w.pt", checkpoint_key=entry), net.state_dict())


def test_two_networks_in_one_state_dict_need_a_choice(tmp_path, net):
    student, teacher = net.state_dict(), other_weights(net)
    both = {
        f"{name}.{k}": v for name, s in (("student", student), ("teacher", teacher)) for k, v in s.items()
    }
    torch.save({"state_dict": both}, tmp_path / "w.pt")
    with pytest.raises(
        UserError, match="2 different sets.*checkpoint_key=.*student or checkpoint_key=.*teacher"
    ):
        load(tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt", checkpoint_key="teacher"), teacher)
    assert same(load(tmp_path / "w.pt", checkpoint_key="state_dict.student"), student)
    torch.save({"student": student, "teacher": teacher}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="give checkpoint_key=student or checkpoint_key=teacher"):
        load(tmp_path / "w.pt")
    # of a student and a teacher of another network, only one fits
    large = build_model("x3d_xs").state_dict()
    torch.save({"teacher": large, "student": student}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"), student)


class Phase(enum.Enum):
    TRAIN = "train"


class Level(enum.IntEnum):
    HIGH = 3


class Config:
    """Class of a user's training program; reading must never make an object of this class."""

    def __init__(self):
        self.path, self.values = pathlib.Path("runs"), [1, 2]

    def __setstate__(self, state):
        pathlib.Path(os.environ["MARKER"]).touch()


class Options(dict):
    """Dict of a user's training program."""


class Steps(list):
    """List of a user's training program."""


BESIDE = {
    "argparse.Namespace": argparse.Namespace(lr=0.1, path=pathlib.Path("x"), when=datetime.datetime.now()),
    "omegaconf.dictconfig.DictConfig": OmegaConf.create({"a": {"b": [1, "${a.c}"], "c": None}, 3: True}),
    "Phase": Phase.TRAIN,
    "Level": Level.HIGH,
    "Config": Config(),
    "Options": Options(a=1),
    "Steps": Steps([1, 2]),
    "pathlib.": pathlib.Path("a/b"),
    "datetime.timedelta": datetime.timedelta(3),
    "typing.Union": {"shape": typing.Union[int, None, Config]},  # noqa: UP007 (pickled by another call)
    "or_": {"shape": int | Config, "type": dict[str, Config]},
    "decimal.Decimal": decimal.Decimal("0.1"),
    "uuid.UUID": uuid.UUID(int=3),
    "collections.deque": collections.deque([1, 2], maxlen=5),
    "types.SimpleNamespace": types.SimpleNamespace(a=1),
    "torch.optim.": functools.partial(torch.optim.Adam, lr=0.1),
    "torch.optim.sgd.SGD": torch.optim.SGD([torch.ones(2, requires_grad=True)], lr=0.1),
    "torch.torch_version.TorchVersion": torch.__version__,
    "arrays of type 'U": np.array(["walk", "run"]),
    "arrays of type 'O8'": np.array([None, {}]),
    "arrays of type 'M8'": np.datetime64("2026-01-01"),
    "Phase ": {Phase.TRAIN: 1, "a": 2},
}
SILENT = {
    "scalars": [np.float64(0.5), np.int64(3), np.bool_(True), np.float32(2)],
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "classes": [int, dict, Config, typing.Any, np.float32, nn.ReLU],
    "set": [{1, 2}, frozenset([3]), set()],
    "bytes": [b"", b"a", np.empty((0, 3))],
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", [*BESIDE, *SILENT])
def test_objects_beside_the_tensors_are_named_and_ignored(tmp_path, net, name, protocol, monkeypatch, caplog):
    monkeypatch.setenv("MARKER", str(tmp_path / "it_ran"))
    value = BESIDE.get(name, SILENT.get(name))
    content = {"model": net.state_dict(), "before": value, "args": {"deep": [value]}}
    for legacy in (False, True):
        torch.save(
            content,
            tmp_path / "w.pt",
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=not legacy,
        )
        caplog.clear()
        assert same(load(tmp_path / "w.pt"), net.state_dict())
        if name in BESIDE:
            assert name.strip() in caplog.text and "beside the tensors are ignored" in caplog.text
        else:
            assert "ignored" not in caplog.text
    assert not (tmp_path / "it_ran").exists()


def test_scalars_and_default_dicts_are_read(tmp_path):
    content = {"a": np.float64(0.5), "b": collections.defaultdict(list, {"x": [np.int64(3)]})}
    torch.save(content, tmp_path / "w.pt")
    assert read_checkpoint(tmp_path / "w.pt") == {"a": 0.5, "b": {"x": [3]}}


class Call:
    """Object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_call_beside_the_tensors_never_runs(tmp_path, net, monkeypatch):
    marker = tmp_path / "it_ran"
    monkeypatch.setenv("MARKER", str(marker))
    calls = {
        r"(posix|nt|os)\.system": Call(os.system, f"touch {marker}"),
        r"__builtin__\.eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        r"builtins\.getattr": Call(getattr, np.float64(1), "tofile"),
        r"functools\.partial": Call(functools.partial, 3, f"touch {marker}"),
        r"pickle\._?loads": Call(pickle.loads, pickle.dumps(Config())),
        r"torch\.serialization\.load": Call(torch.load, str(marker)),
    }
    for name, value in calls.items():
        torch.save({"model": net.state_dict(), "args": value}, tmp_path / "w.pt")
        with pytest.raises(UserError, match=f"w.pt was refused: the file contains {name}"):
            load(tmp_path / "w.pt")
    # a function of another package is not called either; its result is a placeholder
    torch.save({"model": net.state_dict(), "args": Call(touch, str(marker))}, tmp_path / "w.pt")
    assert same(load(tmp_path / "w.pt"), net.state_dict())
    assert not marker.exists()


def touch(path):
    pathlib.Path(path).touch()


def test_a_file_is_refused_if_a_needed_tensor_is_an_ignored_object(tmp_path, net):
    key = next(iter(net.state_dict()))
    for value in (Config(), Phase.TRAIN):
        torch.save({**net.state_dict(), key: value}, tmp_path / "w.pt")
        with pytest.raises(
            UserError, match=rf"{key} has type .*{type(value).__name__}, but must be a tensor"
        ):
            load(tmp_path / "w.pt")
    torch.save(LightningLike(net, "model"), tmp_path / "w.pt")
    with pytest.raises(UserError, match="w.pt was refused: the file contains .*LightningLike, but only"):
        load(tmp_path / "w.pt")
    torch.save({"model": Config()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="does not fit"):
        load(tmp_path / "w.pt")


def test_a_state_dict_without_classifier_needs_drop_head(tmp_path, net, caplog):
    body = {f"backbone.{k}": v for k, v in net.state_dict().items() if k not in head_keys(net)}
    torch.save({"state_dict": body}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="has no classifier .missing: .*: give drop_head=true"):
        load(tmp_path / "w.pt")
    found = load(tmp_path / "w.pt", drop_head=True)
    assert "logits are random" in caplog.text and "prefix 'backbone.' removed" in caplog.text
    assert all(torch.equal(found[k.removeprefix("backbone.")], v) for k, v in body.items())
    # a key of another module is never left random
    first = next(iter(body))
    torch.save({k: v for k, v in body.items() if k != first}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="keys fit with the prefix 'backbone.' removed"):
        load(tmp_path / "w.pt", drop_head=True)


def test_the_classifier_is_what_runs_after_the_deepest_stage():
    """Oracle: changing exactly these weights changes the logits and no stage."""
    sizes = {"small_cnn": None, "small_transformer": None, "x3d_xs": (32, 32)}
    for name, size in sizes.items():
        net = build_model(name, seed=1)
        noise = functools.partial(torch.randn, generator=torch.Generator().manual_seed(0))
        inputs = net.example_input(noise, size=size)
        rows = net.read(inputs)
        keys = head_keys(net)
        assert keys and keys < set(net.state_dict())
        for key, value in list(net.state_dict().items())[:: 7 if name == "x3d_xs" else 1]:
            if not value.is_floating_point():
                continue
            before = value.clone()
            value += 0.5 + torch.rand(value.shape, generator=torch.Generator().manual_seed(1))
            changed = net.read(inputs)
            value.copy_(before)
            stages = any(not torch.equal(rows[stage], changed[stage]) for stage in rows)
            assert stages == (key not in keys), key


def test_an_unwrapped_part_is_named(tmp_path, net):
    state = {f"encoder.{k}": v for k, v in net.state_dict().items()}
    torch.save({**state, "encoder.extra.weight": torch.ones(1)}, tmp_path / "w.pt")
    count = len([k for k in net.state_dict() if not k.endswith("num_batches_tracked")])
    with pytest.raises(
        UserError, match=f"{count} of {count} keys fit with the prefix 'encoder.' removed, but 1"
    ):
        load(tmp_path / "w.pt")


def test_hostile_nests_and_keys_are_read_quickly(tmp_path, net):
    loop: dict = {f"k{i}": None for i in range(20_000)}
    loop.update(dict.fromkeys(loop, loop))
    dots = {"." * 10**6: torch.ones(1), "module." * 10**5: torch.ones(1)}
    for content in (loop, {"model": loop}, dots, {"state_dict": {"module." * 10**5 + "x": torch.ones(1)}}):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {}}))
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(UserError):
            load_weights(net, tmp_path / "w.pt")


def test_a_converted_checkpoint_holds_the_chosen_weights(tmp_path, net, monkeypatch, capsys):
    average = other_weights(net)
    body = {f"module.{k}": v for k, v in average.items() if k not in head_keys(net)}
    content = {"args": argparse.Namespace(lr=0.1), "model": net.state_dict(), "model_ema": body}
    torch.save(content, tmp_path / "w.pt")
    out = tmp_path / "w.safetensors"
    command = ["convert_checkpoint", str(tmp_path / "w.pt"), str(out), "--model", NAME]
    for options, expected in (
        ((), net.state_dict()),
        (("--checkpoint_key=model_ema", "--drop_head"), average),
    ):
        monkeypatch.setattr("sys.argv", [*command, *options])
        assert convert_checkpoint.main() == 0
        written = load_file(out)
        assert written.keys() == net.state_dict().keys()
        assert all(torch.equal(written[key], expected[key]) for key in written.keys() - head_keys(net))
    monkeypatch.setattr("sys.argv", [*command, "--checkpoint_key=model_ema"])
    assert convert_checkpoint.main() == 2
    assert "has no classifier" in capsys.readouterr().err


def test_the_chosen_entry_is_part_of_the_identity_of_a_run(tmp_path, net, monkeypatch):
    monkeypatch.setenv("SD_CACHE", str(tmp_path / "cache"))
    path, average = tmp_path / "w.pt", other_weights(net)
    torch.save({"model": net.state_dict(), "ema": average}, path)
    assert weights_file(net, path, None) == path
    chosen = build_model(NAME, checkpoint=path, checkpoint_key="ema")
    plain = build_model(NAME, checkpoint=path, checkpoint_key="model")
    files = {sha256(weights_file(n, path, None, key)) for n, key in ((chosen, "ema"), (plain, "model"))}
    assert len(files | {sha256(path)}) == 3
    for checkpoint in (None, "pretrained"):
        with pytest.raises(UserError, match="checkpoint_key=ema chooses weights in a file"):
            build_model(NAME, checkpoint=checkpoint, checkpoint_key="ema")


class Attending(nn.Module):
    """Network of one's own, in which torch uses the weights of ``attention.out_proj`` without calling it."""

    def __init__(self, num_classes=5):
        super().__init__()
        self.stem = nn.Conv3d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc_norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        tokens = self.attention(tokens, tokens, tokens)[0]
        return self.fc(self.fc_norm(tokens.mean(dim=1)))


def test_weights_that_a_stage_needs_are_never_left_random(tmp_path):
    options = {
        "network": f"{__name__}.Attending",
        "input": {
            "frames": 4,
            "sampling_rate": 1,
            "size": 16,
            "crop": 16,
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
        },
        "stages": ["attention"],
    }
    net = build_model("custom", **options)
    assert head_keys(net) == {"fc_norm.weight", "fc_norm.bias", "fc.weight", "fc.bias"}
    state = net.state_dict()
    body = {f"model.{key}": value for key, value in state.items() if not key.startswith("fc")}
    torch.save({"state_dict": body}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="has no classifier"):
        build_model("custom", checkpoint=tmp_path / "w.pt", **options)
    loaded = build_model(
        "custom", checkpoint=tmp_path / "w.pt", drop_head=True, seed=3, **options
    ).state_dict()
    assert all(torch.equal(loaded[key.removeprefix("model.")], value) for key, value in body.items())
    del body["model.attention.out_proj.weight"]
    torch.save({"state_dict": body}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="does not fit"):
        build_model("custom", checkpoint=tmp_path / "w.pt", drop_head=True, **options)


def test_checkpoints_that_timm_saves(tmp_path, net):
    timm = pytest.importorskip("timm.utils", reason="timm is an optional package")
    plain = trained(net, torch.compile)
    average = timm.ModelEmaV3(plain, decay=0.5)
    with torch.no_grad():
        plain.blocks[0][0].weight.mul_(2)
    average.update(plain)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    args = argparse.Namespace(model="small_cnn", opt="sgd", lr=0.1, output=tmp_path)
    saver = timm.CheckpointSaver(plain, optimizer, args, average, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(3, 0.5)
    (path,) = tmp_path.glob("checkpoint-3*")
    expected = {k.removeprefix("_orig_mod."): v for k, v in plain.state_dict().items()}
    assert same(load(path), expected)
    averaged = load(path, checkpoint_key="state_dict_ema")
    assert not same(averaged, expected)
    torch.testing.assert_close(
        averaged["blocks.0.0.weight"],
        (expected["blocks.0.0.weight"] + net.state_dict()["blocks.0.0.weight"]) / 2,
    )


def test_wrapped_and_headless_weights_of_hugging_face_load_quietly(tmp_path, caplog):
    transformers = pytest.importorskip("transformers", reason="transformers is an optional package")
    sizes = {"image_size": 32, "patch_size": 16, "num_frames": 4, "hidden_size": 24, "intermediate_size": 48}
    config = transformers.TimesformerConfig(**sizes, num_hidden_layers=2, num_attention_heads=2, num_labels=5)
    theirs = transformers.TimesformerForVideoClassification(config)
    theirs.save_pretrained(tmp_path / "net")
    spec = {"frames": 4, "sampling_rate": 1, "size": 32, "crop": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    options = {"network": str(tmp_path / "net"), "input": spec, "checkpoint": tmp_path / "w.pt", "seed": 3}
    state = theirs.state_dict()
    body = {f"model.{key}": value for key, value in state.items() if not key.startswith("classifier")}
    for content in ({f"model.{k}": v for k, v in state.items()}, torch.compile(theirs).state_dict()):
        torch.save({"state_dict": content}, tmp_path / "w.pt")
        assert same(build_model("huggingface", **options).state_dict(), state)
    torch.save({"state_dict": body}, tmp_path / "w.pt")
    loaded = build_model("huggingface", **options, drop_head=True).state_dict()
    assert all(torch.equal(loaded[key.removeprefix("model.")], value) for key, value in body.items())
    assert {record.name.partition(".")[0] for record in caplog.records} == {"static_dynamic"}
