"""A sample of ``make kills``: records and predictions of killed runs are those of an uninterrupted one."""

from __future__ import annotations

import os
from pathlib import Path

import kills
import pytest


@pytest.mark.slow
def test_killed_runs_end_with_the_same_numbers(tmp_path: Path) -> None:
    """Three kills of one process, two of two processes that share a folder."""
    shorter = {"sft.epochs": 3, "preference.epochs": 3, "oracles.sasrec.epochs": 10}
    found = kills.trial(tmp_path, 5, int(os.environ.get("ROSEPO_TEST_SEED", "5")), kills.arguments(**shorter))
    assert found.kills.total() >= 5
    assert set(found.folders) == {1, 2}, "one process, and two in one folder"
