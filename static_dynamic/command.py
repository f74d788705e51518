"""Shared parts of every command: options, logging, exit status, and one line on stderr for an error."""

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
from static_dynamic.files import DISK_FULL

WRONG_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""Errors for a path without permission, or for a file where a folder is expected and the reverse."""


class Terminated(BaseException):
    """SIGTERM arrived: open files are flushed and closed while this exception passes."""


class Options(argparse.ArgumentParser):
    """Option parser: --help prints the description as it is written; a wrong option raises UserError."""

    def __init__(self, description: str | None = None, **settings):
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the message about the wrong option."""
        raise UserError(f"{message.removeprefix('argument ')} ({self.prog} --help lists the options)")


def positive(text: str) -> int:
    """Read an option's value as an integer of at least 1, for argparse.

    Raises
    ------
    ArgumentTypeError
        The text is not such a number.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on is expected, not {text}")
    return int(text)


def command(work: Callable[..., int | None]) -> Callable[..., int]:
    """Decorate the main function of a command, so that it returns the exit status of `exit_status`."""

    @wraps(work)
    def main(*arguments, **named) -> int:
        return exit_status(partial(work, *arguments, **named))

    return main


def exit_status(work: Callable[[], int | None]) -> int:
    """Run the work of a command; return its exit status.

    The status is what `work` returns (0 for None), 2 after an error that the user can correct, and 128 + the
    signal's number after a signal.
    """
    start_logging()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run_and_flush(work) or 0
    except UserError as error:
        return report(error)
    except KeyboardInterrupt:
        print("stopped; the same command resumes", file=sys.stderr)
        return 128 + signal.SIGINT
    except Terminated:
        print("terminated; the same command resumes", file=sys.stderr)
        return 128 + signal.SIGTERM
    except BrokenPipeError:  # the reader of stdout, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's flush at exit fails
        if not asks_for_help():
            print("the reader has closed the output; the same command resumes", file=sys.stderr)
        return 128 + signal.SIGPIPE
    except OSError as error:
        return report(as_user_error(error))


def asks_for_help() -> bool:
    """Return whether the command line asks for the help text."""
    return bool({"--help", "-h"} & set(sys.argv[1:]))


def as_user_error(error: OSError) -> UserError:
    """Return the UserError for a full disk or an unusable path; raise any other error again."""
    where = f" for {error.filename}" if error.filename else ""
    if error.errno in DISK_FULL:
        return UserError(f"no space on the disk{where}: free some space; the same command resumes")
    if error.errno in WRONG_PLACE and error.filename:
        place = error.filename2 or error.filename  # a failed rename: the new name
        return UserError(f"{place} cannot be used ({os.strerror(error.errno).lower()}): give another path")
    raise error


def report(error: UserError) -> int:
    """Print an error as one line on stderr; return the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def start_logging() -> None:
    """Send log messages to stderr, so that stdout holds results only."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


def _run_and_flush(work: Callable[[], int | None]) -> int | None:
    """Run the work and flush stdout, so that a closed pipe raises BrokenPipeError here."""
    try:
        status = work()
    except SystemExit:  # argparse has printed the help text
        print(end="", flush=True)
        raise
    print(end="", flush=True)
    return status


def _terminate(*_) -> None:
    """Handle the first SIGTERM; ignore later ones, so that they do not interrupt the flushing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
