"""The mixture of RosePO's three samplers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Int64

from rosepo_bench.base.component import setting
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import TrainView
from rosepo_bench.preference.samplers.base import Pool, Rejected, Sampler
from rosepo_bench.preference.samplers.popularity import Popularity
from rosepo_bench.preference.samplers.self_hard import SelfHard
from rosepo_bench.preference.samplers.semantic import Semantic


class Mixed(Sampler):
    """Each item's sampler is drawn at random, independently of the items, and recorded: an item's law is that of the
    sampler that drew it."""

    name = "mixed"
    about = "self_hard, semantic or popularity, drawn for each item with equal probability"
    paper = "arXiv 2410.12519 (RosePO)"
    self_hard: SelfHard = setting(SelfHard(), about="the language model's own mistakes")
    semantic: Semantic = setting(Semantic(), about="items with a similar text")
    popularity: Popularity = setting(Popularity(), about="popular items")

    @property
    def pool(self) -> Pool:
        return self.self_hard.pool

    def one(
        self,
        view: TrainView,
        prompts: Queries,
        chosen: Int64[np.ndarray, " n"],
        barred: Int[np.ndarray, "n b"],
        seed: int,
    ) -> Rejected:
        parts = (self.self_hard, self.semantic, self.popularity)
        which = generator(seed, "rejected", "mixed").integers(len(parts), size=len(prompts))
        drawn = []
        for number, part in enumerate(parts):
            rows = np.flatnonzero(which == number)
            seed_of = derive(seed, "mixed", part.label())
            drawn.append(part.one(view, prompts.take(rows), chosen[rows], barred[rows], seed_of))
        return Rejected.joined(drawn, axis=0).take(np.argsort(np.argsort(which, kind="stable")))
