"""Metrics of recommended items, of the first one and of the first ten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from rosepo_bench.evaluation.metrics.base import Metric, Predictions

Lists = Int[np.ndarray, "n K"]
Counts = Int[np.ndarray, " items"]


def at_one_and_ten(
    function: Callable[[Lists, Any], Any],
    better: Literal["high", "low"],
    about: str,
    source: str = "",
    *,
    per: Literal["user", "corpus"] = "user",
    reads_target: bool = False,
) -> Iterator[Metric]:
    """``function@1`` and ``function@10``: of the lists ``[n, K]`` of recommended items and the items' training
    interactions, or (``reads_target``) the whole predictions."""
    for k, column in ((1, "top"), (10, "items")):
        needs = frozenset({column, "counts", *(("target",) if reads_target else ())})
        measured = partial(_of_lists, function=function, column=column, whole=reads_target)
        yield Metric(f"{function.__name__}@{k}", about, needs, better, measured, source, per, "popularity")


def _of_lists(predictions: Predictions, function: Callable[[Lists, Any], Any], column: str, whole: bool) -> Any:
    lists = np.asarray(getattr(predictions, column))
    return function(lists.reshape(len(lists), -1), predictions if whole else predictions.counts)
