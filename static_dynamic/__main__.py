"""Run the command ``static-dynamic`` as ``python -m static_dynamic``."""

import sys

from static_dynamic.cli import main

sys.exit(main())
