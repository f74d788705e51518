"""Let ``python -m static_dynamic`` run the same program as the command ``static-dynamic``."""

import sys

from static_dynamic.cli import main

sys.exit(main())
