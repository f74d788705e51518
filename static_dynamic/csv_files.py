"""Write tables as csv files that no spreadsheet program takes for formulas."""

import re
from pathlib import Path

import pandas as pd

from static_dynamic.files import atomic_path

# Spreadsheet programs run a cell that begins so (Excel, LibreOffice: DDE, HYPERLINK, ...). Names such as the
# video ids -0fmGfOnAg0 and @user, which call no function, stay as they are.
FORMULA = re.compile(r"\s*(=|[+\-@].*[(|!])", re.DOTALL)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index, atomically; a text that is a formula begins with an apostrophe."""
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    escaped = table.assign(**{str(name): table[name].map(_harmless) for name in texts})
    with atomic_path(path) as temporary:
        escaped.to_csv(temporary, index=False)


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell
