"""The error that a user can put right, and the nearest known name that such an error suggests."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can put right: the program prints it as one line and exits with status 2.

    The text names the file or the option and says the way out.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Name the known name that is nearest to `name`, as the end of an error line."""
    known = list(known)
    # A part of a name ("slowfast") is a better guess than the edit distance suggests.
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6) or [
        k for k in known if name and name in k
    ]
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"; nearest known: {close[0]}" if close else ""
