"""Error classes of the program, and functions that turn exceptions and misspelt names into messages."""

import difflib
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


class UserError(Exception):
    """Error that the user can correct; the program prints the error as one line and exits with status 2.

    The text names the file or the option and says what to do.
    """


class RefusedFile(Exception):
    """Error for a pickle that refers to a Python class or function that the reader does not allow."""


_FORMAT = (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError)
DAMAGED = (*_FORMAT, RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError)
"""Exceptions that the readers of torch, pickle and safetensors raise for damaged files."""


@contextmanager
def checkpoint_errors(path: Path, allowed: str) -> Iterator[None]:
    """Turn exceptions raised while a checkpoint is read into a UserError that names the file.

    `allowed` completes the message about a refused file: "only `allowed` are allowed".
    """
    try:
        yield
    except PermissionError:
        raise  # a file without read permission is not damaged; `as_user_error` reports this error
    except (RefusedFile, *DAMAGED, OSError) as error:
        # The error of torch.load(weights_only=True) names the refused Python class after the word GLOBAL.
        asked = re.search(r"GLOBAL (\S+)", str(error))
        refused = str(error) if isinstance(error, RefusedFile) else asked and asked[1]
        if refused:
            raise UserError(
                f"checkpoint {path} was refused: the file contains {refused}, but only {allowed} are allowed"
            ) from error
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"checkpoint {path} is damaged ({line}): download the file again") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; nearest known: X" for an error message, where X is the known name most similar to `name`."""
    known = list(known)
    # If no name is similar, a name that contains `name` (slowfast_r50 for slowfast) is the best suggestion.
    close = (
        difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        or [k for k in known if name and name in k]
        or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    )
    return f"; nearest known: {close[0]}" if close else ""
