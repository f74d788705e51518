"""Write csv files in which spreadsheet programs find no formulas."""

import re
from pathlib import Path

import pandas as pd

from static_dynamic.files import atomic_path

# Pattern of texts that spreadsheet programs such as Excel and LibreOffice run as formulas.
# The pattern does not match video ids such as -0fmGfOnAg0 and @user, which call no function.
FORMULA = re.compile(r"\s*(=|[+\-@].*[(|!])", re.DOTALL)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table atomically, without its index; put an apostrophe before each text that is a formula."""
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    escaped = table.assign(**{str(name): table[name].map(_harmless) for name in texts})
    with atomic_path(path) as temporary:
        escaped.to_csv(temporary, index=False)


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell
