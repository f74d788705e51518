"""Stand-in that lets ``python misc/SCRIPT.py`` find the package in a checkout, from any folder.

Python searches the script's own folder first and so finds this file. It puts the real package in its place.
"""

import sys
from pathlib import Path

root = str(Path(__file__).resolve().parents[1])
sys.path.insert(0, root)
del sys.modules["static_dynamic"]
import static_dynamic  # noqa: E402

static_dynamic.put_checkout_last()
