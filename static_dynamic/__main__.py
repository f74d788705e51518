"""``python -m static_dynamic``: the same as the command ``static-dynamic``."""

import sys

from static_dynamic.cli import main

sys.exit(main())
