"""Builds the library with AddressSanitizer and UndefinedBehaviorSanitizer into build/sanitize and runs tests on it:

    python tests/sanitize.py [arguments of pytest; without any, the operators' tests]

The first finding ends the run. Python and torch are not instrumented: what they allocate is seen where our code reads
it, what they do is not.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "csrc")]
sys.dont_write_bytecode = True  # csrc holds sources alone

import build_plan  # noqa: E402

from rosepo_bench.engine.build_id import source_hash  # noqa: E402

FLAGS = "-O2 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
TESTS = ["tests/ops"]


def build() -> tuple[Path, str]:
    """The library and the compiler that made it. The CPU's kernels alone: a sanitizer for the host sees no device."""
    folder = ROOT / "build" / "sanitize"
    folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "ROSEPO_CUDA": "0", "CXXFLAGS": f"{os.environ.get('CXXFLAGS', '')} {FLAGS}"}
    tools = build_plan.find_toolchain(env)
    library = build_plan.write_ninja(ROOT, folder, tools, source_hash(ROOT / "csrc"))
    build_plan.run_ninja(ROOT, folder)
    return library, tools.cxx


def runtimes(cxx: str) -> str:
    """What must be there before Python is: the sanitizer's runtime, and the exceptions that it looks through."""
    names = ("libasan.so", "libstdc++.so")
    ask = [*shlex.split(cxx), "-print-file-name="]
    return " ".join(
        subprocess.run([*ask[:-1], ask[-1] + name], check=True, capture_output=True, text=True).stdout.strip()
        for name in names
    )


def main(arguments: list[str]) -> int:
    try:
        library, cxx = build()
    except build_plan.BuildError as error:
        print(f"sanitize: {error}", file=sys.stderr)
        return 2
    env = {
        **os.environ,
        "ROSEPO_LIBRARY": str(library),
        "LD_PRELOAD": runtimes(cxx),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own are many
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(arguments or TESTS)]
    return subprocess.run(command, cwd=ROOT, env=env).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
