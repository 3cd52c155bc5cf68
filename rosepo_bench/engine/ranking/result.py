"""What every ranking of the catalogue returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64


@dataclass(frozen=True)
class Ranking:
    """The best K items of each of n prompts, best first, equal scores by item number; where a beam found fewer, item -1
    with score -inf. ``visited``: how many of the trie's ``readable`` nodes (those with children, except the root) were
    read for each prompt."""

    items: Int64[np.ndarray, "n K"]
    scores: Float64[np.ndarray, "n K"]
    visited: Int64[np.ndarray, " n"]
    readable: int

    @property
    def share(self) -> Float64[np.ndarray, " n"]:
        """Share of the trie that was read for each prompt."""
        return self.visited / self.readable

    def ranks(self, target: Int[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """Rank of each prompt's ``target``, 1 = best; K + 1 where it is not among the K."""
        found = self.items == target[:, None]
        return np.where(found.any(axis=1), 1 + found.argmax(axis=1), 1 + self.items.shape[1]).astype(np.int32)
