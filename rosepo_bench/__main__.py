"""``python -m rosepo_bench``."""

import sys

from rosepo_bench.cli import main

sys.exit(main())
