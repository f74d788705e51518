"""Stand-in with which ``python misc/SCRIPT.py`` finds the package of the checkout, from any folder.

Python searches the script's own folder first and so imports this file as ``static_dynamic``. This file takes
that folder off the search path, puts the checkout's root there and imports the real package in its place.
"""

import sys
from pathlib import Path

if __name__ == "static_dynamic":
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parent), *(entry for entry in sys.path if Path(entry).resolve() != here)]
    del sys.modules[__name__]
    import static_dynamic

    static_dynamic.put_checkout_last()
