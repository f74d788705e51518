"""The lock of a run folder: one process at a time writes to a run.

The lock is released when the process ends or is killed. Forked workers do not inherit the lock.
"""

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import IO

from static_dynamic.errors import UserError
from static_dynamic.files import remove_leftovers, write_text

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no module fcntl
    fcntl = None

log = logging.getLogger(__name__)

LOCK_NAME, ERROR_NAME = ".lock", "error.txt"
# Waits in seconds before each retry: `is_locked` or an ending process may hold the lock for a moment.
LOCK_WAITS = (0.1, 0.3)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a run folder during a ``with`` block, and remove half-written files of killed processes.

    Raises UserError if another process holds the lock.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOCK_NAME).open("a") as file:
        if fcntl is None:
            log.warning("%s cannot be locked on this system: let no other run write there", path)
        elif not _take_lock(file, path, LOCK_WAITS):
            raise UserError(
                f"another run is writing to {path}: wait until that run ends (see task=status), "
                "or give another save_dir"
            )
        remove_leftovers(path)
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Lock a run folder during a ``with`` block; write the text of a raised UserError to ``error.txt``."""
    with locked(path):
        (path / ERROR_NAME).unlink(missing_ok=True)
        try:
            yield
        except UserError as error:
            # the message cannot be written if the disk is full
            with suppress(OSError):
                write_text(path / ERROR_NAME, f"{error}\n")
            raise


def is_locked(path: Path) -> bool:
    """Return whether another process is writing to a run folder."""
    try:
        with (path / LOCK_NAME).open("r+") as file:
            return fcntl is not None and not _take_lock(file, path)
    except OSError:
        # the lock file does not exist, or belongs to another user
        return False


def _take_lock(file: IO, path: Path, waits: tuple[float, ...] = ()) -> bool:
    """Lock a file, trying again after each of `waits` (seconds); return False if another process holds it."""
    assert fcntl is not None
    for wait in (*waits, None):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                log.warning("%s lies on a file system without locks: let no other run write there", path)
                return True
        if wait is not None:
            time.sleep(wait)
    return False
