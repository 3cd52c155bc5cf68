"""sequence_logprob in each build of its CPU kernels: every level that this CPU has computes the same."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
from logprob_cases import call, draw
from rosepo_bench.engine import library
from test_logprob_parity import assert_close

torch.set_num_threads(1)
print(library.info()["isa"], "|", library.info()["state"])
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for rows, vocabulary, width in ((1, 1, 1), (7, 33, 3), (65, 1003, 64)):
        for squash in ({}, {"bias": True, "soft_cap": 3.0}):
            case = draw(rows, vocabulary, width, dtype, **squash)
            for budget in (0, 256 << 20):
                assert_close(case, call(case, memory_budget=budget, wanted="hidden weight"))
"""


def probe(level: str | None) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "ROSEPO_CPU_ISA"}
    env |= {} if level is None else {"ROSEPO_CPU_ISA": level}
    command = [sys.executable, "-c", PROBE, str(Path(__file__).parent)]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels are x86-64's")
def test_every_level_of_the_cpu() -> None:
    best = probe(None)
    assert best.returncode == 0, best.stderr
    name = best.stdout.partition(" ")[0]
    for level in ("v2", "v3", "v4"):
        if level > name:
            continue  # that such a level is refused is tested with the other operator
        result = probe(level)
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"{level} | loaded\n"
