"""Write files and folders atomically, remove temporary files of killed processes, and compute hashes.

A file is written under a hidden temporary name in the target's folder, flushed, and renamed. The writer locks
the file, so that the next writer can tell a leftover of a killed process from a file that is being written.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:
    # Windows has no fcntl, so files are written without locks on Windows
    fcntl = None

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# Part of the name of every temporary file and folder.
PART = ".part"
# Name of a file in each temporary folder; this file is locked while the folder is written.
LOCK = "lock"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit, flush the file and rename the file to `path`.

    The name of the temporary file follows from `path`: killed writers leave at most one file, which the next
    writer overwrites. The OSError of a full disk names `path`.
    """
    with name_in_disk_full_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The temporary name keeps the suffix, because some writers choose the file format by the suffix.
        temporary = path.with_name(f".{path.stem}{PART}{path.suffix}")
        handle = _open_locked(temporary, os.O_RDWR | os.O_CREAT)
        if handle is None:
            # if another process holds the lock, or locks are not supported, use a random temporary name
            prefix = f".{path.stem}{PART}-"
            new, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
            os.close(new)
            temporary = Path(name)
            handle = _open_locked(temporary, os.O_RDWR)
        try:
            if handle is not None:
                os.ftruncate(handle, 0)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            if handle is not None:
                os.close(handle)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder` to prepare content in; remove the temporary folder at the end.

    Content that a killed writer of the same `folder` left in the temporary folder is removed first.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}{PART}")
    temporary.mkdir(exist_ok=True)
    handle = _open_locked(temporary / LOCK, os.O_RDWR | os.O_CREAT)
    if handle is None:
        # if another process holds the lock, or locks are not supported, use a folder with a random name
        with suppress(OSError):
            # remove the folder if it is empty; rmdir fails otherwise
            temporary.rmdir()
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{temporary.name}-"))
    try:
        for path in temporary.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if handle is not None:
            os.close(handle)


@contextmanager
def name_in_disk_full_error(path: Path) -> Iterator[None]:
    """Add `path` to an error about a full disk, since the error of a failed write names no file.

    An error that names a file in another folder is left unchanged.
    """
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and Path(error.filename).parent != path.parent
        if error.errno not in DISK_FULL or elsewhere:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files below `folder` whose writers were killed; keep files that are being written."""
    for path in folder.rglob(f".*{PART}*"):
        handle = _open_locked(path, os.O_RDWR)
        if handle is not None:
            path.unlink(missing_ok=True)
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_name(name: str) -> str:
    """Turn a network's name, which may contain slashes, into one valid path component."""
    found = re.sub(r"[^\w.-]+", "--", name.strip("/"))
    # replace a name of dots alone, because "." and ".." mean folders
    return found if found.strip(".") else "unnamed"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(value: object) -> str:
    """Return the SHA-256, in hex, of a value's JSON text with sorted keys: equal values have equal hashes."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _open_locked(part: Path, flags: int) -> int | None:
    """Open and lock a temporary file; return the file descriptor.

    Return None if the file does not exist, another process holds its lock, or the system has no locks.
    """
    if fcntl is None:
        return None
    try:
        handle = os.open(part, flags | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Check that no other writer renamed or removed the file before the lock was taken.
        if os.path.samestat(os.fstat(handle), part.stat()):
            return handle
    except OSError:
        # another process holds the lock or has removed the file, so the function returns None
        pass
    os.close(handle)
    return None
