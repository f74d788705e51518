"""Errors that end a command with one line, and how they are made from what reading a file raises."""

import difflib
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


class UserError(Exception):
    """An error that the user can correct: the program prints the text as one line and exits with status 2.

    The text names the file or the option and says what to do.
    """


class RefusedFile(Exception):
    """A pickled file asks for a class or function that its reader does not allow; the text names it."""


_FORMAT = (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError)
DAMAGED = (*_FORMAT, RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError)
"""Exceptions that the readers of torch, pickle and safetensors raise for damaged files."""


@contextmanager
def checkpoint_errors(path: Path, allowed: str) -> Iterator[None]:
    """Turn the exceptions of a checkpoint's reader into a UserError that names the file.

    `allowed` completes the message about a refused file: "only `allowed` are read".
    """
    try:
        yield
    except PermissionError:
        raise  # not damage; the program reports it for any file
    except (RefusedFile, *DAMAGED, OSError) as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))  # how torch.load(weights_only=True) refuses a class
        refused = str(error) if isinstance(error, RefusedFile) else asked and asked[1]
        if refused:
            message = f"it asks for {refused}, and only {allowed} are read"
            raise UserError(f"checkpoint {path} was refused: {message}") from error
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"checkpoint {path} is damaged ({line}): fetch it again") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; nearest known: X", the end of an error message, for the known name nearest to `name`."""
    known = list(known)
    # A known name that contains `name` ("slowfast") is a better guess than the edit distance suggests.
    close = (
        difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        or [k for k in known if name and name in k]
        or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    )
    return f"; nearest known: {close[0]}" if close else ""
