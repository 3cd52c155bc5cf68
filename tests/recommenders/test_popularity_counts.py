"""Popularity counts training interactions."""

from __future__ import annotations

import numpy as np

from rosepo_bench.recommenders import popularity


def test_counts() -> None:
    counts = popularity.counts([np.array([0, 2, 2]), np.array([2]), np.array([], dtype=np.int32)], 4)
    assert counts.tolist() == [1, 0, 3, 0]
