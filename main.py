"""Run the command line program from a checkout; ``python main.py --help`` lists tasks and options."""

import sys

from static_dynamic import put_checkout_last
from static_dynamic.cli import main

if __name__ == "__main__":
    put_checkout_last()
    sys.exit(main())
