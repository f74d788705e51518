"""Values as Hydra's grammar of overrides takes them."""

from __future__ import annotations

import re

# what it takes without quotes
PLAIN_VALUE = re.compile(r"-?[\w./+:@-]+")


def quoted(value: str) -> str:
    """A value that may hold anything: commas, spaces, brackets."""
    if PLAIN_VALUE.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def unquoted(value: str) -> str:
    """A value without the quotes that `quoted` put round it."""
    if len(value) > 1 and value[0] == value[-1] == "'":
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def written(value) -> str:
    """A value of a json or yaml file."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return quoted(str(value))
