"""Read torch checkpoints (zip archives and legacy files) and pickles of numpy arrays, without running code.

The unpickler builds data only, and ignores objects that are neither text, numbers, containers, arrays nor
tensors, such as the options of a training script. Reading takes little more memory than the size of the file,
whatever sizes the file states. The CRC of each record of a zip archive is checked.
"""

import logging
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from static_dynamic.errors import MAX_NAME, RefusedFile, one_line, quoted
from static_dynamic.pickle_functions import Ignored, kind
from static_dynamic.unpickler import Unpickler

log = logging.getLogger(__name__)

# Number of bytes that are read at once from a zip record.
CHUNK = 2**24
ZIP_MAGIC = b"PK"
PICKLE_MAGIC = b"\x80"
# Legacy torch files begin with the pickled numbers LEGACY_MAGIC and LEGACY_PROTOCOL.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
# Number of ignored classes that the log names.
SHOWN = 5


def read_pickled(path: Path, classes: Mapping[str, set[str]] | None = None) -> Any:
    """Read a file that torch.save wrote, or a pickle of numpy arrays; return None for any other file.

    Objects of other classes, such as ``argparse.Namespace``, become `Ignored` objects without data, and the
    log names their classes. With `classes` (module name -> class names), objects of these classes become
    `StandIn` objects and objects of any other class are refused. Raises RefusedFile if the file asks for what
    is not allowed, or holds nothing but an ignored object, and various exceptions if the file is damaged.
    """
    size = path.stat().st_size
    ignored: dict[str, None] | None = {} if classes is None else None
    with path.open("rb") as file:
        reader = _Reader(file, size, classes or {}, ignored)
        head = file.read(2)
        file.seek(0)
        if head == ZIP_MAGIC:
            content = _read_zip(file, size, reader)
        elif head[:1] == PICKLE_MAGIC:
            content = reader.load()
            if isinstance(content, int) and content == LEGACY_MAGIC:
                content = _read_legacy(file, size, reader)
        else:
            return None
    if isinstance(content, Ignored):
        raise RefusedFile(content.name)
    if ignored:
        names = [one_line(name, MAX_NAME) for name in list(ignored)[:SHOWN]]
        more = f" and {len(ignored) - SHOWN} more classes" if len(ignored) > SHOWN else ""
        log.info("%s: objects of %s%s beside the tensors are ignored", path, ", ".join(names), more)
    return content


@dataclass(frozen=True)
class _Reader:
    """File that holds one or more pickles, and the settings of the unpicklers that read these pickles."""

    file: IO[bytes]
    size: int
    classes: Mapping[str, set[str]]
    ignored: dict[str, None] | None

    def load(self, storage: Callable[[tuple], Any] | None = None, file: IO[bytes] | None = None) -> Any:
        """Read one pickle from `file`; if `file` is None, from the current position of this reader's file."""
        return Unpickler(file or self.file, self.size, self.classes, self.ignored, storage).load()


def _check_type(dtype: Any) -> None:
    """Raise RefusedFile if the data type of a storage is not a data type of torch."""
    if not isinstance(dtype, torch.dtype):
        raise RefusedFile(kind(dtype))


def _read_zip(file: IO[bytes], size: int, reader: _Reader) -> Any:
    """Read a torch zip archive: record data.pkl holds the pickle, record data/KEY holds storage KEY."""
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: info for info in archive.infolist()}
        if any(name.endswith("constants.pkl") for name in records):
            raise RefusedFile("a TorchScript program")
        if len(records) < len(archive.infolist()) or sum(r.file_size for r in records.values()) > size:
            raise ValueError("the records of the zip archive are larger than the file")
        (root,) = [name.removesuffix("data.pkl") for name in records if name.split("/")[1:] == ["data.pkl"]]
        storages: dict[str, Tensor] = {}

        def storage(saved: tuple) -> Tensor:
            kind, dtype, key, _, count = saved
            if kind != "storage" or not isinstance(key, str):
                raise RefusedFile("a reference to another object")
            _check_type(dtype)
            if key not in storages:
                storages[key] = _record(archive, records[f"{root}data/{key}"])
            if count * dtype.itemsize != len(storages[key]):
                raise ValueError(f"record {quoted(key)} has another size than its tensors")
            return storages[key].view(dtype)

        # the record is missing in files of older versions of torch, which are then read as little-endian
        order = records.get(f"{root}byteorder")
        if order is not None and _record(archive, order).numpy().tobytes() != b"little":
            raise ValueError("the numbers are big-endian")
        data = BytesIO(_record(archive, records[f"{root}data.pkl"]).numpy().tobytes())
        return reader.load(storage, data)


def _record(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    """Read a record into a uint8 tensor; raise BadZipFile if the CRC is wrong."""
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise RefusedFile(f"the compressed record {quoted(info.filename)}")
    data, start = torch.empty(info.file_size, dtype=torch.uint8), 0
    with archive.open(info) as record:
        # read to the end of the record, where the zip module checks the CRC
        while chunk := record.read(CHUNK):
            data.numpy()[start : start + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
            start += len(chunk)
    if start < len(data):
        raise EOFError(f"record {quoted(info.filename)} is cut off")
    return data


def _read_legacy(file: IO[bytes], size: int, reader: _Reader) -> Any:
    """Read a legacy torch file from LEGACY_PROTOCOL on: headers, content, storage keys, storage data."""
    storages: dict[str, Tensor] = {}
    left = size

    def storage(saved: tuple) -> Any:
        if saved[0] == "module":
            # return the class that the reference holds; ignore the source code of the class
            return saved[1]
        nonlocal left
        _, dtype, key, _, count, view = saved
        if not isinstance(key, str):
            raise RefusedFile("a reference to another object")
        _check_type(dtype)
        if key not in storages:
            left -= count * dtype.itemsize
            if left < 0:
                raise ValueError("the tensors are larger than the file")
            storages[key] = torch.empty(count * dtype.itemsize, dtype=torch.uint8).view(dtype)
        found = storages[key].view(dtype)
        return found if view is None else found[view[1] : view[1] + view[2]]

    if reader.load() != LEGACY_PROTOCOL or not reader.load()["little_endian"]:
        raise ValueError("the numbers are big-endian, or the version is unknown")
    content = reader.load(storage)
    keys = reader.load()
    if not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise ValueError("tensors without numbers")
    for key in keys:
        data = storages[key]
        count = struct.unpack("<q", file.read(8))[0]
        if count != len(data) or file.readinto(data.view(torch.uint8).numpy()) != data.nbytes:  # type: ignore[attr-defined]
            raise EOFError("the file is cut off")
    return content
