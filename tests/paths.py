"""Folders that tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
MISC = ROOT / "misc"
SHARED = ROOT.parent / "shared"  # real videos and the files of the original programs; tests skip without them
