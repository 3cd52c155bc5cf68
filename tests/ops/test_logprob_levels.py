"""sequence_logprob in each build of its CPU kernels: every level that this CPU has computes the same."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from rosepo_bench.engine import library

PROBE = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
from logprob_cases import call, draw
from rosepo_bench.engine import library
from test_logprob_parity import assert_close

torch.set_num_threads(1)
print(library.info()["isa"], "|", library.info()["state"])
for dtype in (torch.float32, torch.bfloat16):
    for rows, vocabulary, width in ((1, 1, 1), (7, 33, 3), (65, 1003, 64)):
        for squash in ({}, {"bias": True, "soft_cap": 3.0}):
            case = draw(rows, vocabulary, width, dtype, **squash)
            for budget in (0, 256 << 20):
                assert_close(case, call(case, memory_budget=budget, wanted="hidden weight"))
"""


LEVELS = ("v2", "v3", "v4")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels are x86-64's")
@pytest.mark.parametrize("level", LEVELS)
def test_a_level_that_the_other_tests_do_not_run(level: str) -> None:
    """That a level which this CPU lacks is refused is tested with the other operator."""
    running = str(library.info()["isa"])
    if level == running:
        pytest.skip("all other tests run it")
    env = {**os.environ, "ROSEPO_CPU_ISA": level}
    command = [sys.executable, "-c", PROBE, str(Path(__file__).parent)]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    if result.returncode and "this CPU supports up to" in result.stdout:
        pytest.skip(f"this CPU has no {level}")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{level} | loaded\n"
