"""Popularity bias: how often the recommended items were taken in training, be they right or wrong.

Of each user the first item counts (``@1``), or the first ten of the catalogue (``@10``)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from rosepo_bench.evaluation.metrics.base import Predictions
from rosepo_bench.evaluation.metrics.lists import Counts, Lists, at_one_and_ten

HEAD = 0.8
"""The fewest items with this share of the training interactions are the head, all others the tail."""


def arp(lists: Lists, counts: Counts) -> Float64[np.ndarray, " n"]:
    """Average recommendation popularity: mean training interactions of the recommended items."""
    return counts[lists].mean(axis=1, dtype=np.float64)


def percentile(lists: Lists, counts: Counts) -> Float64[np.ndarray, " n"]:
    """Mean share of the catalogue's items that are less popular than a recommended one. Equally popular ones count
    half, so that uniform recommendations have 0.5."""
    order = np.sort(counts)
    places = np.searchsorted(order, counts, "left") + np.searchsorted(order, counts, "right")
    return (places / (2 * len(counts)))[lists].mean(axis=1)


def tail(counts: Counts) -> Bool[np.ndarray, " items"]:
    """The items outside of the head; of equally popular ones those of higher number come last into the head."""
    order = np.argsort(-counts, kind="stable")
    reached = np.cumsum(counts[order]) >= HEAD * counts.sum()
    found = np.ones(len(counts), dtype=bool)
    found[order[: int(reached.argmax()) + 1]] = False
    return found


def aplt(lists: Lists, counts: Counts) -> Float64[np.ndarray, " n"]:
    """Average percentage of long-tail items: share of recommended items in the tail."""
    return tail(counts)[lists].mean(axis=1, dtype=np.float64)


def lift(lists: Lists, predictions: Predictions) -> Float64[np.ndarray, " n"]:
    """Mean log(1 + training interactions) of the recommended items minus that of the target: above 0, recommendations
    are more popular than what users took."""
    assert predictions.counts is not None
    assert predictions.target is not None
    weight = np.log1p(predictions.counts)
    return weight[lists].mean(axis=1) - weight[predictions.target]


ARP1, ARP10 = at_one_and_ten(
    arp,
    "low",
    "mean training interactions of the recommended items",
    "Yin et al., VLDB 2012; RecBole AveragePopularity",
)
PERCENTILE1, PERCENTILE10 = at_one_and_ten(
    percentile, "low", "mean share of the catalogue that is less popular than a recommended item; uniform: 0.5"
)
APLT1, APLT10 = at_one_and_ten(
    aplt,
    "high",
    "share of recommended items outside of the head, the fewest items with 80 % of the training interactions",
    "Abdollahpouri et al., RecSys 2017",
)
LIFT1, LIFT10 = at_one_and_ten(
    lift,
    "low",
    "mean log(1 + training interactions) of the recommended items minus that of the target",
    reads_target=True,
)
