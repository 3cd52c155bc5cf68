"""What methods, samplers and oracles may see of a data set: copies of the training parts, and prompts without targets.

The whole data set, with every user's test item, stays with the task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int32, Int64

from rosepo_bench.data.types import Dataset, Prompts, Queries, Split


@dataclass(frozen=True, eq=False)
class TrainView:
    """The training part of a data set. ``sequences[u]`` are user u's training items, oldest first, and ``users[u]`` is
    that user's number in the data set; ``titles`` and ``genres`` are those of all items, also of items that nobody has
    in training. ``label`` names the data set in messages."""

    sequences: tuple[Int32[np.ndarray, " _"], ...]
    users: Int64[np.ndarray, " users"]
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    label: str = ""

    @property
    def items(self) -> int:
        return len(self.titles)

    @cached_property
    def lengths(self) -> Int64[np.ndarray, " users"]:
        """Training items of each user."""
        return np.array([len(sequence) for sequence in self.sequences], dtype=np.int64)

    @cached_property
    def counts(self) -> Int64[np.ndarray, " items"]:
        """Training interactions of each item."""
        return np.bincount(np.concatenate([*self.sequences, np.empty(0, np.int32)]), minlength=self.items)

    def of(self, rows: Iterable[int]) -> TrainView:
        """The view of the users at ``rows`` alone, for cross-fitting: what it counts is theirs."""
        chosen = list(rows)
        sequences = tuple(self.sequences[row] for row in chosen)
        return TrainView(sequences, self.users[chosen], self.titles, self.genres, self.label)


@dataclass(frozen=True, eq=False)
class HoldoutView:
    """The validation part: queries and their answers. Only stages that declare it receive one: early stopping,
    temperatures, tuning. ``target`` stands in column ``position`` of the queries' candidates."""

    queries: Queries
    target: Int64[np.ndarray, " n"]
    position: Int64[np.ndarray, " n"]
    metric: Callable[[Float[np.ndarray, "n size"], HoldoutView], float]
    better: str

    def measure(self, scores: Float[np.ndarray, "n size"]) -> float:
        """The validation metric of ``scores`` of the queries' candidates; ``better``: ``high`` or ``low``."""
        return self.metric(scores, self)

    def of(self, users: Int64[np.ndarray, " users"]) -> HoldoutView:
        """The part of the given users of the data set, for cross-fitting."""
        rows = np.flatnonzero(np.isin(self.queries.user, users))
        return replace(self, queries=self.queries.take(rows), target=self.target[rows], position=self.position[rows])


def train_view(dataset: Dataset, split: Split) -> TrainView:
    """The training part of ``dataset`` under ``split``, in arrays of its own that cannot be written to."""
    sequences = tuple(
        _copy(sequence, int(end)) for sequence, end in zip(dataset.sequences, split.train_end, strict=True)
    )
    return TrainView(sequences, np.arange(dataset.users), dataset.titles, dataset.genres, dataset.name)


def queries(dataset: Dataset, prompts: Prompts) -> Queries:
    """``prompts`` with the histories before their steps, and without their targets if they have any."""
    histories = tuple(
        _copy(dataset.sequences[user], int(step)) for user, step in zip(prompts.user, prompts.step, strict=True)
    )
    return Queries(prompts.user, prompts.step, prompts.start, prompts.candidates, histories)


def _copy(sequence: Int32[np.ndarray, " _"], stop: int) -> Int32[np.ndarray, " _"]:
    """The first items in memory of their own: a slice would lead back to the whole through its ``base``."""
    copied = np.array(sequence[:stop], dtype=np.int32)
    copied.setflags(write=False)
    return copied
