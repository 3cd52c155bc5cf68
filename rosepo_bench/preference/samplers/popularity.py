"""The popularity sampler: items in proportion to their training interactions, to some power."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rosepo_bench.base.component import setting
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import TrainView
from rosepo_bench.preference.samplers.base import Sampler


class Popularity(Sampler):
    """Items that nobody has taken in training are never drawn, unless the exponent is 0."""

    name = "popularity"
    about = "popular items, in proportion to their count in training to the power of the exponent"
    paper = "arXiv 2410.12519 (RosePO)"
    exponent: float = setting(1.0, ge=0, about="popular items are rejected in proportion to count to the power of this")

    def log_weights(
        self, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " items"]:
        return self._logs(view.counts)

    def chosen_log_weights(
        self, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " n"]:
        """Without the prompt's own interaction, which would tell the oracle which item is y_w. The draw itself does not
        depend on it, since y_w is not eligible."""
        return self._logs(view.counts[chosen] - own(view, prompts))

    def _logs(self, counts: Int64[np.ndarray, " _"]) -> Float64[np.ndarray, " _"]:
        if not self.exponent:
            return np.zeros(len(counts))
        with np.errstate(divide="ignore"):
            return self.exponent * np.log(counts)


def own(view: TrainView, prompts: Queries) -> Bool[np.ndarray, " n"]:
    """Whether the view counts the interaction that follows each prompt."""
    lengths = dict(zip(view.users.tolist(), view.lengths.tolist(), strict=True))
    return prompts.step < np.array([lengths.get(user, 0) for user in prompts.user.tolist()], dtype=np.int64)
