"""Real facts that the synthetic replicas are calibrated to, each with its source.

Steam: measured on the Australian reviews (UCSD; `user,item_id,date,recommend,title`) after this package's own
preparation with the 5-core that the profiles use, which leaves 1,301 users and 330 games.

Goodreads: no interactions were available to measure. History lengths are the statistics that the
goodbooks-10k authors published with their data (6.0 M ratings of 53,424 readers). Popularity is measured on
the same project's book list: the Gini of `ratings_count` (ratings of all Goodreads readers) over its 10,000
books. A Gini depends on which books make the catalogue: the mean over random subsets equals the whole's
(1,000 books: .636, standard deviation .027; 1,500: .633, .023), while the most popular books alone are far
more equal (top 1,000: .477; top 1,500: .506). A replica's catalogue models a random subset, so its target is
the whole list's Gini at any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Num

TOLERANCE = 0.10
CALIBRATED = ("history_median", "popularity_gini")


@dataclass(frozen=True)
class Fact:
    """A number of the real data. ``how``: measured with this package, or published by the source."""

    value: float
    how: Literal["measured", "published"]
    source: str


_STEAM = "UCSD Australian Steam reviews, 5-core (1,301 users, 330 games)"
_GOODBOOKS = "goodbooks-10k, quick_look.ipynb, reviews per user (github.com/zygmuntz/goodbooks-10k)"
_BOOKS = "goodbooks-10k, books.csv, Gini of ratings_count over 10,000 books"

FACTS: dict[str, dict[str, Fact]] = {
    "steam": {
        "history_median": Fact(6.0, "measured", _STEAM),
        "history_mean": Fact(5.890, "measured", _STEAM),
        "history_q25": Fact(5.0, "measured", _STEAM),
        "history_q75": Fact(6.0, "measured", _STEAM),
        "popularity_gini": Fact(0.5953, "measured", _STEAM),
        "tied_share": Fact(0.0692, "measured", _STEAM),
    },
    "goodreads": {
        "history_median": Fact(111.0, "published", _GOODBOOKS),
        "history_mean": Fact(111.87, "published", _GOODBOOKS),
        "history_q25": Fact(96.0, "published", _GOODBOOKS),
        "history_q75": Fact(128.0, "published", _GOODBOOKS),
        "popularity_gini": Fact(0.6359, "measured", _BOOKS),
    },
}


def gini(counts: Num[np.ndarray, " n"]) -> float:
    """Inequality of non-negative ``counts``: sum_i (2i - n - 1) x_(i) / (n sum x), x ascending.
    0: all equal."""
    ascending = np.sort(np.asarray(counts, dtype=np.float64))
    n = len(ascending)
    assert n, "a Gini needs counts"
    assert ascending[0] >= 0, "a Gini needs counts that are not negative"
    assert ascending[-1] > 0, "a Gini needs a positive count"
    return float(((2 * np.arange(1, n + 1) - n - 1) * ascending).sum() / (n * ascending.sum()))
