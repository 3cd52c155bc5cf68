"""``python -m rosepo_bench``."""

import os
import signal
import sys

# Before the first and after the last line of `main` Ctrl-C ends the process as in other programs, without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# How long torch's threads spin at a barrier, read when torch is loaded. The library's default (milliseconds) burns the
# cores that another program needs; with 2000 a quiet step takes 3 to 4 % longer, beside other work it is far faster.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "2000"

from rosepo_bench.cli import main

sys.exit(main())
