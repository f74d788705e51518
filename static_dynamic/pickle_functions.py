"""Replacements for the functions, classes and data types that a pickle may name.

`FUNCTIONS` and `TYPES` are the closed list of names from which tensors, arrays and containers are made.
Objects of the classes in ``ignored_classes.py`` become `Ignored` objects.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from static_dynamic.errors import RefusedFile, quoted

# Integers from MAX_KEY on are refused as dict keys: many can share one hash, which makes a dict slow.
MAX_KEY = 2**60
MAX_AXES = 64
# Largest number of elements of an expanded tensor, in which several elements share one stored number.
MAX_EXPANDED = 2**26

DTYPES = {
    "BFloat16": torch.bfloat16,
    "Bool": torch.bool,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Short": torch.int16,
    "Untyped": torch.uint8,
}
# Name of a storage class (FloatStorage) or of a data type (float32) -> data type.
TYPES = {f"{name}Storage": kind for name, kind in DTYPES.items()}
TYPES |= {str(kind).removeprefix("torch."): kind for kind in DTYPES.values()}


class Ignored:
    """Placeholder for an ignored class and for all objects of this class; it holds only the class name."""

    def __init__(self, name: str):
        self.name = name

    def append(self, item: Any) -> None:
        """Drop an item that a pickle appends to an ignored object, such as one derived from ``list``."""

    def extend(self, items: list) -> None:
        """Drop items that a pickle appends to an ignored object, such as one derived from ``list``."""


def kind(value: Any) -> str:
    """Return the name of a value's class; for an `Ignored` object, the name of the ignored class."""
    return value.name if isinstance(value, Ignored) else type(value).__name__


def make_table(items: Any = ()) -> dict:
    """Make a dict of text and small-integer keys; refuse other keys, which can take forever to hash."""
    items = dict.items(items) if isinstance(items, dict) else [(key, value) for key, value in items]
    for key, _ in items:
        if not isinstance(key, str | Ignored) and not (isinstance(key, int) and abs(key) < MAX_KEY):
            raise RefusedFile(f"a dict with a key that is no text but a {type(key).__name__}")
    return {key: value for key, value in items if not isinstance(key, Ignored)}


def _no_bytes(*arguments: Any) -> bytes:
    """Return b"" for ``bytes()`` in pickles for Python 2; refuse arguments, which can ask for huge data."""
    if arguments:
        raise RefusedFile("builtins.bytes")
    return b""


def _empty(*_: Any) -> dict:
    return {}


def _tensor(storage: Tensor, start: int, shape: tuple, strides: tuple, *settings: Any) -> Tensor:
    """Return a view of a storage; raise RefusedFile if `settings[2:]` mark a conjugate or negative view."""
    if any(settings[2:]):
        raise RefusedFile("a conjugate or negative view of a tensor")
    if len(shape) > MAX_AXES or math.prod(shape) > max(len(storage), MAX_EXPANDED):
        raise RefusedFile(f"a tensor of repeated numbers with more than {MAX_EXPANDED} elements")
    return torch.as_strided(storage, shape, strides, start)


def _dtype(code: str, *_: Any) -> np.dtype | Ignored:
    if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16"):
        return Ignored(f"arrays of type {quoted(code)}")
    return np.dtype(code)


def _scalar(dtype: np.dtype, data: str | bytes) -> np.generic:
    return _array(data.encode("latin1") if isinstance(data, str) else data, dtype, (1,), "C")[0]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise RefusedFile(f"the text encoding {quoted(encoding)}")
    return text.encode("latin1")


def _array(data: Any, dtype: np.dtype, shape: tuple, order: str) -> np.ndarray:
    if not isinstance(dtype, np.dtype):
        # refuse nested tuples, from which numpy would build a data type
        raise TypeError("an array has no valid data type")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _data(data: Any, *_: Any) -> Any:
    return data


def _only_ignored(name: str) -> Callable:
    """Return a function that raises RefusedFile.

    The unpickler ignores calls with an ignored argument without running them, so these calls are not refused.
    """

    def refuse(*_: Any) -> Any:
        raise RefusedFile(name)

    return refuse


# (module, name) of each function and class that a pickle may name -> its replacement.
FUNCTIONS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): make_table,
    ("collections", "Counter"): make_table,
    # drop the argument, which is the class of the default values
    ("collections", "defaultdict"): _empty,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): "numpy.ndarray",
    ("numpy", "dtype"): _dtype,
    ("torch", "Size"): tuple,
    ("torch", "device"): _data,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _data,
    ("torch._utils", "_rebuild_parameter_with_state"): _data,
    ("torch.nn.parameter", "Parameter"): _data,
}
# Functions that run even if an argument is an `Ignored` object, because they do not read its data.
TOLERANT = (_data, _empty)
# Pickles for Python 2 call the module `builtins` by its name in Python 2, `__builtin__`.
for core in ("builtins", "__builtin__"):
    FUNCTIONS[core, "set"] = FUNCTIONS[core, "frozenset"] = list
    FUNCTIONS[core, "bytes"] = _no_bytes
    # Python 3.11 pickles a member of an enumeration as getattr(CLASS, NAME)
    FUNCTIONS[core, "getattr"] = _only_ignored("builtins.getattr")
# Functions that pickles call to make generic types (list[int]), unions and partial functions, and functions
# that pickles for Python 2 call to make objects.
CALLS = """operator.getitem _operator.getitem functools.reduce _functools.reduce __builtin__.reduce
    functools.partial _functools.partial copyreg._reconstructor copy_reg._reconstructor""".split()
for name in CALLS:
    core, _, last = name.rpartition(".")
    FUNCTIONS[core, last] = _only_ignored(name)
# The package is numpy.core in numpy 1 and numpy._core in numpy 2.
for core in ("numpy.core", "numpy._core"):
    FUNCTIONS[f"{core}.multiarray", "_reconstruct"] = lambda *_: np.empty(0)
    FUNCTIONS[f"{core}.multiarray", "scalar"] = _scalar
    FUNCTIONS[f"{core}.numeric", "_frombuffer"] = _array
