"""Draws by a law: one item for each example, and how the law of the pair turns round when the two items swap roles.

The law enters the preference oracle. Given the unordered pair, how likely is it that the other item was the
chosen one? The sampler answers with log q(y_w | x, y_l) - log q(y_l | x, y_w): y_w as the rejected item had
y_l been chosen, where y_l leaves the eligible items and y_w enters them. Where y_w is in the past too (taken
a second time), nobody could have rejected it and the difference is -inf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Dataset, Examples, FloatArray, IntArray

CELLS = 1 << 18  # of a chunk's [rows, items] array: it stays in the cache; no number depends on it


@dataclass(frozen=True)
class LogWeights:
    """``of``: (rows, chosen item of each) to log weights ``[len(rows), items]``, up to a constant of the row;
    ``by_chosen``: whether they differ with the chosen item, i.e. must be computed again when y_w and y_l swap
    roles."""

    of: Callable[[IntArray, IntArray], FloatArray]
    by_chosen: bool = False


def pasts(dataset: Dataset, examples: Examples) -> Iterator[IntArray]:
    """The items strictly before each example's step."""
    for user, step in zip(examples.user, examples.step, strict=True):
        yield dataset.sequences[user][:step]


def by_law(
    dataset: Dataset, examples: Examples, weights: LogWeights, uniform01: FloatArray, exclude: IntArray
) -> tuple[IntArray, FloatArray]:
    """Draws item i with probability proportional to exp(weight) among the eligible ones, by inversion of
    ``uniform01`` ``[n]``. Returns items int32 ``[n]`` and log q(y_w|x,y_l) - log q(y_l|x,y_w) float64
    ``[n]``."""
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


def _barred(dataset: Dataset, examples: Examples, exclude: IntArray) -> np.ndarray:
    """bool ``[n, items]``: the past, and what is excluded."""
    barred = np.zeros((len(examples), dataset.items), dtype=bool)
    for row, past in enumerate(pasts(dataset, examples)):
        barred[row, past] = True
    barred[np.arange(len(examples))[:, None], exclude] = True
    return barred


def _close(log_weights: FloatArray, barred: np.ndarray, chosen: IntArray) -> None:
    """Leaves the items that are eligible when ``chosen`` are the chosen ones."""
    log_weights[barred] = -np.inf
    log_weights[np.arange(len(chosen)), chosen] = -np.inf


def _log_probability(log_weights: FloatArray, items: IntArray) -> FloatArray:
    """log of the probability of each row's item; -inf for one that is not eligible, even where none is."""
    weight = log_weights[np.arange(len(items)), items]
    top = np.maximum(log_weights.max(axis=1), -1e300)  # -inf - -inf would be nan
    with np.errstate(divide="ignore"):
        normaliser = top + np.log(np.exp(log_weights - top[:, None]).sum(axis=1))
    return np.where(np.isfinite(weight), weight - np.where(np.isfinite(weight), normaliser, 0), -np.inf)


def _invert(log_weights: FloatArray, uniform01: FloatArray, examples: Examples) -> IntArray:
    """The item of each row at which the cumulated probability passes ``uniform01``."""
    top = log_weights.max(axis=1)
    if not np.isfinite(top).all():
        user = int(examples.user[np.flatnonzero(~np.isfinite(top))[0]])
        raise UserError(f"user {user}: no eligible item is left; use the uniform sampler or fewer rejected items")
    cumulated = np.exp(log_weights - top[:, None]).cumsum(axis=1)
    total = cumulated[:, -1]
    threshold = np.minimum(uniform01 * total, np.nextafter(total, 0))  # rounding could reach the total
    return (cumulated <= threshold[:, None]).sum(axis=1)
