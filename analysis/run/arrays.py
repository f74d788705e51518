"""The ``.npy`` files of a run folder: creation, disk space, reading, and a checksum per row."""

import errno
import mmap
import os
import zlib
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

from static_dynamic.analysis.run.manifest import columns_of
from static_dynamic.analysis.run.tables import TABLES, sha256_of_tables
from static_dynamic.errors import DamagedRun, UserError, reason
from static_dynamic.files import DISK_FULL, atomic_path, name_in_disk_full_error

STATUS_NAME, CHECKSUMS_NAME, PIXELS_NAME = "status.npy", "checksums.npy", "pixels.npy"
# To limit memory, files of activations are written and checked in blocks of this many numbers.
NUMBERS_AT_A_TIME = 2**22


def activation_file(path: Path, stage: str) -> Path:
    """Return the path of the file with the activations of one stage of the run in folder `path`."""
    return path / "activations" / f"{stage.replace('/', '--')}.npy"


def create_files(path: Path, manifest: dict, views: pd.DataFrame, pairs: pd.DataFrame) -> dict:
    """Create the files of a new run, all but the manifest; the arrays hold zeros.

    Returns the manifest with the hashes of the tables. Raises UserError if the disk is too small.
    """
    shard = manifest["identity"].get("shard")
    rows = shard["end"] - shard["first"] if shard else len(views)
    (path / "activations").mkdir(parents=True, exist_ok=True)
    columns = columns_of(manifest)
    files = {activation_file(path, name): count for name, count in columns.items()}
    for file, count in files.items():
        create_zeros(file, np.float32, (rows, count))
    for name, table in zip(TABLES, (views, pairs), strict=True):
        with atomic_path(path / name) as temporary:
            table.to_parquet(temporary, index=False)
    create_zeros(path / STATUS_NAME, np.uint8, (rows,))
    create_zeros(path / CHECKSUMS_NAME, np.uint32, (rows, len(columns)))
    create_zeros(path / PIXELS_NAME, np.uint32, (rows,))
    reserve_space([path / name for name in (STATUS_NAME, CHECKSUMS_NAME, PIXELS_NAME)] + list(files))
    return manifest | {"files_sha256": sha256_of_tables(path)}


def create_zeros(file: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Create a ``.npy`` file of zeros that can be memory-mapped; overwrite an existing file."""
    with name_in_disk_full_error(file):
        open_memmap(file, "w+", dtype, shape).flush()


def fill_with_nan(file: Path) -> None:
    """Set all numbers of a float32 ``.npy`` file to NaN."""
    stored = np.load(file, mmap_mode="r")
    block = np.full(min(stored.size, NUMBERS_AT_A_TIME), np.nan, np.float32)
    with name_in_disk_full_error(file), file.open("r+b") as opened:
        opened.seek(stored.offset)
        for start in range(0, stored.size, NUMBERS_AT_A_TIME):
            opened.write(block.data[: stored.size - start])


def reserve_space(files: list[Path]) -> None:
    """Allocate the disk space of files, because writing to a memory map on a full disk kills the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    for file in files:
        with file.open("r+b") as opened:
            size = os.fstat(opened.fileno()).st_size
            try:
                os.posix_fallocate(opened.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (*DISK_FULL, errno.EFBIG):
                    # ignore the error: some file systems cannot allocate disk space in advance
                    return
                raise UserError(
                    f"no space on the disk for {file} ({size / 2**20:.0f} MiB): free some space and "
                    "give the same command again, or give another save_dir"
                ) from error


def open_array(file: Path, dtype: DTypeLike, shape: tuple[int, ...], mode: Literal["r", "r+"]) -> np.memmap:
    """Memory-map an array file of a run; raise DamagedRun if it is damaged or has another type or shape."""
    wrong = ""
    try:
        array = np.load(file, mmap_mode=mode)
        if array.dtype != dtype or array.shape != shape:
            wrong = f"{array.dtype} {array.shape} where the manifest says {np.dtype(dtype)} {shape}"
    except Exception as error:  # for a damaged header, numpy can raise any exception
        wrong = reason(error)
    if wrong:
        raise DamagedRun(f"{file} is damaged ({wrong}): remove this folder and run again")
    return array


def release(array: NDArray) -> None:
    """Give the memory of a memory-mapped array back to the system; the numbers stay on disk."""
    if isinstance(array, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        array.flush()
        cast(mmap.mmap, array._mmap).madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def checksums_of(rows: NDArray) -> NDArray:
    """Return the CRC-32 of each row of float32 activations, with 0 replaced by 1: 0 means no checksum."""
    sums = [zlib.crc32(np.ascontiguousarray(row).data) or 1 for row in rows]
    return np.array(sums, np.uint32)


def first_damaged(rows: NDArray, numbers: NDArray, sums: NDArray) -> int | None:
    """Return the first row number in `numbers` whose row does not match its checksum; None if all match."""
    step = max(1, NUMBERS_AT_A_TIME // max(1, rows.shape[1]))
    for start in range(0, len(numbers), step):
        part = numbers[start : start + step]
        wrong = np.flatnonzero(checksums_of(rows[part]) != sums[part])
        if len(wrong):
            return int(part[wrong[0]])
    return None
