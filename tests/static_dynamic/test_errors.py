"""Messages are one line without control characters, whatever the names in a file are."""

import json
import subprocess
import sys

import pytest

from static_dynamic.errors import UserError, nearest, quoted, reason
from tests.paths import ROOT

HOSTILE = "a\n\x1b[31m\x00\u202e\udc80" + "x" * 10_000_000


def test_names_are_escaped_and_cut():
    assert quoted("clip 1") == "'clip 1'" and quoted([480, 854]) == "[480, 854]"
    for name in (HOSTILE, [HOSTILE], {HOSTILE: HOSTILE}, HOSTILE.encode("utf-8", "surrogatepass")):
        assert quoted(name).isprintable() and len(quoted(name)) < 200
    nested = ()
    for _ in range(100):
        nested = (nested, nested)
    assert len(quoted(nested)) < 200
    assert quoted("é\u00df") == "'é\u00df'"


def test_a_message_has_one_line():
    error = UserError(f"{HOSTILE}: give another file")
    assert str(error).isprintable() and len(str(error)) < 5000
    assert str(error).startswith("a\\n\\x1b[31m\\x00\\u202e\\udc80x") and str(error).endswith(
        ": give another file"
    )
    assert reason(ValueError("first\x1b\nsecond")) == "first\\x1b" and reason(ValueError()) == "ValueError"
    assert nearest(HOSTILE, ["known"]) == "; nearest known: known"


@pytest.mark.parametrize("name", ["a\n\x1b[31mred", "b" * 100_000])
def test_a_key_of_a_json_file_is_quoted(tmp_path, name):
    (tmp_path / "c.json").write_text(json.dumps({"model": {"model": "c2d", name: 1}}))
    command = [sys.executable, "main.py", f"--cfg_file={tmp_path / 'c.json'}", "task=stages"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1 and "\x1b" not in done.stderr and len(done.stderr) < 2000


def test_log_messages_have_one_line():
    code = "import logging; from static_dynamic.command import start_logging; start_logging()"
    code += "; logging.getLogger('x').warning('clip %s', 'a\\n\\x1b[31m')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "clip a\\n\\x1b[31m\n"
