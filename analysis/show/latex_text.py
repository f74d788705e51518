"""Text as LaTeX prints it."""

from __future__ import annotations

import re

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def escape(text: object) -> str:
    """Text that LaTeX prints as it is; a hyphen before a number becomes a minus. What its fonts lack is
    a question mark."""
    text = "".join(SPECIAL.get(c, c if c.isprintable() and ord(c) < 256 else "?") for c in str(text))
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text)
