"""Quote and format values for Hydra overrides (``key=value`` on the command line)."""

import re
from typing import Any

# PLAIN_VALUE matches the values that Hydra parses correctly without quotes.
PLAIN_VALUE = re.compile(r"-?[\w./+:@-]+")


def quote(value: str) -> str:
    """Quote a text that holds characters reserved by Hydra's grammar, such as commas, spaces and brackets."""
    if PLAIN_VALUE.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def unquote(value: str) -> str:
    """Remove the quotes and backslashes that `quote` adds."""
    if len(value) > 1 and value[0] == value[-1] == "'":
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def format_value(value: Any) -> str:
    """Format a value of a json or yaml file as the value of a Hydra override."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {format_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return quote(str(value))
