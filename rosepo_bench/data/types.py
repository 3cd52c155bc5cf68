"""What a data set is, from raw rows to the split: plain arrays, indices instead of ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

IntArray = np.ndarray
FloatArray = np.ndarray


@dataclass(frozen=True)
class RawFile:
    """One file that was read: enough to know it again."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where interactions come from. ``kind`` is printed wherever a number of theirs stands."""

    name: str
    kind: Literal["real", "synthetic"]
    files: tuple[RawFile, ...] = ()
    citation: str = ""
    terms: str = ""
    note: str = ""


@dataclass(frozen=True)
class RawInteractions:
    """Rows as the owner publishes them, in file order. ``user``, ``item``, ``time`` (unix seconds): int64 ``[rows]``;
    ``item`` indexes ``titles`` and ``genres``, ``user`` indexes ``user_ids``."""

    source: Source
    user: IntArray
    item: IntArray
    time: IntArray
    user_ids: tuple[str, ...]
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Dataset:
    """Histories ready for use: ``sequences[u]`` are item indices (int32) in the order of ``(time, original row)``,
    ``times[u]`` their unix seconds (int64). ``counts`` tells how many users, items and interactions each step of the
    preparation left; ``digest`` is the sha256 of everything that can change a result."""

    name: str
    source: Source
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    sequences: tuple[IntArray, ...]
    times: tuple[IntArray, ...]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    digest: str = ""

    @property
    def users(self) -> int:
        return len(self.sequences)

    @property
    def items(self) -> int:
        return len(self.titles)


@dataclass(frozen=True)
class Split:
    """Positions in each user's sequence: training steps are ``[0, train_end[u])``; ``validation[u]`` and ``test[u]``
    are the target's position, -1 where the user has none. The history of a target at p is ``sequence[:p]``. int64
    ``[users]``."""

    kind: Literal["leave_one_out", "temporal"]
    train_end: IntArray
    validation: IntArray
    test: IntArray


@dataclass(frozen=True)
class Examples:
    """Prompts with their answer and candidates: ``user`` and ``step`` int64 ``[n]`` (the target is
    ``sequences[user][step]``, its history everything before), ``candidates`` int32 ``[n, size]`` with the target at
    ``position`` int64 ``[n]``."""

    user: IntArray
    step: IntArray
    target: IntArray
    candidates: IntArray
    position: IntArray

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: IntArray) -> Examples:
        """The examples at ``rows`` (indices or a boolean mask)."""
        return Examples(self.user[rows], self.step[rows], self.target[rows], self.candidates[rows], self.position[rows])
