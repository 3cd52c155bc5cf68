"""Attacks by the company that an item keeps: pairs of items that stand together in other rows' lists.

Counts of pairs are kept in hashed buckets, so that memory does not grow with the square of the items. Collisions add
noise and no bias: the redraws are counted in the same buckets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Int32, Int64

from rosepo_bench.evaluation.audit.attacks import Name, target_rank
from rosepo_bench.evaluation.audit.redraw import Draw

CLEAR = 4.0  # deviations; what is below orders nothing: half of the items are no target anywhere, which is not rare
Lists = Int32[np.ndarray, "n size"]
Scores = Float32[np.ndarray, "n size"]


class Hashes:
    """Buckets of pairs of ``items`` that stand in one list; padding is hashed as an item."""

    def __init__(self, items: int, rows: int, size: int, rng: np.random.Generator) -> None:
        self.items = items
        self.together = _power(rows * size * (size - 1))
        self.beside = _power(4 * rows * size)
        self.one, self.two = (rng.integers(1 << 40, size=items + 1) for _ in range(2))
        self.jitter = (1e-3 * rng.random(items + 1)).astype(np.float32)  # orders ties

    def pairs(self, lists: Lists) -> Int64[np.ndarray, "pairs n"]:
        """The bucket of each pair of a list, in the order of :func:`_pairs`."""
        own, (first, second, _) = self.one.take(lists.T), _pairs(lists.shape[1])
        return (own[first] + own[second]) & (self.together - 1)

    def leading(
        self, leading: Int32[np.ndarray, " m"], lists: Int32[np.ndarray, "m size"]
    ) -> Int64[np.ndarray, "m size"]:
        """The bucket of each item of a list beside one that leads it."""
        return (self.two.take(leading)[:, None] + self.one.take(lists)) & (self.beside - 1)


class Counts:
    """Of the rows with ``lists``: how many hold each item, have it as their target, hold each pair, and hold an item
    beside their target."""

    def __init__(self, hashes: Hashes, lists: Lists, pairs: Int64[np.ndarray, "pairs n"] | None = None) -> None:
        items = hashes.items
        self.rows = len(lists)
        self.held = np.bincount(lists.reshape(-1), minlength=items + 1).astype(np.float32)
        self.held[items] = 0
        self.target = np.bincount(lists[:, 0], minlength=items + 1).astype(np.float32)
        both = hashes.pairs(lists) if pairs is None else pairs
        self.together = np.bincount(both.reshape(-1), minlength=hashes.together)
        beside = hashes.leading(lists[:, 0], lists[:, 1:])
        self.beside = np.bincount(beside.reshape(-1), minlength=hashes.beside)
        self.load = (both.size / hashes.together, beside.size / hashes.beside)  # what a pair finds there by chance


class Companions:
    """Two orders of a list by its items' company, in the other rows of the file and in each of ``elsewhere``, the other
    splits: by how much more often an item stands together with the others than its frequency tells, and the same of
    rows whose target it is. A row of the file does not count for itself."""

    def __init__(self, hashes: Hashes, elsewhere: dict[str, Counts]) -> None:
        self.hashes, self.elsewhere = hashes, tuple(elsewhere.values())
        self.names = tuple(name for where in ("other rows", *elsewhere) for name in _names(where))

    def ranks(self, draw: Draw) -> Int64[np.ndarray, "attacks n"]:
        """See Attack."""
        lists, pairs = draw.lists, self.hashes.pairs(draw.lists)
        real = lists < self.hashes.items
        orders: list[Scores] = []
        for counts in (own := Counts(self.hashes, lists, pairs), *self.elsewhere):
            orders += self._orders(lists, real, pairs, counts, counts is own)
        scores = np.stack(orders) + self.hashes.jitter[lists]
        scores[:, ~real] = -np.inf
        return target_rank(scores)

    def _orders(
        self, lists: Lists, real: np.ndarray, pairs: Int64[np.ndarray, "pairs n"], counts: Counts, own: bool
    ) -> Sequence[Scores]:
        held, of_target = counts.held[lists], counts.target[lists]
        first, second, ends = _pairs(lists.shape[1])
        found = counts.together.take(pairs).astype(np.float32)
        if not real.all():
            found *= real.T[first] & real.T[second]
        together, targeted = (ends @ found).T, self._targeted(lists, real, counts)
        others = real.sum(1, dtype=np.float32)[:, None] - 1
        if own:
            together -= others
            targeted[:, :1] -= others
            held, of_target[:, 0] = held - real, of_target[:, 0] - 1
        company = (held.sum(1, keepdims=True) - held) / max(1, counts.rows)
        return (
            _surprise(together, held * company + others * counts.load[0]),
            (_surprise(targeted, of_target * company + others * counts.load[1]) - CLEAR).clip(0),
        )

    def _targeted(self, lists: Lists, real: np.ndarray, counts: Counts) -> Scores:
        """How often each item, as a target, has had the list's other items beside it."""
        targeted = np.zeros(lists.shape, dtype=np.float32)
        row, column = np.nonzero((counts.target[lists] > 0) & real)
        found = counts.beside.take(self.hashes.leading(lists[row, column], lists[row])) * real[row]
        found[np.arange(len(row)), column] = 0
        targeted[row, column] = found.sum(1)
        return targeted


def _names(where: str) -> tuple[Name, Name]:
    return (
        Name(f"lists in {where}", "most often in one list", "least often in one list"),
        Name(f"targets in {where}", "most often target beside them", "least often target beside them"),
    )


@lru_cache
def _pairs(size: int) -> tuple[np.ndarray, np.ndarray, Float32[np.ndarray, "size pairs"]]:
    """The two columns of each pair of a list, and a 1 in both."""
    first, second = np.triu_indices(size, 1)
    ends = np.zeros((size, len(first)), dtype=np.float32)
    ends[first, np.arange(len(first))] = ends[second, np.arange(len(first))] = 1
    return first, second, ends


def _power(least: int) -> int:
    """The first power of two that is not below ``least``."""
    return 1 << max(1, least - 1).bit_length()


def _surprise(count: Scores, expected: Scores) -> Scores:
    """How far a count is above what is expected, in standard deviations of a Poisson law."""
    surprise: Scores = (count - expected) / np.sqrt(expected + 1)
    return surprise
