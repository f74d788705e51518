"""Escaping of text for LaTeX."""

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
    """Escape text so that LaTeX prints it literally.

    A hyphen before a number becomes a minus sign. Characters beyond Latin-1, which the default fonts lack,
    become question marks.
    """
    text = "".join(SPECIAL.get(c, c if c.isprintable() and ord(c) < 256 else "?") for c in str(text))
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text)
