"""Diversity: how unequally the items of the catalogue are recommended, over all users together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from rosepo_bench.evaluation.metrics.lists import Counts, Lists, at_one_and_ten

MOST = 3
"""Of how many most recommended items the share is taken."""


def _often(lists: Lists, counts: Counts) -> Int64[np.ndarray, " items"]:
    """How often each item is recommended, in ascending order, 0 included."""
    return np.sort(np.bincount(lists.ravel(), minlength=len(counts)))


def coverage(lists: Lists, counts: Counts) -> float:
    """Share of the catalogue that is recommended to anybody."""
    return float((_often(lists, counts) > 0).mean())


def gini(lists: Lists, counts: Counts) -> float:
    """Gini index: 0 where all items are recommended equally often, near 1 where one alone is."""
    often, n = _often(lists, counts), len(counts)
    return float(((2 * np.arange(1, n + 1) - n - 1) * often).sum() / (n * often.sum()))


def entropy(lists: Lists, counts: Counts) -> float:
    """Shannon entropy in nats."""
    often = _often(lists, counts)
    share = often[often > 0] / often.sum()
    return float(-(share * np.log(share)).sum())


def orratio(lists: Lists, counts: Counts) -> float:
    """Over-recommendation ratio: the share of the three most recommended items."""
    often = _often(lists, counts)
    return float(often[-MOST:].sum() / often.sum())


COVERAGE1, COVERAGE10 = at_one_and_ten(
    coverage, "high", "share of the catalogue that is recommended to anybody", "RecBole ItemCoverage", per="corpus"
)
GINI1, GINI10 = at_one_and_ten(
    gini,
    "low",
    "inequality of how often items are recommended: 0 all equally, near 1 one item alone",
    "RecBole GiniIndex",
    per="corpus",
)
ENTROPY1, ENTROPY10 = at_one_and_ten(
    entropy,
    "high",
    "Shannon entropy (nats) of how often items are recommended; RecBole divides it by the number of such items",
    per="corpus",
)
ORRATIO1, ORRATIO10 = at_one_and_ten(
    orratio, "low", "share of recommendations that are of the three most recommended items", per="corpus"
)
