"""Files that a reader never sees half of, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

# errors of a disk that is full
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# in the names of hidden files and folders that are being written, or were when their writer was killed
PART = ".part"
LOCK = "lock"  # of a hidden folder; a folder with .lock is a run


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit its file is flushed to disk and takes the
    name `path`.

    What a killed writer of the same file left is written over.

    Raises
    ------
    OSError
        Where the disk is full: names `path`.
    """
    with named_where_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, handle = _part_of(path)
        try:
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
def room_beside(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `folder`, to make in it what takes that name; it is removed at the end.

    What a killed writer of the same folder left there is removed first.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    room, handle = _room_of(folder)
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)
        if handle is not None:
            os.close(handle)


@contextmanager
def named_where_full(path: Path) -> Iterator[None]:
    """Let an error that tells of a full disk name the file that had no room, which a failed write does not;
    what names a file of another folder stays."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and Path(error.filename).parent != path.parent
        if error.errno not in NO_ROOM or elsewhere:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left half-written in a folder and below it, and nothing that is being
    written now."""
    for path in folder.rglob(f".*{PART}*"):
        handle = _opened(path, os.O_RDWR)
        if handle is not None:
            path.unlink(missing_ok=True)
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_name(name: str) -> str:
    """A name as one part of a path: networks of other packages may be named by folders."""
    return re.sub(r"[^\w.-]+", "--", name.strip("/"))


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _part_of(path: Path) -> tuple[Path, int | None]:
    """An empty temporary file for `path`, and the handle that keeps it locked (None: nothing can be locked).

    Its name is always the same, so that a killed writer leaves one at most, and the next one takes it over;
    where somebody else writes to that one now, another.
    """
    part = path.with_name(f".{path.stem}{PART}{path.suffix}")  # same suffix: some writers choose by it
    handle = _opened(part, os.O_RDWR | os.O_CREAT)
    if handle is not None:
        os.ftruncate(handle, 0)
        return part, handle
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}{PART}-", suffix=path.suffix)
    os.close(handle)
    return Path(name), _opened(Path(name), os.O_RDWR)


def _room_of(folder: Path) -> tuple[Path, int | None]:
    """An empty hidden folder, and the handle of the file that keeps it locked, as `_part_of` has them."""
    room = folder.with_name(f".{folder.name}{PART}")
    room.mkdir(exist_ok=True)
    handle = _opened(room / LOCK, os.O_RDWR | os.O_CREAT)
    if handle is None:
        with suppress(OSError):  # it stays where somebody else has it
            room.rmdir()
        return Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{room.name}-")), None
    for path in room.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path)
    return room, handle


def _opened(part: Path, flags: int) -> int | None:
    """Open a temporary file and lock it; None where it is not there, somebody else has it, or this system
    cannot lock it."""
    if fcntl is None:
        return None
    try:
        handle = os.open(part, flags | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), part.stat()):  # nobody has finished or removed it meanwhile
            return handle
    except OSError:
        pass  # locked, or gone
    os.close(handle)
    return None
