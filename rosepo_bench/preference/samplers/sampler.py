"""Which item is rejected: samplers of y_l, each with its distribution q(y_l | x, y_w).

All items are eligible but y_w and the user's past (everything up to y_w). The user's future is eligible: leaving an
item out *because* they take it later would leak the future into training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int, Int64
from scipy import sparse

from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.data.types import Dataset, Examples, Split
from rosepo_bench.preference.samplers import semantic
from rosepo_bench.preference.samplers.law import LogWeights, by_law, pasts
from rosepo_bench.preference.samplers.self_hard import Pool, Rejected, self_hard
from rosepo_bench.recommenders import popularity

SamplerName = Literal["uniform", "self_hard", "semantic", "popularity", "mixed"]
SAMPLERS = get_args(SamplerName)
MIXTURE = ("self_hard", "semantic", "popularity")


@dataclass(frozen=True)
class Sampler:
    """All samplers of one data set. ``counts`` are each item's training interactions (the first ``train_end[u]`` of
    every user u); ``vectors`` the text encoding ``[items, grams]``; ``history`` how many of the last items the semantic
    sampler reads."""

    dataset: Dataset
    train_end: Int64[np.ndarray, " users"]
    counts: Int64[np.ndarray, " items"]
    vectors: sparse.csr_matrix
    config: PreferenceConfig
    history: int

    @classmethod
    def of(cls, dataset: Dataset, split: Split, config: PreferenceConfig, *, history: int) -> Sampler:
        """Counts training interactions and encodes the titles."""
        training = (dataset.sequences[user][:end] for user, end in enumerate(split.train_end))
        counts = popularity.counts(training, dataset.items)
        vectors = semantic.encode(dataset.titles, dataset.genres)
        return cls(dataset, split.train_end, counts, vectors, config, history)

    def draw(
        self,
        name: str,
        examples: Examples,
        *,
        seed: int,
        pool: Pool | None = None,
        exclude: Int[np.ndarray, "n k"] | None = None,
    ) -> Rejected:
        """One rejected item per example. `self_hard` and `mixed` choose from ``pool``; the items ``exclude`` are not
        eligible either. Raises UserError for an unknown sampler and where no item is eligible."""
        if name not in SAMPLERS:
            raise UserError(f"unknown sampler {name!r}; {nearest(name, SAMPLERS)}")
        if exclude is None:
            exclude = np.empty((len(examples), 0), dtype=np.int64)
        if name == "mixed":
            return self._mixed(examples, seed, pool, exclude)
        if name == "self_hard":
            assert pool is not None, "self_hard needs the language model's scores"
            return self_hard(self.dataset, examples, pool, exclude)
        weights = {"uniform": self._uniform, "popularity": self._popularity, "semantic": self._semantic}[name]
        uniform01 = generator(seed, "rejected", name).random(len(examples))
        items, law = by_law(self.dataset, examples, weights(examples), uniform01, exclude)
        return Rejected(items, law, np.full(len(items), name, dtype="U16"))

    def draw_list(self, name: str, examples: Examples, count: int, *, seed: int, pool: Pool | None = None) -> Rejected:
        """``count`` distinct rejected items per example, drawn one after the other without replacement; the law of each
        is conditional on those before it."""
        drawn: list[Rejected] = []
        for place in range(count):
            before = [part.items for part in drawn]
            exclude = np.stack(before, axis=1) if before else None
            drawn.append(self.draw(name, examples, seed=derive(seed, "list", place), pool=pool, exclude=exclude))
        return Rejected(
            *(np.stack([getattr(part, field) for part in drawn], axis=1) for field in Rejected.__dataclass_fields__)
        )

    def _uniform(self, examples: Examples) -> LogWeights:
        return LogWeights(lambda rows, chosen: np.zeros((len(rows), self.dataset.items)))

    def _popularity(self, examples: Examples) -> LogWeights:
        """Counts to the power of the exponent, without the example's own interaction, which would tell the oracle which
        item is y_w. The draw itself does not depend on it, since y_w is not eligible."""
        exponent = self.config.popularity_exponent
        own = examples.step < self.train_end[examples.user]

        def logs(counts: Int64[np.ndarray, " _"]) -> Float64[np.ndarray, " _"]:
            with np.errstate(divide="ignore"):  # an item without interactions is never drawn, unless the exponent is 0
                return exponent * np.log(counts) if exponent else np.zeros(len(counts))

        def weights(
            rows: Int64[np.ndarray, " rows"], chosen: Int64[np.ndarray, " rows"]
        ) -> Float64[np.ndarray, "rows items"]:
            target = examples.target[rows]
            table = np.tile(logs(self.counts), (len(rows), 1))
            table[np.arange(len(rows)), target] = logs(self.counts[target] - own[rows])
            return table

        return LogWeights(weights)

    def _semantic(self, examples: Examples) -> LogWeights:
        """softmax(cosine / temperature) around the history, or around the chosen item."""
        if self.config.semantic_anchor == "history":
            anchors = semantic.history_vectors(
                self.vectors, [past[-self.history :] for past in pasts(self.dataset, examples)]
            )
            return LogWeights(lambda rows, chosen: self._near(anchors[rows]))
        return LogWeights(lambda rows, chosen: self._near(self.vectors[chosen]), by_chosen=True)

    def _near(self, anchors: sparse.csr_matrix) -> Float64[np.ndarray, "n items"]:
        return semantic.similarity(anchors, self.vectors) / self.config.semantic_temperature

    def _mixed(self, examples: Examples, seed: int, pool: Pool | None, exclude: Int[np.ndarray, "n k"]) -> Rejected:
        """Each pair's sampler is drawn at random, independently of the items, and recorded, so a pair's law is its own
        sampler's."""
        assert pool is not None, "mixed includes self_hard, which needs the language model's scores"
        which = generator(seed, "rejected", "mixed").integers(len(MIXTURE), size=len(examples))
        n = len(examples)
        mixed = Rejected(np.zeros(n, np.int32), np.zeros(n), np.full(n, "", dtype="U16"))
        for number, name in enumerate(MIXTURE):
            rows = np.flatnonzero(which == number)
            part = self.draw(
                name,
                examples.take(rows),
                seed=derive(seed, "mixed", name),
                pool=pool.take(rows),
                exclude=exclude[rows],
            )
            for field in Rejected.__dataclass_fields__:
                getattr(mixed, field)[rows] = getattr(part, field)
        return mixed
