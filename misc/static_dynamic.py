"""Let ``python misc/SCRIPT.py`` import the package of the checkout, from any working folder.

Python searches the folder of the script first, and therefore imports this file as ``static_dynamic``. This
file replaces that folder in the search path by the checkout's root, and imports the package from there.
"""

import sys
from pathlib import Path

if __name__ == "static_dynamic":
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parent), *(entry for entry in sys.path if Path(entry).resolve() != here)]
    del sys.modules[__name__]
    import static_dynamic

    static_dynamic.put_checkout_last()
