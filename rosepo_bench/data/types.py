"""The types of data, from raw rows to examples: plain arrays, with indices instead of ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Int32, Int64

P = TypeVar("P", bound="Prompts")
Ties = Literal["file", "shuffled", "item"]


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
    ``user_ids``. ``time`` orders the rows: unix seconds, nanoseconds where the file has fractions, or the file's own
    numbers where it has no dates. ``left_out``: rows that are not among them, by reason (`without a user id`).
    ``item_ids``: the items as their owner names them; empty in an invented world. ``works[i]``: the item of which item
    i is an edition, itself where of none; None where the owner tells no works. ``hints[i]``: what tells item i from
    others of its title, its year or author; empty where not known. ``dated``: the times of different users can be
    compared, which mere orders of events cannot."""

    source: Source
    user: Int64[np.ndarray, " rows"]
    item: Int64[np.ndarray, " rows"]
    time: Int64[np.ndarray, " rows"]
    user_ids: tuple[str, ...]
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    item_ids: tuple[str, ...] = ()
    works: Int64[np.ndarray, " items"] | None = None
    hints: tuple[str, ...] = ()
    dated: bool = True


@dataclass(frozen=True)
class Dataset:
    """Histories ready for use: ``sequences[u]`` holds user u's item indices, each once, in the order of time, and
    ``times[u]`` their times, in the unit of RawInteractions and ``dated`` as there; ``ties`` says how events of one
    time are ordered. ``counts`` gives the users, items and interactions left after each step of the preparation;
    ``digest`` is the sha256 of everything that can change a result. ``user_ids`` and ``item_ids`` are users and items
    as their owner names them (``item_ids`` empty in an invented world). ``titles`` are all different: ``renamed`` holds
    (item, the owner's title) where several items had the same. ``merged`` holds (item, the owner's ids that became this
    item). ``label`` is the data set's name in the profile, for messages."""

    name: str
    source: Source
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    sequences: tuple[Int32[np.ndarray, " _"], ...]
    times: tuple[Int64[np.ndarray, " _"], ...]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    digest: str = ""
    user_ids: tuple[str, ...] = ()
    item_ids: tuple[str, ...] = ()
    renamed: tuple[tuple[int, str], ...] = ()
    merged: tuple[tuple[int, tuple[str, ...]], ...] = ()
    ties: Ties = "file"
    dated: bool = True
    label: str = ""

    @property
    def users(self) -> int:
        return len(self.sequences)

    @property
    def items(self) -> int:
        return len(self.titles)

    @property
    def full_name(self) -> str:
        """The name in the profile with that of the source, as ``movielens (ml-100k)``."""
        return f"{self.label} ({self.name})" if self.label not in ("", self.name) else self.name

    def user_id(self, user: int) -> str:
        """A user as the owner names them; without ids their number."""
        return self.user_ids[user] if self.user_ids else str(user)


@dataclass(frozen=True)
class Split:
    """Positions in each user's sequence: training steps are ``[0, train_end[u])``; ``validation[u]`` and ``test[u]``
    are the target's position, -1 where the user has none. The history of a target at p is ``sequence[:p]``."""

    kind: Literal["leave_one_out", "temporal"]
    train_end: Int64[np.ndarray, " users"]
    validation: Int64[np.ndarray, " users"]
    test: Int64[np.ndarray, " users"]


@dataclass(frozen=True)
class Prompts:
    """What a model is asked: user ``user[i]`` has taken the items before ``step[i]``, of which the prompt shows those
    from ``start[i]`` on; which of ``candidates[i]`` do they take next?"""

    user: Int64[np.ndarray, " n"]
    step: Int64[np.ndarray, " n"]
    start: Int64[np.ndarray, " n"]
    candidates: Int32[np.ndarray, "n size"]

    def __len__(self) -> int:
        return len(self.user)

    def take(self: P, rows: Int64[np.ndarray, " rows"] | Bool[np.ndarray, " n"]) -> P:
        """The same at ``rows`` (indices or a boolean mask)."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: _at(column, rows) for name, column in columns.items()})


@dataclass(frozen=True)
class Examples(Prompts):
    """Prompts with their answers: ``target`` is ``sequences[user][step]`` and stands in column ``position`` of
    ``candidates``."""

    target: Int64[np.ndarray, " n"]
    position: Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class Queries(Prompts):
    """Prompts without their answers, as rankers, samplers and oracles receive them. ``histories[i]`` are the items
    before ``step[i]``, oldest first, in an array of their own: nothing of a Queries leads to a target."""

    histories: tuple[Int32[np.ndarray, " _"], ...]


def _at(column: Any, rows: Any) -> Any:
    return tuple(column[row] for row in np.arange(len(column))[rows]) if isinstance(column, tuple) else column[rows]
