"""Pickles and zip archives that are well formed and ask for what no checkpoint needs."""

import argparse
import io
import pickle
import signal
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from static_dynamic.ignored_classes import is_ignored
from static_dynamic.pickle_functions import FUNCTIONS

CALLS = (
    ("os", "system"),
    ("posix", "system"),
    ("subprocess", "check_output"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "open"),
    ("builtins", "bytearray"),
    ("builtins", "print"),
    ("importlib", "import_module"),
    ("operator", "methodcaller"),
    ("functools", "partial"),
    ("shutil", "rmtree"),
    ("torch", "load"),
    ("torch", "FloatTensor"),
    ("torch", "FloatStorage"),
    ("torch.storage", "UntypedStorage"),
    ("torch.hub", "load"),
    ("torch._utils", "_rebuild_sparse_tensor"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.jit", "load"),
    ("torch", "Size"),
    ("torch", "device"),
    ("numpy", "load"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("collections", "OrderedDict"),
    ("collections", "Counter"),
    ("builtins", "set"),
    ("_codecs", "encode"),
    ("static_dynamic.files", "write_text"),
    ("models", "GeneratorJ"),
    ("torch.nn.modules.conv", "Conv2d"),
    ("argparse", "Namespace"),
    ("collections", "defaultdict"),
    ("collections", "deque"),
    ("copyreg", "_reconstructor"),
    ("omegaconf.dictconfig", "DictConfig"),
    ("operator", "getitem"),
    ("pathlib", "PosixPath"),
    ("somewhere.configs", "Config"),
    ("typing", "Any"),
)
INTEGERS = (0, 1, -1, 3, 255, 2**31 - 1, -(2**31), 2**33, 2**50, 2**62)
WORDS = ("storage", "module", "FloatStorage", "cpu", "0", "latin1", "f4", "O", "<", "_modules", "state_dict")
OPERATIONS = (b"N", b"\x88", b"]", b"}", b")", b"(", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u")
OPERATIONS += (
    b"R",
    b"b",
    b"\x81",
    b"Q",
    b"0",
    b"2",
    b"1",
    b"\x8f",
    b"\x90",
    b"\x91",
    b"\x92",
    b"\x93",
    b"\x94",
)
OPERATIONS += (
    b"h\x00",
    b"q\x00",
    b"h\x01",
    b"q\x01",
    b"j\xff\xff\xff\xff",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
)
OPERATIONS += (b"\x8d" + b"\xff" * 8, b"\x8e" + b"\xff" * 4 + bytes(4), b"\x96" + b"\xff" * 4 + bytes(4))
OPERATIONS += (b"\x82\x01", b"ios\nsystem\n", b"o", b"P0\n", b"I99\n", b"S'x'\n", b"\x8b\xff\xff\xff\x7f")


def program(rng: np.random.Generator, canary: Path) -> bytes:
    """Write a random pickle, in which every call is likely to find an argument on the stack."""
    allowed = bool(
        rng.integers(2)
    )  # half of the programs call only what the reader allows, and so go further
    calls = [call for call in CALLS if not allowed or call in FUNCTIONS or is_ignored(*call)]
    parts = [b"\x80", bytes([int(rng.integers(2, 6))]), rng.choice([b"}", b"]", b"N"]), b"q\x00"]
    for _ in range(int(rng.integers(1, 40))):
        match rng.integers(6):
            case 0 | 1:
                parts.append(_call(rng, calls, canary))
            case 2:
                parts.append(_text(str(rng.choice(WORDS))))
            case 3:
                parts.append(_integer(rng))
            case 4:
                parts += [b"h\x00\x86q\x00"] * int(rng.integers(1, 80))
            case _:
                parts.append(OPERATIONS[rng.integers(len(OPERATIONS))])
    return b"".join(parts) + b"."


def _call(rng: np.random.Generator, calls: list[tuple[str, str]], canary: Path) -> bytes:
    module, name = calls[rng.integers(len(calls))]
    arguments = [
        _text(f"touch {canary}"),
        _text(f"open({str(canary)!r}, 'w')"),
        _integer(rng),
        b"h\x00",
        b"]",
    ]
    chosen = [arguments[i] for i in rng.integers(len(arguments), size=rng.integers(4))]
    end = (b"tR", b"t\x81", b"tRb", b"to")[rng.integers(4)]
    return f"c{module}\n{name}\n(".encode() + b"".join(chosen) + end


def _text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


def _integer(rng: np.random.Generator) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", INTEGERS[rng.integers(len(INTEGERS))])


class Command:
    """Object whose pickle calls a function."""

    def __init__(self, canary: Path):
        self.command = f"touch {canary}"

    def __reduce__(self):
        return __import__("os").system, (self.command,)


def values(rng: np.random.Generator, canary: Path) -> dict[str, object]:
    """Return objects that must not be in a state dict."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nested: tuple = ()
        for _ in range(int(rng.integers(100))):
            nested = (nested, nested)
        return {
            "command": Command(canary),
            "sparse tensor": torch.eye(3).to_sparse(),
            "sparse rows": torch.eye(3).to_sparse_csr(),
            "meta tensor": torch.empty(3, device="meta"),
            "quantized tensor": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            "nested tensor": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "conjugate view": torch.ones(2, dtype=torch.complex64).conj(),
            "negative view": torch.ones(2, dtype=torch.complex64).conj().imag,
            "huge repetition": torch.ones(1).expand(2**30, 2**30),
            "device": torch.device("cuda"),
            "path": canary,
            "class": Path,
            "lambda": np.add,
            "nested tuples": nested,
            "text array": np.array(["a"]),
            "object array": np.array([None]),
            "structured array": np.zeros(2, dtype=[("a", "f4")]),
            "none": None,
            "number": 2**4000,
            "set": {1, 2},
            "options": argparse.Namespace(a=canary),
            "enumeration": signal.SIGTERM,
            "module": torch.nn.ReLU(),
        }


def archive(rng: np.random.Generator, data: bytes, canary: Path) -> bytes:
    """Write a zip archive again with right CRCs, and change its records, names, codecs or sizes."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        records = [(info.filename, old.read(info)) for info in old.infolist()]
    names = [name for name, _ in records]
    chosen = int(rng.integers(len(records)))
    name, content = records[chosen]
    codec = zipfile.ZIP_STORED
    pickled = next(i for i, n in enumerate(names) if n.endswith("data.pkl"))
    match rng.integers(7):
        case 0:
            records[pickled] = (names[pickled], program(rng, canary))
        case 1:
            changed = bytearray(records[pickled][1])
            changed[rng.integers(len(changed))] ^= 1 << int(rng.integers(8))
            records[pickled] = (names[pickled], bytes(changed))
        case 2:
            records[chosen] = (name, content[: rng.integers(len(content) + 1)])
        case 3:
            other = ("../" * 9 + "x", "/etc/x", "x\n\x1b[31m", "x" * 60_000, names[0], "a/constants.pkl")
            records.insert(chosen, (other[rng.integers(len(other))], content))
        case 4:
            codec = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)[rng.integers(3)]
        case 5:
            codec = zipfile.ZIP_DEFLATED
            records[chosen] = (name, bytes(2 ** int(rng.integers(10, 27))))
        case _:
            del records[chosen]
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", codec) as new:
        warnings.simplefilter("ignore")  # about two records of one name
        for name, content in records:
            new.writestr(name, content)
    return stream.getvalue()


def plain(content: object, rng: np.random.Generator) -> bytes:
    """Pickle an object as torch's zip format, torch's legacy format, or without torch."""
    stream = io.BytesIO()
    form = int(rng.integers(3))
    try:
        if form < 2:
            torch.save(content, stream, _use_new_zipfile_serialization=form == 0)
            return stream.getvalue()
    except (RuntimeError, NotImplementedError, TypeError):  # torch cannot save the object in this format
        pass
    return pickle.dumps(content, protocol=int(rng.integers(2, 6)))
