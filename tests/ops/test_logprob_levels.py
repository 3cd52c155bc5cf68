"""sequence_logprob in each build of its CPU kernels: every level that this CPU has computes the same."""

from __future__ import annotations

import levels
import pytest

PROBE = """
from logprob_cases import call, draw
from test_logprob_parity import assert_close

for dtype in (torch.float32, torch.bfloat16):
    for rows, vocabulary, width in ((1, 1, 1), (7, 33, 3), (65, 1003, 64)):
        for squash in ({}, {"bias": True, "soft_cap": 3.0}):
            case = draw(rows, vocabulary, width, dtype, **squash)
            for budget in (0, 256 << 20):
                assert_close(case, call(case, memory_budget=budget, wanted="hidden weight"))
"""


@levels.on_x86_64
@pytest.mark.parametrize("level", levels.LEVELS)
def test_a_level_that_the_other_tests_do_not_run(level: str) -> None:
    levels.check(level, PROBE)
