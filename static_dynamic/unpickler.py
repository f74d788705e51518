"""Unpickler that builds data only: text, numbers, containers, numpy arrays and dense tensors.

A pickle is a program for a small machine. This machine knows only the operations, functions and classes that
such data need; a pickle that asks for anything else is refused, so that nothing in a file can act.
"""

import math
import pickle
import struct
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from static_dynamic.errors import RefusedFile, quoted

# Largest number of operations of one pickle; a network needs about 50 operations per tensor.
MAX_READS = 3_000_000
# Integers from MAX_KEY on are refused as dict keys: many can share one hash, which makes a dict slow.
MAX_KEY = 2**60
# Number of bytes that the objects of a pickle may take beyond twice the file's size.
ROOM = 2**28
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
OPERATIONS = """proto frame binpersid none false true binint binint1 binint2 long1 binfloat binstring binbytes
    binunicode binunicode8 binbytes8 bytearray8 short_binstring short_binbytes short_binunicode tuple
    empty_tuple tuple1 tuple2 tuple3 empty_list empty_dictionary newobj global stack_global reduce binget
    long_binget binput long_binput memoize append appends setitem setitems build mark stop""".split()


class StandIn:
    """Class without methods that replaces the class of a pickled object and holds the object's state."""


class _Bounded:
    """Binary file that allows at most MAX_READS reads and no read of more bytes than the file has."""

    def __init__(self, file: IO[bytes], size: int):
        self.file, self.size, self.left = file, size, MAX_READS

    def read(self, count: int) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise RefusedFile(f"more than {MAX_READS} operations")
        data = self.file.read(count) if count <= self.size else b""
        if len(data) < count:
            raise EOFError("the file is cut off")
        return data

    def readline(self) -> bytes:
        return self.file.readline()


# The base class is the unpickler in Python, because operations of the unpickler in C cannot be replaced.
_Base: Any = pickle._Unpickler  # type: ignore[attr-defined]


class Unpickler(_Base):
    """Unpickler of allowed objects; `storage` returns the 1-D tensor that a reference to a storage names."""

    dispatch = {
        code: work
        for code, work in _Base.dispatch.items()
        if work.__name__.removeprefix("load_") in OPERATIONS
    }

    def __init__(
        self,
        file: IO[bytes],
        size: int,
        classes: Mapping[str, set[str]],
        storage: Callable[[tuple], Any] | None = None,
    ):
        # Files that Python 2 wrote hold byte strings, which latin1 keeps unchanged.
        super().__init__(_Bounded(file, size), encoding="latin1")
        self.classes, self.storage = classes, storage
        self.room = 2 * size + ROOM

    def persistent_load(self, saved: Any) -> Any:
        """Return the storage (1-D tensor) that a reference in the pickle names."""
        if self.storage is None or not isinstance(saved, tuple):
            raise RefusedFile("a reference to another object")
        return self.storage(saved)

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a class or function; raise RefusedFile if its name is not allowed."""
        if (module, name) in FUNCTIONS:
            return FUNCTIONS[module, name]
        if name in self.classes.get(module, ()):
            return type(name, (StandIn,), {})
        if module in ("torch", "torch.cuda", "torch.storage") and name in TYPES:
            return TYPES[name]
        raise RefusedFile(f"{module}.{name}")

    def load_setitem(self) -> None:
        """Run the pickle operation SETITEM: put one value into a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def load_setitems(self) -> None:
        """Run the pickle operation SETITEMS: put several values into a dict."""
        self._update(self.pop_mark())

    def _update(self, items: list) -> None:
        """Put keys and values, which alternate in `items`, into the dict on top of the stack."""
        target = self.stack[-1]
        if type(target) is not dict:
            raise TypeError("keys are given to an object that is not a dict")
        target.update(_table(zip(items[::2], items[1::2], strict=True)))

    def load_reduce(self) -> None:
        """Run the pickle operation REDUCE: call a function with a tuple of arguments."""
        arguments, function = self.stack.pop(), self.stack[-1]
        # Check the types here, because Python's error message would print the object, whose text can be huge.
        if not callable(function) or not isinstance(arguments, tuple):
            raise TypeError("an object that is not a function is called")
        self.stack[-1] = function(*arguments)
        self._take(sys.getsizeof(self.stack[-1]))

    def load_newobj(self) -> None:
        """Run the pickle operation NEWOBJ: make an object of a class."""
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not (isinstance(kind, type) and issubclass(kind, StandIn)) or arguments != ():
            raise TypeError("an object is made of a class that is not allowed")
        self.append(kind())

    def _take(self, count: int) -> None:
        """Count the bytes of new objects; raise RefusedFile if their sum is far beyond the file's size."""
        self.room -= count
        if self.room < 0:
            raise RefusedFile("many copies of the same data")

    def load_build(self) -> None:
        """Run the pickle operation BUILD: set the state of an object."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.ndarray):
            target.__setstate__(state)
            self._take(target.nbytes)
        elif isinstance(target, np.dtype):
            if state[1] not in ("<", "|", "="):
                raise RefusedFile("big-endian arrays")
        elif isinstance(target, StandIn):
            self._take(sys.getsizeof(state))
            vars(target).update(state)
        elif not isinstance(target, dict | Tensor):
            # the state of a dict or tensor is ignored; state for any other object is refused
            raise TypeError("state is given to an object that has none")

    def load_frame(self) -> None:
        """Run the pickle operation FRAME: skip the frame's length, which only reading ahead would need."""
        self.read(8)

    def load_bytearray8(self) -> None:
        """Run the pickle operation BYTEARRAY8: read a bytearray."""
        self.append(bytearray(self.read(struct.unpack("<Q", self.read(8))[0])))

    for work in (
        load_reduce,
        load_newobj,
        load_setitem,
        load_setitems,
        load_build,
        load_frame,
        load_bytearray8,
    ):
        dispatch[getattr(pickle, work.__name__.removeprefix("load_").upper())[0]] = work
    del work


def _table(items: Any = ()) -> dict:
    """Make a dict of text and small-integer keys; refuse other keys, which can take forever to hash."""
    items = dict.items(items) if isinstance(items, dict) else [(key, value) for key, value in items]
    for key, _ in items:
        if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < MAX_KEY):
            raise TypeError(f"a key is a {type(key).__name__}, not text")
    return {key: value for key, value in items}


def _tensor(storage: Tensor, start: int, shape: tuple, strides: tuple, *settings: Any) -> Tensor:
    """Return a view of a storage; raise RefusedFile if `settings[2:]` mark a conjugate or negative view."""
    if any(settings[2:]):
        raise RefusedFile("a conjugate or negative view of a tensor")
    if len(shape) > MAX_AXES or math.prod(shape) > max(len(storage), MAX_EXPANDED):
        raise RefusedFile(f"a tensor of repeated numbers with more than {MAX_EXPANDED} elements")
    return torch.as_strided(storage, shape, strides, start)


def _dtype(code: str, *_: Any) -> np.dtype:
    if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16"):
        raise RefusedFile(f"arrays of type {quoted(code)}")
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


# (module, name) of each function and class that a pickle may name -> its replacement.
FUNCTIONS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _table,
    ("collections", "Counter"): _table,
    ("builtins", "set"): list,
    ("__builtin__", "set"): list,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): "numpy.ndarray",
    ("numpy", "dtype"): _dtype,
    ("torch", "Size"): tuple,
    ("torch", "device"): _data,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _data,
    ("torch.nn.parameter", "Parameter"): _data,
}
# The package is numpy.core in numpy 1 and numpy._core in numpy 2.
for core in ("numpy.core", "numpy._core"):
    FUNCTIONS[f"{core}.multiarray", "_reconstruct"] = lambda *_: np.empty(0)
    FUNCTIONS[f"{core}.multiarray", "scalar"] = _scalar
    FUNCTIONS[f"{core}.numeric", "_frombuffer"] = _array
