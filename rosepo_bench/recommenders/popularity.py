"""Popularity: items rank by their number of training interactions, whatever the history."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int

from rosepo_bench.base.work import Work
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import HoldoutView, TrainView
from rosepo_bench.recommenders.base import Oracle, State


class Popularity(Oracle):
    """The logarithm of one more than the number of training interactions: a log-utility, as an oracle needs."""

    name = "popularity"
    about = "number of training interactions, the same for every user"

    def fit(self, view: TrainView, work: Work, holdout: HoldoutView | None) -> State:
        return {"counts": view.counts}

    def scores(self, state: State, queries: Queries, items: Int[np.ndarray, "n R"]) -> Float64[np.ndarray, "n R"]:
        return np.log1p(state["counts"])[items]
