"""One process that shakes every operator, seeds from FIRST below LAST; run_fuzz.py starts it on the sanitized library.
It notes in STATE what it is at, so that a crash can be repeated."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch
from operators import SHAKES

MOST_PROBLEMS = 20


def shake_all(first: int, last: int, state: Path | None = None) -> tuple[int, list[str]]:
    """The number of calls, and what was found: with it the command that repeats it."""
    calls, problems = 0, []
    handle = None if state is None else os.open(state, os.O_WRONLY | os.O_CREAT)
    for seed in range(first, last):
        for name, shake in SHAKES.items():
            if handle is not None:
                os.pwrite(handle, f"{name} {seed}".ljust(80).encode(), 0)
            try:
                calls += shake(seed)
            except Exception as error:
                problems.append(f"{name} {seed}: {type(error).__name__}: {error}"[:600])
        if len(problems) >= MOST_PROBLEMS:
            break
    return calls, problems


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if "SANITIZED_FOREST" in os.environ:
        import sanitize

        sanitize.pytest_configure()
    if len(sys.argv) == 3:  # NAME SEED
        print(SHAKES[sys.argv[1]](int(sys.argv[2])), "calls, nothing found")
        sys.exit()
    count, found = shake_all(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) / "at")
    print("\n".join([str(count), *found]))
