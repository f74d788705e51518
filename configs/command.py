"""How a command ends: results on stdout, one line on stderr for what stopped it, and an exit status."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable

from configs import UserError


class Terminated(BaseException):
    """Somebody asked this process to end: what is open is flushed and closed on the way out."""


def exit_status(work: Callable[[], int | None]) -> int:
    """Do the work of a command; return its exit status: what `work` returns (None: 0), 2 where the user can
    put right what stopped it, 128 and the number of the signal that did."""
    start_logging()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return work() or 0
    except UserError as error:
        return report(error)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGINT
    except Terminated:
        print("terminated; the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGTERM
    except BrokenPipeError:  # somebody who reads along, as `head` does, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed to nowhere
        print("nobody reads the output any more; the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" for {error.filename}" if error.filename else ""
        return report(UserError(f"no room on the disk{where}: free some; the same command goes on from here"))


def report(error: UserError) -> int:
    """Print an error as one line; return the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def start_logging() -> None:
    """Log to stderr, so that stdout holds results alone."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


def _terminate(*_) -> None:
    """Handle SIGTERM; once, so that flushing is not disturbed by another."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
