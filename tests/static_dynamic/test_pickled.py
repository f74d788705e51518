"""Files of torch and pickles of arrays: read equals torch.load, and hostile files are refused at once."""

import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
import torch

from static_dynamic.errors import RefusedFile, UserError, checkpoint_errors
from static_dynamic.pickle_functions import Ignored
from static_dynamic.pickled import read_pickled

HUGE = 2**50


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("zipped", [True, False])
def test_the_content_is_that_of_torch_load(tmp_path, zipped):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    base = torch.arange(24.0)
    kinds = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
    kinds += [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.complex128]
    content = {
        "state": net.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "optimizer": optimizer.state_dict(),
        "schedule": torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 3]).state_dict(),
        "views": [base[3:9], base.reshape(4, 6).T, base[::5], torch.ones(1).expand(5), torch.empty(0, 3)],
        "kinds": [base.to(kind) for kind in kinds],
        "shape": torch.Size([2, 3]),
        "kind": torch.float16,
        "rest": (1, -2, 2**40, 1.5, None, True, "text", b"bytes"),
    }
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert equal(read_pickled(tmp_path / "w.pt"), torch.load(tmp_path / "w.pt", weights_only=True))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_all_protocols_are_read(tmp_path, protocol):
    arrays = [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((2, 3), np.float16)), np.array(3)]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": arrays, "b": np.float32(2)}, protocol=protocol))
    read = read_pickled(tmp_path / "a.pkl")
    assert read["b"] == 2 and len(read["a"]) == len(arrays)
    for found, array in zip(read["a"], arrays, strict=True):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def call(module: str, name: str, arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + b"(" + arguments + b"tR"


# Pairs of the same pair, 60 levels deep: the hash of this tuple takes 2**60 steps.
NESTED = b")q\x00" + b"h\x00\x86q\x00" * 60
REFUSED = {
    "bytes": b"\x8e" + struct.pack("<Q", HUGE),
    "bytearray": b"\x96" + struct.pack("<Q", HUGE),
    "call of bytearray": call("builtins", "bytearray", number(2**33)),
    "call of a storage": call("torch", "UntypedStorage", number(2**33)),
    "call of a tensor": call("torch", "FloatTensor", number(2**33)),
    "call of an array": call("numpy", "ndarray", number(2**33)),
    "array of a huge shape": call("numpy.core.multiarray", "_reconstruct", b"N" + number(HUGE) + b"N")
    + b"(K\x01"
    + number(HUGE)
    + b"\x85"
    + call("numpy", "dtype", text("f8"))
    + b"\x89C\x00tb",
    "array of objects": call("numpy", "dtype", text("O8")),
    "object by eval": call("builtins", "eval", text("1")),
    "text operation": b"cos\nsystem\n(S'true'\ntR",
    "state of a function": b"ctorch._utils\n_rebuild_tensor_v2\n}b",
    "state of a class": b"ctorch\nSize\n}b",
    "new object of a class": b"ccollections\nabc\n)\x81",
    "shape of many axes": b"]q\x00("
    + (b"\x8a\xff" + b"\x7f" * 255) * 20_000
    + b"e"
    + call("torch._utils", "_rebuild_tensor", b"h\x00K\x00h\x00h\x00"),
    "copies of text": b"T"
    + struct.pack("<I", 10**7)
    + bytes(10**7)
    + b"q\x00"
    + call("_codecs", "encode", b"h\x00" + text("latin1")) * 100,
    "copies of lists": b"](" + b"N" * 10**6 + b"eq\x00" + call("builtins", "set", b"h\x00") * 100,
    "type of nested tuples": call("numpy.core.multiarray", "scalar", NESTED + b"C\x01x"),
    "call of nested tuples": NESTED + b"NR",
    "new object of nested tuples": NESTED + b")\x81",
    "encoding of nested tuples": call("_codecs", "encode", text("x") + NESTED),
    "attribute of a number": call("builtins", "getattr", b"K\x01" + text("bit_length")),
    "partial of a number": call("functools", "partial", b"K\x01" + text("x")),
    "new object of a number": call("copyreg", "_reconstructor", b"K\x01K\x02N"),
    "call of bytes": call("builtins", "bytes", number(2**33)),
    "storage of another package": b"(" + text("storage") + b"ca\nFloatStorage\n" + text("0") * 2 + b"K\x01tQ",
    "call with an ignored object": call("os", "system", b"cargparse\nNamespace\n"),
    "only an ignored object": b"cargparse\nNamespace\n)\x81}b",
    "classes": b"".join(f"ca\nb{i}\n".encode() for i in range(1001)),
    "name of a class": b"ca\n" + b"b" * 2000 + b"\n",
    "objects of an ignored class as keys of a list": b"cargparse\nNamespace\n)\x81N\x85s",
    # long arguments of many calls: each call takes time, although its result is small
    "repeated dicts": b"]("
    + (text("a") + b"N\x86") * 10**6
    + b"eq\x00"
    + call("collections", "OrderedDict", b"h\x00") * 10**5,
    "dicts of ignored keys": b"]("
    + b"cargparse\nNamespace\nq\x01"
    + b"h\x01N\x86" * 10**6
    + b"eq\x00"
    + call("collections", "OrderedDict", b"h\x00") * 10**5,
    "many arguments": b"(" + b"N" * 10**6 + b"tq\x00" + b"ctorch\ndevice\nq\x01" + b"h\x01h\x00R" * 10**5,
    "many operations": b"]" * 3_500_000,
    "items of a number": b"K\x01(K\x01\x90",
    "items of a dict": b"}(K\x01\x90",
    "key": b"}" + NESTED + b"Ns",
    "key among keys": b"}(" + NESTED + b"Nu",
    "key in a constructor": b"ccollections\nOrderedDict\n]" + NESTED + b"N\x86a\x85R",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_pickle_is_refused_at_once(tmp_path, name):
    (tmp_path / "w.pkl").write_bytes(b"\x80\x02" + REFUSED[name] + b".")
    start = time.process_time()
    with pytest.raises(UserError, match="w.pkl (was refused|is damaged)"):
        with checkpoint_errors(tmp_path / "w.pkl", "arrays"):
            read_pickled(tmp_path / "w.pkl")
    assert time.process_time() - start < 10


@pytest.mark.parametrize("protocol", [2, 4])
def test_sets_become_lists_without_hashes(tmp_path, protocol):
    content = {"set": {1, 2}, "frozen": frozenset([3]), "empty": set()}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    assert read_pickled(tmp_path / "w.pkl") == {"set": [1, 2], "frozen": [3], "empty": []}
    (tmp_path / "w.pkl").write_bytes(b"\x80\x04" + NESTED + b"\x8f(h\x00\x90.")
    start = time.process_time()
    assert len(read_pickled(tmp_path / "w.pkl")) == 1
    assert time.process_time() - start < 1


def test_an_ignored_object_has_no_data(tmp_path):
    """Nothing that a pickle does with a placeholder is kept, and memory does not grow."""
    config = b"ca.config\nConfig\n"
    programs = {
        "state": config + b")\x81}" + text("x") + b"]sb",
        "arguments": config + b"(" + text("x") * 3 + b"tR",
        "items": config + b")\x81(" + text("x") + b"]" + text("y") + b"]u",
        "one item": config + b")\x81" + text("x") + b"]s",
        "appended": config + b")\x81(K\x01K\x02e",
        "called again": config + b")R)R)R",
        "attribute": call("builtins", "getattr", config + text("x")),
        "dtype": call("numpy", "dtype", text("O8") + b"K\x00K\x01") + b"(K\x03" + text("|") + b"NNNtb",
        "array": call("numpy.core.multiarray", "_reconstruct", b"N)N")
        + b"(K\x01K\x02\x85"
        + call("numpy", "dtype", text("O8"))
        + b"\x89]tb",
        "tensor": call("torch._utils", "_rebuild_tensor", config + b"K\x00K\x03\x85K\x01\x85"),
        "repeated": config + b")R" * 10**6,
    }
    for name, program in programs.items():
        (tmp_path / "w.pkl").write_bytes(b"\x80\x02}" + text("a") + program + b"s.")
        found = read_pickled(tmp_path / "w.pkl")["a"]
        if name == "array":
            assert found.shape == (0,)
        else:
            assert isinstance(found, Ignored) and vars(found).keys() == {"name"}, name
    (tmp_path / "w.pkl").write_bytes(b"\x80\x02}" + config + b")\x81K\x01s" + text("a") + b"K\x02s.")
    assert read_pickled(tmp_path / "w.pkl") == {"a": 2}


def zipped(path, records, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in records.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("codec", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb_is_refused_before_anything_is_inflated(tmp_path, codec):
    zipped(tmp_path / "w.pt", {"a/data.pkl": b"\x80\x02}.", "a/data/0": bytes(2**26)}, compression=codec)
    with pytest.raises(ValueError, match="larger than the file"):
        read_pickled(tmp_path / "w.pt")
    zipped(tmp_path / "w.pt", {"a/data.pkl": b"\x80\x02}.", "b": bytes(90)})
    assert read_pickled(tmp_path / "w.pt") == {}
    data = (tmp_path / "w.pt").read_bytes()
    where = data.index(b"PK\x01\x02")  # the first entry of the directory, whose codec becomes unknown
    (tmp_path / "w.pt").write_bytes(data[: where + 10] + b"\x63\x00" + data[where + 12 :])
    with pytest.raises(RefusedFile, match="compressed record 'a/data.pkl'"):
        read_pickled(tmp_path / "w.pt")


def test_a_legacy_file_that_asks_for_much_memory_is_refused(tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "w.pt").read_bytes()
    assert data.count(b"K\x03N") == 1  # the number of elements of the storage
    (tmp_path / "w.pt").write_bytes(data.replace(b"K\x03N", b"J\xff\xff\xff\x7fN"))
    with pytest.raises(ValueError, match="larger than the file"):
        read_pickled(tmp_path / "w.pt")


def test_a_repeated_number_is_no_huge_tensor(tmp_path):
    torch.save({"w": torch.ones(1).expand(2**20, 2**20)}, tmp_path / "w.pt")
    with pytest.raises(RefusedFile, match="a tensor of repeated numbers with more than"):
        read_pickled(tmp_path / "w.pt")


def test_other_files_are_nothing(tmp_path):
    (tmp_path / "page").write_bytes(b"<html>")
    assert read_pickled(tmp_path / "page") is None
