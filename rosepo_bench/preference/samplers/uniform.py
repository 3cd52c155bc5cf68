"""The uniform sampler: every eligible item alike."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import TrainView
from rosepo_bench.preference.samplers.base import Sampler


class Uniform(Sampler):
    """All eligible items are equally likely."""

    name = "uniform"
    about = "every item that the user has not taken, with equal probability"
    paper = "arXiv 2406.09215 (S-DPO)"

    def log_weights(
        self, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " items"]:
        return np.zeros(view.items)
