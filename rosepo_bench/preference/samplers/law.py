"""Draws one item per example from a sampler's distribution q (its "law"), with the log-ratio for the swapped pair.

The preference oracle asks: given the unordered pair, how likely is it that the other item was the chosen one? The
sampler's part of the answer is log q(y_w | x, y_l) - log q(y_l | x, y_w), where the first term is the probability of
rejecting y_w had y_l been chosen: then y_l is not eligible and y_w is. If y_w is also in the past (taken a second
time), it could not have been rejected and the difference is -inf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Dataset, Examples

CELLS = 1 << 18  # elements of a chunk's [rows, items] array, so that it stays in the cache; changes no result


@dataclass(frozen=True)
class LogWeights:
    """``of``: from (rows, the chosen item of each) to log weights, up to a constant per row. ``by_chosen``: the weights
    depend on the chosen item and must be computed again when y_w and y_l swap roles."""

    of: Callable[[Int64[np.ndarray, " rows"], Int64[np.ndarray, " rows"]], Float64[np.ndarray, "rows items"]]
    by_chosen: bool = False


def pasts(dataset: Dataset, examples: Examples) -> Iterator[Int32[np.ndarray, " _"]]:
    """The items strictly before each example's step."""
    for user, step in zip(examples.user, examples.step, strict=True):
        yield dataset.sequences[user][:step]


def by_law(
    dataset: Dataset,
    examples: Examples,
    weights: LogWeights,
    uniform01: Float64[np.ndarray, " n"],
    exclude: Int[np.ndarray, "n k"],
) -> tuple[Int32[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Draws among the eligible items with probability proportional to exp(weight), by inversion of ``uniform01``.
    Returns the items and log q(y_w|x,y_l) - log q(y_l|x,y_w)."""
    items = np.zeros(len(examples), dtype=np.int32)
    law = np.zeros(len(examples))
    size = max(1, CELLS // dataset.items)
    for start in range(0, len(examples), size):
        rows = np.arange(start, min(start + size, len(examples)))
        part = examples.take(rows)
        forth = weights.of(rows, part.target)
        barred = _barred(dataset, part, exclude[rows])
        back = None if weights.by_chosen else forth.copy()
        _close(forth, barred, part.target)
        drawn = _invert(forth, uniform01[rows], part)
        if back is None:
            back = weights.of(rows, drawn)
        _close(back, barred, drawn)
        items[rows] = drawn
        law[rows] = _log_probability(back, part.target) - _log_probability(forth, drawn)
    return items, law


def _barred(dataset: Dataset, examples: Examples, exclude: Int[np.ndarray, "n k"]) -> Bool[np.ndarray, "n items"]:
    """Mask of the past and of what is excluded."""
    barred = np.zeros((len(examples), dataset.items), dtype=bool)
    for row, past in enumerate(pasts(dataset, examples)):
        barred[row, past] = True
    barred[np.arange(len(examples))[:, None], exclude] = True
    return barred


def _close(
    log_weights: Float64[np.ndarray, "n items"], barred: Bool[np.ndarray, "n items"], chosen: Int64[np.ndarray, " n"]
) -> None:
    """Sets the weights of items that are not eligible, given the ``chosen`` ones, to -inf."""
    log_weights[barred] = -np.inf
    log_weights[np.arange(len(chosen)), chosen] = -np.inf


def _log_probability(
    log_weights: Float64[np.ndarray, "n items"], items: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Log-probability of each row's item; -inf for one that is not eligible, even in a row without eligible items."""
    weight = log_weights[np.arange(len(items)), items]
    top = np.maximum(log_weights.max(axis=1), -1e300)  # -inf - -inf would be nan
    with np.errstate(divide="ignore"):
        normaliser = top + np.log(np.exp(log_weights - top[:, None]).sum(axis=1))
    return np.where(np.isfinite(weight), weight - np.where(np.isfinite(weight), normaliser, 0), -np.inf)


def _invert(
    log_weights: Float64[np.ndarray, "n items"], uniform01: Float64[np.ndarray, " n"], examples: Examples
) -> Int64[np.ndarray, " n"]:
    """The item of each row at which the cumulative probability passes ``uniform01``."""
    top = log_weights.max(axis=1)
    if not np.isfinite(top).all():
        user = int(examples.user[np.flatnonzero(~np.isfinite(top))[0]])
        raise UserError(f"user {user}: no eligible item is left; use the uniform sampler or fewer rejected items")
    cumulated = np.exp(log_weights - top[:, None]).cumsum(axis=1)
    total = cumulated[:, -1]
    threshold = np.minimum(uniform01 * total, np.nextafter(total, 0))  # rounding could reach the total
    return (cumulated <= threshold[:, None]).sum(axis=1)
