"""Nine items and six users, and each sampler's law on them by enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from rosepo_bench.data.types import Dataset, Examples, Queries, Source, Split
from rosepo_bench.data.views import TrainView, queries, train_view
from rosepo_bench.preference.samplers import semantic
from rosepo_bench.preference.samplers.base import ScoredQueries

TITLES = ("Alien", "Aliens", "Heat", "Heathers", "Star Wars", "Star Trek", "Fargo", "Big", "Big Night")
GENRES = (("Horror",), ("Horror",), ("Crime",), ("Comedy",), ("War",), ("War",), ("Crime",), ("Comedy",), ())
SEQUENCES = ([0, 4, 1, 5, 2], [4, 0, 6, 1], [5, 4, 7, 0, 3, 8], [2, 6, 4, 1], [4, 1, 4, 3, 0], [7, 1, 8, 0])
EVERY_STEP = [(user, step) for user, sequence in enumerate(SEQUENCES) for step in range(1, len(sequence))]
TAKEN_TWICE = (4, 2)
"""The step whose target is in its past as well."""
ONCE = [step for step in EVERY_STEP if step != TAKEN_TWICE]
HISTORY, TEMPERATURE, EXPONENT = 2, 0.3, 0.7

Law = Callable[[int, int, int, int], float]
"""q(item | x, chosen) from user, step, chosen, item."""


def dataset() -> Dataset:
    sequences = tuple(np.array(sequence, dtype=np.int32) for sequence in SEQUENCES)
    times = tuple(np.arange(len(sequence)) for sequence in SEQUENCES)
    return Dataset("tiny", Source("tiny", "synthetic"), TITLES, GENRES, sequences, times)


def view() -> TrainView:
    """The last two items of each user are for validation and test."""
    length = np.array([len(sequence) for sequence in SEQUENCES])
    return train_view(dataset(), Split("leave_one_out", length - 2, length - 2, length - 1))


def examples(steps: Iterable[tuple[int, int]]) -> Examples:
    """Each step with every item as a candidate."""
    user, step = (np.array(column, dtype=np.int64) for column in zip(*steps, strict=True))
    target = np.array([SEQUENCES[u][s] for u, s in zip(user, step, strict=True)], dtype=np.int64)
    candidates = np.tile(np.arange(len(TITLES), dtype=np.int32), (len(user), 1))
    return Examples(user, step, np.zeros_like(step), candidates, target, target)


def asked(steps: Iterable[tuple[int, int]]) -> tuple[Queries, np.ndarray]:
    """Prompts and their chosen items."""
    given = examples(steps)
    return queries(dataset(), given), given.target


def scored(prompts: Queries, seed: int = 5) -> ScoredQueries:
    """Every item with a random score."""
    scores = np.random.default_rng(seed).normal(size=prompts.candidates.shape)
    return ScoredQueries(**vars(prompts), scored=prompts.candidates, scores=scores)


def enumerated(weight: Callable[[int, int, int, int], float]) -> Law:
    """The law from a weight(user, step, chosen, item), by the definition."""

    def law(user: int, step: int, chosen: int, item: int) -> float:
        eligible = set(range(len(TITLES))) - set(SEQUENCES[user][:step]) - {chosen}
        total = sum(weight(user, step, chosen, other) for other in eligible)
        return weight(user, step, chosen, item) / total if item in eligible else 0.0

    return law


def uniform_law() -> Law:
    return enumerated(lambda user, step, chosen, item: 1.0)


def popularity_law() -> Law:
    """Counts of the training interactions other than the example's own."""

    def weight(user: int, step: int, chosen: int, item: int) -> float:
        training = [(u, s) for u, sequence in enumerate(SEQUENCES) for s in range(len(sequence) - 2)]
        others = [SEQUENCES[u][s] for u, s in training if (u, s) != (user, step)]
        return float(others.count(item) ** EXPONENT)

    return enumerated(weight)


def semantic_law(anchor: str) -> Law:
    rows = semantic.encode(TITLES, GENRES).toarray()

    def weight(user: int, step: int, chosen: int, item: int) -> float:
        near = rows[chosen]
        if anchor == "history":
            near = np.sum([rows[past] for past in SEQUENCES[user][:step][-HISTORY:]], axis=0)
        return math.exp(float(rows[item] @ near) / float(np.linalg.norm(near)) / TEMPERATURE)

    return enumerated(weight)


def log_ratio(law: Law, user: int, step: int, other: int) -> float:
    """The law of a pair: the chosen item of this step, and ``other``."""
    chosen = SEQUENCES[user][step]
    back = law(user, step, other, chosen)
    return math.log(back) - math.log(law(user, step, chosen, other)) if back else -math.inf


def rows(steps: Iterable[tuple[int, int]], *columns: np.ndarray) -> Iterator[tuple]:
    """(user, step) and the values of each column."""
    yield from ((*step, *values) for step, *values in zip(steps, *columns, strict=True))
