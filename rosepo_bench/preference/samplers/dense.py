"""Draws and their law computed over ``[rows, items]``: the plain form, for any weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from rosepo_bench.data.types import Queries

CELLS = 1 << 18  # elements of a chunk's [rows, items] array, so that it stays in the cache; changes no result


class Found(NamedTuple):
    """One item per row and its ``law``; ``left`` is False, and the item -1, where no item is eligible."""

    items: Int64[np.ndarray, " n"]
    law: Float64[np.ndarray, " n"]
    left: Bool[np.ndarray, " n"]

    @classmethod
    def none(cls, n: int) -> Found:
        """Rows to be filled in."""
        return cls(np.full(n, -1, dtype=np.int64), np.zeros(n), np.zeros(n, dtype=bool))

    def put(self, rows: Int64[np.ndarray, " rows"], part: Found) -> None:
        """Fills in ``rows``."""
        for whole, some in zip(self, part, strict=True):
            whole[rows] = some


def chunks(rows: Int64[np.ndarray, " rows"], width: int) -> Iterator[Int64[np.ndarray, " _"]]:
    """``rows`` in parts, each of about ``CELLS`` cells if a row has ``width`` of them."""
    size = max(1, CELLS // max(1, width))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def unavailable(prompts: Queries, barred: Int[np.ndarray, "n b"]) -> Iterator[Int64[np.ndarray, " _"]]:
    """Per prompt, the items that are not eligible whichever one is chosen: the past, and what is barred."""
    for past, more in zip(prompts.histories, barred, strict=True):
        yield np.concatenate([past, more]).astype(np.int64)


def draw(
    forth: Float64[np.ndarray, "n items"],
    back: Callable[[Int64[np.ndarray, " n"]], Float64[np.ndarray, "n items"]],
    prompts: Queries,
    chosen: Int64[np.ndarray, " n"],
    barred: Int[np.ndarray, "n b"],
    uniform01: Float64[np.ndarray, " n"],
) -> Found:
    """Draws with probability proportional to exp(``forth``) among the eligible items, by inversion of ``uniform01``.
    ``back``: the log weights if the given items had been chosen. Both are arrays of their own and are written to."""
    closed = np.zeros(forth.shape, dtype=bool)
    for row, items in enumerate(unavailable(prompts, barred)):
        closed[row, items] = True
    _close(forth, closed, chosen)
    items, left = _invert(forth, uniform01)
    swapped = back(items)
    _close(swapped, closed, items)
    law = _log_probability(swapped, chosen) - np.where(left, _log_probability(forth, items), 0)
    return Found(np.where(left, items, -1), np.where(left, law, 0), left)


def _close(
    log_weights: Float64[np.ndarray, "n items"], closed: Bool[np.ndarray, "n items"], chosen: Int64[np.ndarray, " n"]
) -> None:
    """Sets the weights of items that are not eligible, given the ``chosen`` ones, to -inf."""
    log_weights[closed] = -np.inf
    log_weights[np.arange(len(chosen)), chosen] = -np.inf


def _invert(
    log_weights: Float64[np.ndarray, "n items"], uniform01: Float64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The item of each row at which the cumulative probability passes ``uniform01``, and whether there is one."""
    top = log_weights.max(axis=1)
    left = np.isfinite(top)
    cumulated = np.exp(log_weights - np.where(left, top, 0)[:, None]).cumsum(axis=1)
    total = cumulated[:, -1]
    threshold = np.minimum(uniform01 * total, np.nextafter(total, 0))  # rounding could reach the total
    return np.where(left, (cumulated <= threshold[:, None]).sum(axis=1), 0), left


def _log_probability(
    log_weights: Float64[np.ndarray, "n items"], items: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Log-probability of each row's item; -inf for one that is not eligible, even in a row without eligible items."""
    weight = log_weights[np.arange(len(items)), items]
    top = np.maximum(log_weights.max(axis=1), -1e300)  # -inf - -inf would be nan
    with np.errstate(divide="ignore"):
        normaliser = top + np.log(np.exp(log_weights - top[:, None]).sum(axis=1))
    return np.where(np.isfinite(weight), weight - np.where(np.isfinite(weight), normaliser, 0), -np.inf)
