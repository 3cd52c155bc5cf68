"""Popularity: the more often an item was taken in training, the higher it ranks, whatever the history."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rosepo_bench.data.types import IntArray


def counts(sequences: Iterable[IntArray], items: int) -> IntArray:
    """Interactions of each item in ``sequences`` (the training parts of the users' histories); int64
    ``[items]``."""
    total = np.zeros(items, dtype=np.int64)
    for sequence in sequences:
        total += np.bincount(sequence, minlength=items)
    return total
