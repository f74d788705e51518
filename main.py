"""The program in a checkout: ``python main.py --help`` lists what there is; installed, ``static-dynamic``."""

import sys

from static_dynamic import put_checkout_last
from static_dynamic.cli import main

if __name__ == "__main__":
    put_checkout_last()
    sys.exit(main())
