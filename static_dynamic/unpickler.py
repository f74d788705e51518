"""Unpickler that builds data only: text, numbers, containers, numpy arrays and dense tensors.

A pickle is a program for a small machine. This machine knows only the operations, functions and classes that
such data need. An object of a class that only describes a training run (``argparse.Namespace``, a user's
config) becomes an `Ignored` object: the class is not imported, nothing is called, and the state of the object
is dropped. `ignored_classes` says which classes these are. A pickle that asks for anything else is refused.
"""

import pickle
import struct
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np
from torch import Tensor

from static_dynamic.errors import RefusedFile
from static_dynamic.ignored_classes import is_ignored
from static_dynamic.pickle_functions import FUNCTIONS, TOLERANT, TYPES, Ignored, make_table

# Largest number of operations of one pickle; a network needs about 50 operations per tensor.
MAX_READS = 3_000_000
# Number of bytes that the objects of a pickle may take beyond twice the file's size.
ROOM = 2**28
# Largest number of ignored classes in one pickle, and largest number of characters of the name of a class.
MAX_IGNORED = 1000
MAX_CLASS_NAME = 1000
# Largest number of arguments of a call.
MAX_ARGUMENTS = 100

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
    """Unpickler that builds allowed objects, replaces ignored ones by placeholders, and refuses all others.

    Parameters
    ----------
    classes
        Module name -> names of classes whose objects become `StandIn` objects.
    ignored
        Dict to which the names of the classes of ignored objects are added, as keys in the order of the file.
        None refuses these objects.
    storage
        Function that returns the 1-D tensor which a reference to a storage names.
    """

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
        ignored: dict[str, None] | None,
        storage: Callable[[tuple], Any] | None = None,
    ):
        # Files that Python 2 wrote hold byte strings, which latin1 keeps unchanged.
        super().__init__(_Bounded(file, size), encoding="latin1")
        self.classes, self.storage, self.ignored = classes, storage, ignored
        # (module, name) of an ignored class -> placeholder of the class
        self.placeholders: dict[tuple[str, str], Ignored] = {}
        self.room = 2 * size + ROOM

    def persistent_load(self, saved: Any) -> Any:
        """Return the storage (1-D tensor) that a reference in the pickle names."""
        if self.storage is None or not isinstance(saved, tuple):
            raise RefusedFile("a reference to another object")
        return self.storage(saved)

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a class or function; raise RefusedFile if its name is not allowed."""
        if max(len(module), len(name)) > MAX_CLASS_NAME:
            raise RefusedFile(f"a class with a name of more than {MAX_CLASS_NAME} characters")
        if (module, name) in FUNCTIONS:
            return FUNCTIONS[module, name]
        if name in self.classes.get(module, ()):
            return type(name, (StandIn,), {})
        if module in ("torch", "torch.cuda", "torch.storage") and name in TYPES:
            return TYPES[name]
        if self.ignored is None or not is_ignored(module, name):
            raise RefusedFile(f"{module}.{name}")
        if (module, name) not in self.placeholders and len(self.placeholders) == MAX_IGNORED:
            raise RefusedFile(f"more than {MAX_IGNORED} classes of objects")
        return self.placeholders.setdefault((module, name), Ignored(f"{module}.{name}"))

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
        if isinstance(target, Ignored):
            return
        if type(target) is not dict:
            raise TypeError("keys are given to an object that is not a dict")
        target.update(make_table(zip(items[::2], items[1::2], strict=True)))

    def load_reduce(self) -> None:
        """Run the pickle operation REDUCE: call a function with a tuple of arguments."""
        arguments, function = self.stack.pop(), self.stack[-1]
        if isinstance(function, Ignored):
            # the placeholder of the class stays on the stack and stands for the object
            self._note(function)
            return
        # Check the types here, because Python's error message would print the object, whose text can be huge.
        if not callable(function) or not isinstance(arguments, tuple):
            raise TypeError("an object that is not a function is called")
        if len(arguments) > MAX_ARGUMENTS:
            raise TypeError("a function is called with too many arguments")
        # count the arguments too, because a pickle can pass one long list to many calls
        self._take(sum(sys.getsizeof(a) for a in arguments if isinstance(a, list | tuple | dict)))
        missing = [value for value in arguments if isinstance(value, Ignored)]
        if missing and function not in TOLERANT:
            # do not call the function: the result of a call with an ignored argument is ignored too
            self._note(missing[0])
            self.stack[-1] = missing[0]
            return
        self.stack[-1] = function(*arguments)
        self._take(sys.getsizeof(self.stack[-1]))

    def load_newobj(self) -> None:
        """Run the pickle operation NEWOBJ: make an object of a class."""
        arguments, kind = self.stack.pop(), self.stack.pop()
        if isinstance(kind, Ignored):
            self._note(kind)
            self.append(kind)
            return
        if not (isinstance(kind, type) and issubclass(kind, StandIn)) or arguments != ():
            raise TypeError("an object is made of a class that is not allowed")
        self.append(kind())

    def _note(self, placeholder: Ignored) -> None:
        """Add the class of an ignored object to `ignored`; raise RefusedFile if such objects are refused."""
        if self.ignored is None:
            raise RefusedFile(placeholder.name)
        if len(self.ignored) == MAX_IGNORED and placeholder.name not in self.ignored:
            raise RefusedFile(f"objects of more than {MAX_IGNORED} classes")
        self.ignored[placeholder.name] = None

    def _take(self, count: int) -> None:
        """Count the bytes of new objects; raise RefusedFile if their sum is far beyond the file's size."""
        self.room -= count
        if self.room < 0:
            raise RefusedFile("many copies of the same data")

    def load_build(self) -> None:
        """Run the pickle operation BUILD: set the state of an object."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.ndarray):
            if isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], Ignored):
                # leave the array empty, because its data type is ignored (text, objects)
                self._note(state[2])
                return
            target.__setstate__(state)
            self._take(target.nbytes)
        elif isinstance(target, np.dtype):
            if state[1] not in ("<", "|", "="):
                raise RefusedFile("big-endian arrays")
        elif isinstance(target, StandIn):
            self._take(sys.getsizeof(state))
            vars(target).update(state)
        elif not isinstance(target, dict | Tensor | Ignored):
            # the state of a dict, tensor or placeholder is dropped; state for any other object is refused
            raise TypeError("state is given to an object that has none")

    def load_empty_set(self) -> None:
        """Run the pickle operation EMPTY_SET: make a list, because hashes of hostile items take forever."""
        self.append([])

    def load_additems(self) -> None:
        """Run the pickle operation ADDITEMS: add items to the list that stands for a set."""
        items, target = self.pop_mark(), self.stack[-1]
        if not isinstance(target, list | Ignored):
            raise TypeError("items are given to an object that is not a set")
        target.extend(items)

    def load_frozenset(self) -> None:
        """Run the pickle operation FROZENSET: make a list of the items."""
        # call `pop_mark` first, because `pop_mark` assigns a new function to `self.append`
        items = self.pop_mark()
        self.append(items)

    def load_frame(self) -> None:
        """Run the pickle operation FRAME: skip the frame's length, which is only for reading ahead."""
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
        load_empty_set,
        load_additems,
        load_frozenset,
        load_frame,
        load_bytearray8,
    ):
        dispatch[getattr(pickle, work.__name__.removeprefix("load_").upper())[0]] = work
    del work
