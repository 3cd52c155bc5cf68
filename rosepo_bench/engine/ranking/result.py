"""What every ranking of the catalogue returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rosepo_bench.data.types import FloatArray, IntArray


@dataclass(frozen=True)
class Ranking:
    """The best K items of each of n prompts, best first, equal scores by item number: ``items`` int64 and ``scores``
    float64 ``[n, K]``; where a beam found fewer, -1 and -inf. ``visited`` int64 ``[n]`` of the trie's ``readable``
    nodes (those with children, but the root) were read."""

    items: IntArray
    scores: FloatArray
    visited: IntArray
    readable: int

    @property
    def share(self) -> FloatArray:
        """Share of the trie that was read for each prompt ``[n]``."""
        return self.visited / self.readable

    def ranks(self, target: IntArray) -> IntArray:
        """Place of each prompt's ``target`` ``[n]``, 1 = best; K + 1 where it is not among the K. int32 ``[n]``."""
        found = self.items == target[:, None]
        return np.where(found.any(axis=1), 1 + found.argmax(axis=1), 1 + self.items.shape[1]).astype(np.int32)
