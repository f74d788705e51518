"""Checkpoints are data: what asks for more is refused by name and nothing of it runs."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from static_dynamic.errors import UserError
from static_dynamic.models import build_model
from static_dynamic.models.checkpoints import load_weights, read_checkpoint, state_dict_of

NAME = "x3d_xs"


class Malicious:
    def __init__(self, marker):
        self.command = f"touch {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(scope="module")
def net():
    return build_model(NAME, seed=1)


@pytest.mark.parametrize("form", ["torch", "torch_legacy", "pickle"])
def test_a_malicious_pickle_is_refused_by_name_and_does_not_run(tmp_path, form):
    path, marker = tmp_path / "evil.pyth", tmp_path / "it_ran"
    content = {"model_state": {"w": torch.zeros(2)} if form != "pickle" else {}, "epoch": Malicious(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(UserError, match=r"evil.pyth was refused: the file contains (posix|nt|os)\.system"):
        read_checkpoint(path)
    assert not marker.exists()


def test_every_wrapping_loads(tmp_path, net):
    state = net.state_dict()
    forms = {
        "plain.pt": state,
        "model_state.pyth": {"model_state": state, "epoch": 3, "cfg": "text"},
        "state_dict.pth": {"state_dict": {f"module.{k}": v for k, v in state.items()}},
        "without_counters.pt": {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
    }
    for name, content in forms.items():
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=name != "plain.pt")
    save_file(state, tmp_path / "weights.safetensors")
    for path in tmp_path.iterdir():
        other = build_model(NAME, checkpoint=path)
        assert all(torch.equal(v, state[k]) for k, v in other.state_dict().items()), path.name


def test_arrays_in_a_pickle_load(tmp_path):
    arrays = {"blobs": {"conv1_w": np.arange(6.0).reshape(2, 3), "lr": np.float32(0.1)}}
    for protocol in (2, 4):
        (tmp_path / "c2.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))
        np.testing.assert_array_equal(
            state_dict_of(read_checkpoint(tmp_path / "c2.pkl"), tmp_path)["conv1_w"],
            arrays["blobs"]["conv1_w"],
        )


def test_what_does_not_fit_is_counted_and_named(tmp_path, net):
    state = dict(net.state_dict())
    key, *_, last = state
    torch.save(
        {**{k: v for k, v in state.items() if k != key}, "extra": torch.zeros(1), last: torch.zeros(1)},
        tmp_path / "w.pt",
    )
    with pytest.raises(UserError) as error:
        load_weights(net, tmp_path / "w.pt")
    assert f"1 missing ({key})" in str(error.value) and "1 unexpected (extra)" in str(error.value)
    assert f"1 misshapen ({last} (1,) for" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="does not fit"):
        build_model("c2d", checkpoint=_saved(tmp_path, net))


def test_a_head_of_other_classes_is_named_and_left_out_only_when_asked_for(tmp_path, net, caplog):
    path = tmp_path / "k600.pyth"
    torch.save({"model_state": build_model(NAME, num_classes=7, seed=5).state_dict()}, path)
    with pytest.raises(
        UserError, match=r"of 7 classes .*network has 400: give model.num_classes=7, or drop_head=true"
    ):
        load_weights(net, path)
    other = build_model(NAME, seed=2)
    before = other.state_dict()["head.projection.weight"].clone()
    load_weights(other, path, drop_head=True)
    assert torch.equal(other.state_dict()["head.projection.weight"], before)
    assert torch.equal(
        other.state_dict()["s1.pathway0_stem.conv.weight"],
        torch.load(path)["model_state"]["s1.pathway0_stem.conv.weight"],
    )
    assert "the classifier of 7 classes" in caplog.text


def test_a_flipped_bit_in_a_zip_archive_is_noticed(tmp_path, net):
    path = tmp_path / "w.pt"
    torch.save(net.state_dict(), path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(("/data.pkl", "/data/0", "/data/7")):
                continue
            start = info.header_offset + 30 + int.from_bytes(whole[info.header_offset + 26 :][:2], "little")
            start += int.from_bytes(whole[info.header_offset + 28 :][:2], "little")
            flipped = bytearray(whole)
            flipped[start + info.file_size // 2] ^= 4
            (tmp_path / "flipped.pt").write_bytes(flipped)
            with pytest.raises(UserError, match=r"flipped.pt is damaged \(Bad CRC-32 for file"):
                load_weights(net, tmp_path / "flipped.pt")


NUMBERS = {
    "complex": (torch.complex64, "holds complex numbers .torch.complex64., but the network needs floating"),
    "integers": (torch.int64, "holds integer numbers"),
    "booleans": (torch.bool, "holds boolean numbers"),
    "nan": (float("nan"), "values of .* are NaN or infinite"),
    "infinite": (-float("inf"), "values of .* are NaN or infinite"),
    "large": (1e300, "values of .* are NaN or infinite"),  # float64, which is infinite in float32
}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_that_are_no_weights_are_refused_by_the_tensors_name(tmp_path, net, case, suffix):
    value, message = NUMBERS[case]
    for key in ("s1.pathway0_stem.conv.weight", "s1.pathway0_stem.bn.running_var"):
        wrong = net.state_dict()[key].double()
        wrong = (
            wrong.to(value) if isinstance(value, torch.dtype) else wrong.index_fill(0, torch.tensor(1), value)
        )
        state = {**net.state_dict(), key: wrong}
        path = tmp_path / f"w.{suffix}"
        save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
        before = net.state_dict()[key].clone()
        with pytest.raises(UserError, match=f"{message}") as error:
            load_weights(net, path)
        assert key in str(error.value) and torch.equal(net.state_dict()[key], before)


def test_half_and_double_weights_and_integer_counters_load(tmp_path, net):
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        state = {k: v.to(kind) if v.is_floating_point() else v.int() for k, v in net.state_dict().items()}
        torch.save(state, tmp_path / "w.pt")
        load_weights(build_model(NAME), tmp_path / "w.pt")


def test_a_tensor_without_dense_numbers_is_refused(tmp_path):
    tensors = {
        "_rebuild_sparse_tensor": torch.eye(3).to_sparse(),
        "_rebuild_meta_tensor_no_storage": torch.empty(3, device="meta"),
        "_rebuild_qtensor": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "_rebuild_nested_tensor": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
    }
    for name, tensor in tensors.items():
        torch.save({"w": tensor}, tmp_path / "w.pt")
        with pytest.raises(UserError, match=f"w.pt was refused: the file contains .*{name}.*plain tensors"):
            read_checkpoint(tmp_path / "w.pt")


def test_names_in_a_file_are_escaped_and_cut(tmp_path, net):
    for name in ("\x1b[31m\nred", "x" * 10_000_000):
        save_file({name: torch.ones(1)}, tmp_path / "w.safetensors")
        torch.save({name: torch.ones(1)}, tmp_path / "w.pt")
        for path in (tmp_path / "w.safetensors", tmp_path / "w.pt"):
            with pytest.raises(UserError, match="does not fit") as error:
                load_weights(net, path)
            assert str(error.value).isprintable() and len(str(error.value)) < 1000


def _saved(folder, net):
    torch.save({"model_state": net.state_dict()}, folder / "other.pyth")
    return folder / "other.pyth"


def test_damaged_and_foreign_files_are_one_line(tmp_path, net):
    whole = _saved(tmp_path, net).read_bytes()
    files = {
        "cut.pyth": whole[: len(whole) // 2],
        "page.pyth": b"<!DOCTYPE html><html><body>Quota exceeded</body></html>",
        "empty.pyth": b"",
        "cut.safetensors": b"\x10\0\0\0\0\0\0\0{",
        "cut.pkl": pickle.dumps({"a": np.zeros(100)})[:40],
        "number.pkl": pickle.dumps(3),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name) as error:
            load_weights(net, tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="web page"):
        read_checkpoint(tmp_path / "page.pyth")
    with pytest.raises(UserError, match="does not exist"):
        read_checkpoint(tmp_path / "nowhere.pyth")
