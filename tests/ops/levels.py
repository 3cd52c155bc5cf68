"""An operator in the builds of its CPU kernels that this process does not run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from rosepo_bench.engine.ops import library

LEVELS = ("v2", "v3", "v4")
on_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels are x86-64's")

BEGIN = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
from rosepo_bench.engine.ops import library

torch.set_num_threads(1)
print(library.info()["isa"], "|", library.info()["state"])
"""


def check(level: str, probe: str) -> None:
    """Runs the code ``probe`` at ``level`` in a process of its own; it must end well and say nothing. Skips a level
    that this process runs, or that this CPU lacks: that it is refused is tested with preference_loss."""
    if level == library.info()["isa"]:
        pytest.skip("all other tests run it")
    env = {**os.environ, "ROSEPO_CPU_ISA": level}
    command = [sys.executable, "-c", BEGIN + probe, str(Path(__file__).parent)]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    if result.returncode and "this CPU supports up to" in result.stdout:
        pytest.skip(f"this CPU has no {level}")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{level} | loaded\n"
