"""Shared parts of every command: options, logging, exit status, and one line on stderr for an error."""

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

# Errors for a path without permission, or for a file where a folder is expected and the reverse.
WRONG_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


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
    """Read an option's value as an integer of at least 1; raise argparse's error for any other text."""
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
    """Run a command's work; return its status (0 for None), 2 after a UserError, 128 + N after signal N."""
    start_logging()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            status = work() or 0
        except SystemExit:  # argparse has printed the help text
            print(end="", flush=True)
            raise
        print(end="", flush=True)  # a closed pipe raises BrokenPipeError here
        return status
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
    except (UserError, OSError) as error:
        return report(as_user_error(error))


def asks_for_help() -> bool:
    """Return whether the command line asks for the help text."""
    return bool({"--help", "-h"} & set(sys.argv[1:]))


def as_user_error(error: UserError | OSError) -> UserError:
    """Return the UserError for a full disk or an unusable path; raise any other OSError again."""
    if isinstance(error, UserError):
        return error
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


def _terminate(*_) -> None:
    """Handle the first SIGTERM; ignore later ones, so that they do not interrupt the flushing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
