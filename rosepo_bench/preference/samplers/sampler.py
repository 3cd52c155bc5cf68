"""Which item is rejected: samplers of y_l, each with its law q(y_l | x, y_w).

Eligible are all items but y_w and the user's past (everything up to y_w). His future is eligible: leaving an
item out *because* he takes it later would leak the future into training.

The law enters the preference oracle. Given the unordered pair, how likely is it that the other item was the
chosen one? The sampler answers with log q(y_w | x, y_l) - log q(y_l | x, y_w): y_w as the rejected item had
y_l been chosen, where y_l leaves the eligible items and y_w enters them. Where y_w is in the past too (taken
a second time), nobody could have rejected it and the difference is -inf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import sparse

from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.data.types import Dataset, Examples, FloatArray, IntArray, Split
from rosepo_bench.preference.samplers import semantic
from rosepo_bench.recommenders import popularity

SamplerName = Literal["uniform", "self_hard", "semantic", "popularity", "mixed"]
SAMPLERS = get_args(SamplerName)
MIXTURE = ("self_hard", "semantic", "popularity")
CELLS = 1 << 18  # of a chunk's [rows, items] array: it stays in the cache; no number depends on it


@dataclass(frozen=True)
class LogWeights:
    """``of``: (rows, chosen item of each) to log weights ``[len(rows), items]``, up to a constant of the row;
    ``by_chosen``: whether they differ with the chosen item, i.e. must be computed again when y_w and y_l swap
    roles."""

    of: Callable[[IntArray, IntArray], FloatArray]
    by_chosen: bool = False


@dataclass(frozen=True)
class Pool:
    """Scored items among which self-hard looks: ``items`` int ``[n, k]``, ``scores`` ``[n, k]`` (the language
    model's), one row an example: its candidates, or the top of the whole catalogue."""

    items: IntArray
    scores: FloatArray

    def take(self, rows: IntArray) -> Pool:
        """The rows of some examples."""
        return Pool(self.items[rows], self.scores[rows])


@dataclass(frozen=True)
class Rejected:
    """``items`` int32 ``[n]``; ``law`` float64 ``[n]``, log q(y_w|x,y_l) - log q(y_l|x,y_w); ``known_law``
    bool ``[n]``, False where the sampler is deterministic and the law is left out (0); ``kind`` ``[n]``, the
    sampler of each pair. From `Sampler.draw_list` all are ``[n, K]``."""

    items: IntArray
    law: FloatArray
    known_law: np.ndarray
    kind: np.ndarray


@dataclass(frozen=True)
class Sampler:
    """All samplers of one data set. ``counts`` int64 ``[items]`` of training interactions, those of user u
    being his first ``train_end[u]``; ``vectors`` the text encoding ``[items, grams]``; ``history`` how many
    last items the semantic sampler reads."""

    dataset: Dataset
    train_end: IntArray
    counts: IntArray
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
        exclude: IntArray | None = None,
    ) -> Rejected:
        """One rejected item an example. ``pool`` is what `self_hard` and `mixed` choose from; ``exclude``
        ``[n, k]`` are further items that are not eligible. Raises UserError for an unknown sampler and where
        no item is eligible."""
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
        return Rejected(items, law, np.ones(len(items), dtype=bool), np.full(len(items), name, dtype="U16"))

    def draw_list(self, name: str, examples: Examples, count: int, *, seed: int, pool: Pool | None = None) -> Rejected:
        """``count`` distinct rejected items an example, drawn one after the other without replacement; the
        law of each is the one given those before it."""
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
        """Counts to the power of the exponent, without the example's own interaction: a law that knew of it
        would name y_w. The draw is the same with it, since y_w is not eligible."""
        exponent = self.config.popularity_exponent
        own = examples.step < self.train_end[examples.user]

        def logs(counts: IntArray) -> FloatArray:
            with np.errstate(divide="ignore"):  # an item nobody took is never drawn, unless the exponent is 0
                return exponent * np.log(counts) if exponent else np.zeros(len(counts))

        def weights(rows: IntArray, chosen: IntArray) -> FloatArray:
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

    def _near(self, anchors: sparse.csr_matrix) -> FloatArray:
        return semantic.similarity(anchors, self.vectors) / self.config.semantic_temperature

    def _mixed(self, examples: Examples, seed: int, pool: Pool | None, exclude: IntArray) -> Rejected:
        """Each pair's sampler drawn at random. Which one it was is recorded, and chosen without a look at the
        items, so the law of a pair is its own sampler's."""
        assert pool is not None, "mixed holds self_hard, which needs the language model's scores"
        which = generator(seed, "rejected", "mixed").integers(len(MIXTURE), size=len(examples))
        n = len(examples)
        mixed = Rejected(np.zeros(n, np.int32), np.zeros(n), np.zeros(n, bool), np.full(n, "", dtype="U16"))
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


def pasts(dataset: Dataset, examples: Examples) -> Iterator[IntArray]:
    """The items strictly before each example's step."""
    for user, step in zip(examples.user, examples.step, strict=True):
        yield dataset.sequences[user][:step]


def by_law(
    dataset: Dataset, examples: Examples, weights: LogWeights, uniform01: FloatArray, exclude: IntArray
) -> tuple[IntArray, FloatArray]:
    """Draws item i with probability proportional to exp(weight) among the eligible ones, by inversion of
    ``uniform01`` ``[n]``. Returns items int32 ``[n]`` and log q(y_w|x,y_l) - log q(y_l|x,y_w) float64
    ``[n]``."""
    items = np.zeros(len(examples), dtype=np.int32)
    law = np.zeros(len(examples))
    size = max(1, CELLS // dataset.items)
    for start in range(0, len(examples), size):
        rows = np.arange(start, min(start + size, len(examples)))
        part = examples.take(rows)
        forth = weights.of(rows, part.target)
        barred = _barred(dataset, part, exclude[rows])
        back = None if weights.by_chosen else forth.copy()
        _close(forth, barred, part.target)
        drawn = _invert(forth, uniform01[rows], part)
        if back is None:
            back = weights.of(rows, drawn)
        _close(back, barred, drawn)
        items[rows] = drawn
        law[rows] = _log_probability(back, part.target) - _log_probability(forth, drawn)
    return items, law


def _barred(dataset: Dataset, examples: Examples, exclude: IntArray) -> np.ndarray:
    """bool ``[n, items]``: the past, and what is excluded."""
    barred = np.zeros((len(examples), dataset.items), dtype=bool)
    for row, past in enumerate(pasts(dataset, examples)):
        barred[row, past] = True
    barred[np.arange(len(examples))[:, None], exclude] = True
    return barred


def _close(log_weights: FloatArray, barred: np.ndarray, chosen: IntArray) -> None:
    """Leaves the items that are eligible when ``chosen`` are the chosen ones."""
    log_weights[barred] = -np.inf
    log_weights[np.arange(len(chosen)), chosen] = -np.inf


def _log_probability(log_weights: FloatArray, items: IntArray) -> FloatArray:
    """log of the probability of each row's item; -inf for one that is not eligible, even where none is."""
    weight = log_weights[np.arange(len(items)), items]
    top = np.maximum(log_weights.max(axis=1), -1e300)  # -inf - -inf would be nan
    with np.errstate(divide="ignore"):
        normaliser = top + np.log(np.exp(log_weights - top[:, None]).sum(axis=1))
    return np.where(np.isfinite(weight), weight - np.where(np.isfinite(weight), normaliser, 0), -np.inf)


def _invert(log_weights: FloatArray, uniform01: FloatArray, examples: Examples) -> IntArray:
    """The item of each row at which the cumulated probability passes ``uniform01``."""
    top = log_weights.max(axis=1)
    if not np.isfinite(top).all():
        user = int(examples.user[np.flatnonzero(~np.isfinite(top))[0]])
        raise UserError(f"user {user}: no eligible item is left; use the uniform sampler or fewer rejected items")
    cumulated = np.exp(log_weights - top[:, None]).cumsum(axis=1)
    total = cumulated[:, -1]
    threshold = np.minimum(uniform01 * total, np.nextafter(total, 0))  # rounding could reach the total
    return (cumulated <= threshold[:, None]).sum(axis=1)


def self_hard(dataset: Dataset, examples: Examples, pool: Pool, exclude: IntArray) -> Rejected:
    """The eligible item of ``pool`` that the language model scores highest (the first one among equals): what
    it gets wrong. Deterministic, so without q."""
    assert pool.items.shape == pool.scores.shape, "one score an item"
    assert len(pool.items) == len(examples), "one row of the pool an example"
    assert np.isfinite(pool.scores).all(), "scores of the pool are not finite"
    allowed = pool.items != examples.target[:, None]
    for row, past in enumerate(pasts(dataset, examples)):
        allowed[row] &= ~np.isin(pool.items[row], past) & ~np.isin(pool.items[row], exclude[row])
    if not allowed.any(axis=1).all():
        user = int(examples.user[np.flatnonzero(~allowed.any(axis=1))[0]])
        raise UserError(f"user {user}: no scored item is left to reject; give self_hard more candidates")
    best = np.where(allowed, pool.scores, -np.inf).argmax(axis=1)
    items = pool.items[np.arange(len(best)), best].astype(np.int32)
    return Rejected(
        items,
        np.zeros(len(items)),
        np.zeros(len(items), dtype=bool),
        np.full(len(items), "self_hard", dtype="U16"),
    )
