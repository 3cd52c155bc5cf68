"""Random calls of the operators on the sanitized library, and mutated files for the program:

    python tests/fuzz/run_fuzz.py [--seed N] [--calls 1000000] [--inputs 10000] [--jobs 2]
    python tests/fuzz/run_fuzz.py --only NAME --at SEED       one draw of an operator again

Exit status 0: nothing found."""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]

CALLS_OF_A_SEED = 7 * 16  # operators, and calls of a draw
SANITIZERS = {
    # Absurd numbers are asked for on purpose: an allocation that fails must come back, and must not fill the machine.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "OMP_NUM_THREADS": "1",
}


def sanitized() -> dict[str, str]:
    """The environment in which the library and the forest module are those of build/sanitize."""
    import sanitize

    built, cxx = sanitize.build()
    return {
        **os.environ,
        **SANITIZERS,
        "ROSEPO_LIBRARY": str(built["librosepo"]),
        "SANITIZED_FOREST": str(built["_forest"]),
        "LD_PRELOAD": sanitize.runtimes(cxx),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parent / "engine"), str(ROOT)]),
    }


def spread(script: str, cuts: list[int], folder: Path, env: dict[str, str]) -> tuple[int, list[str]]:
    """Runs a script in a process for each stretch of seeds between ``cuts``; the sum of their counts, and what they
    found. The script prints a count and a line a finding; it may note what it is at in the file that it is given."""
    processes = []
    for job, (first, last) in enumerate(itertools.pairwise(cuts)):
        place = folder / f"{Path(script).stem}-{job}"
        place.mkdir()
        command = [sys.executable, str(HERE / script), str(first), str(last), str(place)]
        log = (place / "log").open("w")
        processes.append((place, subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)))
    made, problems = 0, []
    for place, process in processes:
        told = process.communicate()[0].splitlines()
        if process.returncode or not told:
            at = (place / "at").read_text().strip() if (place / "at").is_file() else ""
            problems.append(f"{at} ended by {process.returncode}\n{(place / 'log').read_text()[-3000:]}")
            continue
        made += int(told[0])
        problems += told[1:]
    return made, problems


def fuzz(what: str, script: str, seeds: int, given: argparse.Namespace, env: dict[str, str]) -> list[str]:
    """Says how many there were; returns what was found."""
    begun, first = time.monotonic(), given.seed * 1_000_000
    cuts = [first + seeds * job // given.jobs for job in range(given.jobs + 1)]
    with tempfile.TemporaryDirectory() as folder:
        made, problems = spread(script, cuts, Path(folder), env)
    seconds = time.monotonic() - begun
    print(f"{made} {what} in {seconds:.0f} s, {made / seconds:.0f} a second: {len(problems)} problems", flush=True)
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=1_000_000, help="of the operators; 0: none")
    parser.add_argument("--inputs", type=int, default=10_000, help="mutated files; 0: none")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", metavar="NAME", help="one operator, with --at")
    parser.add_argument("--at", type=int, metavar="SEED")
    given = parser.parse_args()
    if given.only is not None:
        command = [sys.executable, str(HERE / "shaking.py"), given.only, str(given.at)]
        return subprocess.run(command, env=sanitized()).returncode
    problems = []
    if given.calls:
        problems += fuzz("calls of operators", "shaking.py", -(-given.calls // CALLS_OF_A_SEED), given, sanitized())
    if given.inputs:
        paths = os.pathsep.join([str(HERE.parent), str(ROOT), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        problems += fuzz("mutated files", "inputs.py", given.inputs, given, env)
    print("\n".join(problems) or "nothing found")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
