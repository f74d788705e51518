"""Values in the grammar of Hydra's overrides: quoting, unquoting, formatting."""

from __future__ import annotations

import re
from typing import Any

# Values that need no quotes
PLAIN_VALUE = re.compile(r"-?[\w./+:@-]+")


def quote(value: str) -> str:
    """Put a text in quotes if it holds characters that the grammar reserves: commas, spaces, brackets."""
    if PLAIN_VALUE.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def unquote(value: str) -> str:
    """Remove the quotes that `quote` adds."""
    if len(value) > 1 and value[0] == value[-1] == "'":
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def format_value(value: Any) -> str:
    """Format a value of a json or yaml file as the value of an override."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {format_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return quote(str(value))
