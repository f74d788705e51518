"""Code shared by all commands: option parser, logging, exit status, and one-line error messages."""

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NoReturn

from static_dynamic.errors import UserError, one_line
from static_dynamic.files import DISK_FULL

# Error codes of an unusable path: no permission, a file or folder in the way, a long name, or circular links.
WRONG_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
WRONG_PLACE |= {errno.ENAMETOOLONG, errno.ELOOP}


class Terminated(BaseException):
    """Exception raised on SIGTERM, so that open files are flushed and closed before the process ends."""


class Options(argparse.ArgumentParser):
    """Argument parser that keeps the description's line breaks and raises UserError for a wrong option."""

    def __init__(self, description: str | None = None, **settings):
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, **settings)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Add an option; append the default value to the help text, unless the text states the default."""
        text, default = settings.get("help", ""), settings.get("default")
        if default and default is not argparse.SUPPRESS and "default" not in text:
            shown = " ".join(map(str, default)) if isinstance(default, list | tuple) else "%(default)s"
            settings["help"] = f"{text} (default: {shown})".lstrip()
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise UserError with argparse's message about a wrong option."""
        raise UserError(f"{message.removeprefix('argument ')} ({self.prog} --help lists the options)")


def positive(text: str) -> int:
    """Parse an option's value as an integer of at least 1; raise ArgumentTypeError for any other text."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on is expected, not {text}")
    return int(text)


def command(work: Callable[..., int | None]) -> Callable[..., int]:
    """Decorator that makes a main function return an exit status and print an error as one line."""

    @wraps(work)
    def main(*arguments, **named) -> int:
        return exit_status(partial(work, *arguments, **named))

    return main


def exit_status(work: Callable[[], int | None]) -> int:
    """Run the function `work`; return its status, or 2 after a UserError, or 128 + N after signal N."""
    start_logging()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            status = work() or 0
        except SystemExit:
            # argparse has printed the help text: flush here, where a closed pipe is handled
            print(end="", flush=True)
            raise
        # flush inside `try`, so that a closed pipe raises BrokenPipeError here
        print(end="", flush=True)
        return status
    except KeyboardInterrupt:
        print("stopped; run the same command to resume", file=sys.stderr)
        return 128 + signal.SIGINT
    except Terminated:
        print("terminated; run the same command to resume", file=sys.stderr)
        return 128 + signal.SIGTERM
    except BrokenPipeError:
        # The reader of stdout has closed the pipe; redirect stdout, so that the flush at exit does not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not asks_for_help():
            print("the reader has closed the output; run the same command to resume", file=sys.stderr)
        return 128 + signal.SIGPIPE
    except (UserError, OSError) as error:
        return report(as_user_error(error))


def asks_for_help() -> bool:
    """Return whether the command line asks for the help text."""
    return bool({"--help", "-h"} & set(sys.argv[1:]))


def as_user_error(error: UserError | OSError) -> UserError:
    """Turn an OSError for a full disk or an unusable path into a UserError; raise any other OSError again."""
    if isinstance(error, UserError):
        return error
    where = f" for {error.filename}" if error.filename else ""
    if error.errno in DISK_FULL:
        return UserError(f"no space on the disk{where}: free some space; run the same command to resume")
    if error.errno in WRONG_PLACE and error.filename:
        # for a failed rename, filename2 is the new name
        place = error.filename2 or error.filename
        return UserError(f"{place} cannot be used ({os.strerror(error.errno).lower()}): give another path")
    raise error


def report(error: UserError) -> int:
    """Print an error as one line on stderr; return exit status 2."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def start_logging() -> None:
    """Send log messages to stderr, so that stdout holds results only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _OneLine(logging.Formatter):
    """Log formatter that escapes line feeds and control characters, which names in files may contain."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))


def _terminate(*_) -> None:
    """Raise Terminated for the first SIGTERM; ignore later SIGTERMs, so that files are flushed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
