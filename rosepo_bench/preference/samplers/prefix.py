"""Draws from log weights that all prompts share, in O(log items + past) a prompt.

The weights are summed up once over the catalogue. A prompt's eligible weight is the whole without its few excluded
items, and so is the weight before any item; inverting a uniform number is then one binary search in the shared sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rosepo_bench.preference.samplers.dense import Found

SHARE = 1e-6
"""Where less than this share of all weight is eligible, differences of sums lose too many digits: such rows are left to
the plain computation. Above it, the law is right to about ten digits."""


@dataclass(frozen=True)
class Sums:
    """``log``: the log weights; ``weight``: exp(log - ``top``), with a 0 for the place after the last item;
    ``before[i]``: the weight of the items before i, of all items at the end."""

    log: Float64[np.ndarray, " items"]
    top: float
    weight: Float64[np.ndarray, " ends"]
    before: Float64[np.ndarray, " ends"]

    @classmethod
    def of(cls, log_weights: Float64[np.ndarray, " items"]) -> Sums:
        """Sums in extended precision where the machine has it, so that their rounding does not grow with the items."""
        top = float(log_weights.max())
        weight = np.append(np.exp(log_weights - (top if np.isfinite(top) else 0.0)), 0.0)
        summed = np.cumsum(weight, dtype=np.longdouble).astype(np.float64)
        return cls(log_weights, top, weight, np.concatenate([[0.0], summed[:-1]]))

    def draw(
        self,
        taken: Iterable[Int64[np.ndarray, " _"]],
        chosen: Int64[np.ndarray, " n"],
        swapped: Float64[np.ndarray, " n"],
        uniform01: Float64[np.ndarray, " n"],
    ) -> tuple[Found, Bool[np.ndarray, " n"]]:
        """As `dense.draw`, with ``taken`` per row beside ``chosen``, and ``swapped``, the log weight of the chosen item
        had the other one been chosen. The second result is False for rows that need the plain computation."""
        past = padded(taken, len(self.log))
        items, total, sure = self._invert(np.hstack([past, chosen[:, None]]), uniform01)
        twice = (past == chosen[:, None]).any(axis=1)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # such rows are not sure
            back = (total - self.weight[items]) + np.exp(swapped - self.top)
            law = np.where(twice, -np.inf, swapped - self.log[items] - np.log(back / total))
        sure &= twice | (np.isfinite(back) & self._precise(back))
        return Found(items, law, np.ones(len(items), dtype=bool)), sure

    def _invert(
        self, excluded: Int64[np.ndarray, "n m"], uniform01: Float64[np.ndarray, " n"]
    ) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Items, the eligible weight of each row, and whether both can be relied upon."""
        excluded = np.sort(excluded, axis=1)
        lost = self.weight[excluded]
        lost[:, 1:][excluded[:, 1:] == excluded[:, :-1]] = 0  # an item excluded twice is lost once
        total = self.before[-1] - lost.sum(axis=1)
        threshold = uniform01 * total
        eligible_before = self.before[excluded] - (np.cumsum(lost, axis=1) - lost)
        skipped = np.where(eligible_before <= threshold[:, None], lost, 0).sum(axis=1)
        items = np.searchsorted(self.before[1:], threshold + skipped, side="right")
        hit = (items < len(self.log)) & (excluded != items[:, None]).all(axis=1)  # rounding can miss by one place
        sure = hit & self._precise(total)
        return np.where(sure, items, 0), total, sure

    def _precise(self, weight: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether differences of sums give this weight with enough digits."""
        return weight > SHARE * self.before[-1]


def padded(lists: Iterable[Int64[np.ndarray, " _"]], fill: int) -> Int64[np.ndarray, "n longest"]:
    """The lists as rows of one array."""
    rows = list(lists)
    sizes = np.array([len(row) for row in rows], dtype=np.int64)
    table = np.full((len(rows), int(sizes.max(initial=0))), fill, dtype=np.int64)
    table[np.arange(table.shape[1]) < sizes[:, None]] = np.concatenate([*rows, np.empty(0, dtype=np.int64)])
    return table
