"""Popularity counts training interactions."""

from __future__ import annotations

import numpy as np

from rosepo_bench.base.work import Work
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import TrainView
from rosepo_bench.recommenders.popularity import Popularity


def view() -> TrainView:
    sequences = (np.array([0, 2, 2], np.int32), np.array([2], np.int32), np.array([], np.int32))
    return TrainView(sequences, np.arange(3), ("a", "b", "c", "d"), ((),) * 4)


def test_counts() -> None:
    assert view().counts.tolist() == [1, 0, 3, 0]
    assert view().of([0, 2]).counts.tolist() == [1, 0, 2, 0]


def test_scores_order_items_by_count_whatever_the_history() -> None:
    state = Popularity().fit(view(), Work(seed=0), None)
    one, none = np.ones(2, np.int64), np.zeros((2, 1), np.int32)
    queries = Queries(one, one, one, none, (np.array([0], np.int32), np.array([3], np.int32)))
    scores = Popularity().scores(state, queries, np.tile(np.arange(4), (2, 1)))
    np.testing.assert_allclose(scores, [np.log([2, 1, 4, 1])] * 2)
