"""Error classes of the program, and functions that turn exceptions and misspelt names into messages."""

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

# Largest number of characters of an error message.
MAX_MESSAGE = 4000
# Names read from a file are cut to this many characters in messages.
MAX_NAME = 100


def quoted(name: object) -> str:
    """Quote a name or value from a file: escape control characters, and cut the middle of a long text."""
    if isinstance(name, str | PathLike):
        return repr(_cut(str(name), MAX_NAME))
    # limit the length with reprlib, because the full text of nested tuples can be huge
    return _cut(reprlib.repr(name), MAX_NAME)


def one_line(text: object, limit: int = MAX_MESSAGE) -> str:
    """Escape line feeds and control characters; cut the middle of a text of over `limit` characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in _cut(str(text), limit))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 :]}"


class UserError(Exception):
    """Error that the user can correct; the program prints the error as one line and exits with status 2.

    The text names the file or the option and says what to do. Control characters in the text are escaped.
    """

    def __init__(self, message: object = ""):
        super().__init__(one_line(message))


class DamagedRun(UserError):
    """Error for a file in a run folder that is damaged or was changed after the run wrote it."""


class RefusedFile(Exception):
    """Error for a file that asks for a class, a function or a kind of tensor that is not allowed."""


@contextmanager
def checkpoint_errors(path: Path, allowed: str) -> Iterator[None]:
    """Turn exceptions raised while a checkpoint is read into a UserError that names the file.

    `allowed` completes the message about a refused file: "only `allowed` are allowed".
    """
    try:
        yield
    except (UserError, PermissionError):
        # a file without read permission is not damaged: `as_user_error` makes the message for PermissionError
        raise
    except RefusedFile as error:
        asked = one_line(error, 2 * MAX_NAME)
        raise UserError(
            f"checkpoint {path} was refused: the file contains {asked}, but only {allowed} are allowed"
        ) from error
    except Exception as error:
        # a damaged file can cause any kind of exception
        raise UserError(f"checkpoint {path} is damaged ({reason(error)}): download the file again") from error


def reason(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class if there is no message."""
    lines = str(error).strip().splitlines()
    return one_line(lines[0], 2 * MAX_NAME) if lines else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; nearest known: X" for an error message, where X is the known name most similar to `name`."""
    # cut `name`, because the time of comparisons grows with the square of the length
    known, name = list(map(str, known)), str(name)[:MAX_NAME]
    # If no name is similar, suggest a name that contains `name` (slowfast_r50 for slowfast).
    close = (
        difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        or [k for k in known if name and name in k]
        or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    )
    return f"; nearest known: {one_line(close[0], MAX_NAME)}" if close else ""
