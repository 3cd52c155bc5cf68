"""Builds the operators and the forest module with AddressSanitizer and UndefinedBehaviorSanitizer into build/sanitize
and runs their tests:

    python tests/sanitize.py [arguments of pytest, other tests among them]

The first finding ends the run. Python and torch are not instrumented: what they allocate is seen where our code reads
it, what they do is not.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "csrc")]
sys.dont_write_bytecode = True  # csrc holds sources alone

import build_plan  # noqa: E402

from rosepo_bench.engine.ops.build_id import source_hash  # noqa: E402

FLAGS = "-O2 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
TESTS = ["tests/ops", "tests/engine/test_forest_module.py", "tests/engine/test_packing.py"]
FOREST = "rosepo_bench.engine.forest._forest"


def pytest_configure() -> None:
    """As pytest's plugin: the forest module of build/sanitize in the place of the package's own."""
    spec = importlib.util.spec_from_file_location(FOREST, os.environ["SANITIZED_FOREST"])
    assert spec is not None
    assert spec.loader is not None
    sys.modules[FOREST] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    importlib.import_module("rosepo_bench.engine.forest")._forest = module


def build() -> tuple[dict[str, Path], str]:
    """What was built and the compiler that made it. For the CPU alone: a sanitizer of the host sees no device."""
    folder = ROOT / "build" / "sanitize"
    folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "ROSEPO_CUDA": "0", "CXXFLAGS": f"{os.environ.get('CXXFLAGS', '')} {FLAGS}"}
    tools = build_plan.find_toolchain(env)
    built = build_plan.write_ninja(ROOT, folder, tools, source_hash(ROOT / "csrc"))
    build_plan.run_ninja(ROOT, folder)
    return built, tools.cxx


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
        built, cxx = build()
    except build_plan.BuildError as error:
        print(f"sanitize: {error}", file=sys.stderr)
        return 2
    env = {
        **os.environ,
        "ROSEPO_LIBRARY": str(built["librosepo"]),
        "SANITIZED_FOREST": str(built["_forest"]),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
        "LD_PRELOAD": runtimes(cxx),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own are many
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    # A finding is written to the process's own stderr as it dies: that must not be pytest's.
    tests = [] if any((ROOT / argument.partition("::")[0]).exists() for argument in arguments) else TESTS
    options = ["-q", "--capture=sys", "-p", "sanitize", "-p", "no:cacheprovider", *tests, *arguments]
    return subprocess.run([sys.executable, "-m", "pytest", *options], cwd=ROOT, env=env).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
