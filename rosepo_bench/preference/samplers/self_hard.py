"""The self-hard sampler: rejects the language model's own mistakes, its highest scored items that the user did not
take."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int, Int64

from rosepo_bench.base.component import setting
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import TrainView
from rosepo_bench.preference.samplers.base import Pool, Rejected, Sampler, ScoredQueries
from rosepo_bench.preference.samplers.dense import unavailable


class SelfHard(Sampler):
    """The eligible item that the SFT model scores highest, the first among equals; a list holds the K best.
    Deterministic, so without q: its law is 0."""

    name = "self_hard"
    about = "the items that the SFT model scores highest among those that the user has not taken"
    paper = "arXiv 2410.12519 (RosePO)"
    items: Literal["candidates", "catalogue"] = setting(
        "candidates", about="items that it chooses from: the prompt's candidates, or the whole catalogue"
    )

    @property
    def pool(self) -> Pool:
        return self.items

    def one(
        self,
        view: TrainView,
        prompts: Queries,
        chosen: Int64[np.ndarray, " n"],
        barred: Int[np.ndarray, "n b"],
        seed: int,
    ) -> Rejected:
        assert isinstance(prompts, ScoredQueries), "self_hard needs the language model's scores"
        assert np.isfinite(prompts.scores).all(), "scores of the pool are not finite"
        allowed = prompts.scored != chosen[:, None]
        for row, taken in enumerate(unavailable(prompts, barred)):
            allowed[row] &= ~np.isin(prompts.scored[row], taken)
        best = np.where(allowed, prompts.scores, -np.inf).argmax(axis=1)[:, None]
        mask = allowed.any(axis=1, keepdims=True)
        items = np.where(mask, np.take_along_axis(prompts.scored, best, axis=1), -1)
        return Rejected(items.astype(np.int32), np.zeros(mask.shape), np.full(mask.shape, self.label()), mask)
