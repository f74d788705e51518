"""Csv files hold no cell that a spreadsheet program would run."""

import csv

import pandas as pd
import pytest

from static_dynamic.analysis.show.comparison_tables import markdown
from static_dynamic.csv_files import write_csv

FORMULAS = [
    "=1+1",
    "=cmd|'/c calc'!A0",
    "@SUM(1)",
    "+cmd|x",
    "-2+3+cmd|' /C calc'!A0",
    "\t=1",
    " =HYPERLINK(1)",
]
NAMES = ["-0fmGfOnAg0", "@user", "+1", "a=b", "v_ApplyEyeMakeup_g01_c01", "x (1)", ""]


@pytest.mark.parametrize("name", FORMULAS + NAMES)
def test_formulas_begin_with_an_apostrophe_and_names_stay(tmp_path, name):
    write_csv(tmp_path / "some.csv", pd.DataFrame({"clip": [name], "score": [-0.5]}))
    with (tmp_path / "some.csv").open(newline="") as file:
        _, (cell, score) = csv.reader(file)
    assert cell == (f"'{name}" if name in FORMULAS else name) and score == "-0.5"


def test_names_in_markdown_are_text():
    text = markdown([{"run": "<script>a|b</script>\n# x", "content": "1.0 & 2"}])
    assert text.splitlines()[2] == r"| &lt;script&gt;a\|b&lt;/script&gt;\n# x | 1.0 &amp; 2 |"
