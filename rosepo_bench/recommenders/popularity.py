"""Popularity: items rank by their number of training interactions, whatever the history."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int, Int64


def counts(sequences: Iterable[Int[np.ndarray, " _"]], items: int) -> Int64[np.ndarray, " items"]:
    """Interactions of each item in ``sequences``, the training parts of the users' histories."""
    total = np.zeros(items, dtype=np.int64)
    for sequence in sequences:
        total += np.bincount(sequence, minlength=items)
    return total
