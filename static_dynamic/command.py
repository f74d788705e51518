"""How a command begins and ends: options as its file describes them, results on stdout, one line on stderr
for what stopped it, and an exit status."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import NoReturn

from static_dynamic.errors import UserError
from static_dynamic.files import NO_ROOM

# errors of a place that may not be used, or holds a file where a folder is expected, or the reverse
WRONG_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


class Terminated(BaseException):
    """Somebody asked this process to end: what is open is flushed and closed on the way out."""


class Options(argparse.ArgumentParser):
    """The options of a command, under its file's docstring; a wrong one is an error of one line, too."""

    def __init__(self, description: str | None = None, **settings):
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise UserError: says what is wrong with the options."""
        raise UserError(f"{message.removeprefix('argument ')} ({self.prog} --help lists the options)")


def positive(text: str) -> int:
    """Read an option's value: a whole number from 1 on.

    Raises
    ------
    ArgumentTypeError
        What is none: becomes an error of one line.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on is expected, not {text}")
    return int(text)


def command(work: Callable[..., int | None]) -> Callable[..., int]:
    """Decorate what does the work of a command: it returns its exit status then, as `exit_status` says."""

    @wraps(work)
    def main(*arguments, **named) -> int:
        return exit_status(partial(work, *arguments, **named))

    return main


def exit_status(work: Callable[[], int | None]) -> int:
    """Do the work of a command; return its exit status: what `work` returns (None: 0), 2 where the user can
    put right what stopped it, 128 and the number of the signal that did."""
    start_logging()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _printed(work) or 0
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
        return report(as_user_error(error))


def as_user_error(error: OSError) -> UserError:
    """What the user can put right of what the system says: a full disk, a place that may not be used; errors
    of other kinds are raised again."""
    where = f" for {error.filename}" if error.filename else ""
    if error.errno in NO_ROOM:
        return UserError(f"no room on the disk{where}: free some; the same command goes on from here")
    if error.errno in WRONG_PLACE and error.filename:
        place = error.filename2 or error.filename  # of a file that takes another's name, that name
        return UserError(f"{place} cannot be used ({os.strerror(error.errno).lower()}): name another place")
    raise error


def report(error: UserError) -> int:
    """Print an error as one line; return the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def start_logging() -> None:
    """Log to stderr, so that stdout holds results alone."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


def _printed(work: Callable[[], int | None]) -> int | None:
    """Do the work and flush what it printed, so that a reader who has gone is noticed here."""
    try:
        status = work()
    except SystemExit:  # of --help
        print(end="", flush=True)
        raise
    print(end="", flush=True)
    return status


def _terminate(*_) -> None:
    """Handle SIGTERM; once, so that flushing is not disturbed by another."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
