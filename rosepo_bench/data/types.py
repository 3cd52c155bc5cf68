"""The types of data, from raw rows to examples: plain arrays, with indices instead of ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int32, Int64


@dataclass(frozen=True)
class RawFile:
    """One file that was read: enough to recognise it."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where interactions come from. ``kind`` is printed beside every number computed from them."""

    name: str
    kind: Literal["real", "synthetic"]
    files: tuple[RawFile, ...] = ()
    citation: str = ""
    terms: str = ""
    note: str = ""


@dataclass(frozen=True)
class RawInteractions:
    """Rows as the owner publishes them, in file order. ``item`` indexes ``titles`` and ``genres``, ``user`` indexes
    ``user_ids``, ``time`` is in unix seconds."""

    source: Source
    user: Int64[np.ndarray, " rows"]
    item: Int64[np.ndarray, " rows"]
    time: Int64[np.ndarray, " rows"]
    user_ids: tuple[str, ...]
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Dataset:
    """Histories ready for use: ``sequences[u]`` holds user u's item indices in the order of ``(time, original row)``,
    ``times[u]`` their unix seconds. ``counts`` gives the users, items and interactions left after each step of the
    preparation; ``digest`` is the sha256 of everything that can change a result."""

    name: str
    source: Source
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    sequences: tuple[Int32[np.ndarray, " _"], ...]
    times: tuple[Int64[np.ndarray, " _"], ...]
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
    are the target's position, -1 where the user has none. The history of a target at p is ``sequence[:p]``."""

    kind: Literal["leave_one_out", "temporal"]
    train_end: Int64[np.ndarray, " users"]
    validation: Int64[np.ndarray, " users"]
    test: Int64[np.ndarray, " users"]


@dataclass(frozen=True)
class Examples:
    """Prompts with their targets and candidates: ``target`` is ``sequences[user][step]``, the history is everything
    before it, and ``candidates`` holds the target in column ``position``."""

    user: Int64[np.ndarray, " n"]
    step: Int64[np.ndarray, " n"]
    target: Int64[np.ndarray, " n"]
    candidates: Int32[np.ndarray, "n size"]
    position: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: Int64[np.ndarray, " rows"] | Bool[np.ndarray, " n"]) -> Examples:
        """The examples at ``rows`` (indices or a boolean mask)."""
        return Examples(self.user[rows], self.step[rows], self.target[rows], self.candidates[rows], self.position[rows])
