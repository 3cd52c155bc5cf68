"""The table of rows that an audit works on: items as indices, and the rows of each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from rosepo_bench.base.errors import UserError

PAD = -1  # fills short lists


@dataclass(frozen=True)
class RawRow:
    """A row as its file has it: ``user`` and ``history`` are empty where the file tells none."""

    user: str
    history: tuple[str, ...]
    target: str
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """The rows of one split. ``candidates`` stand in the order of their list; short lists end with -1."""

    name: str
    users: tuple[str, ...]
    histories: tuple[Int32[np.ndarray, " _"], ...]
    target: Int64[np.ndarray, " n"]
    candidates: Int64[np.ndarray, "n size"]

    def __len__(self) -> int:
        return len(self.target)

    @property
    def sizes(self) -> Int64[np.ndarray, " n"]:
        """The length of each list."""
        return (self.candidates != PAD).sum(1)

    @property
    def whole(self) -> Bool[np.ndarray, " n"]:
        """Rows that can be attacked: the target stands among at least one negative, and nothing stands there twice."""
        return ((self.candidates == self.target[:, None]).sum(1) == 1) & ~repeated(self.candidates) & (self.sizes > 1)

    def take(self, rows: Int64[np.ndarray, " rows"]) -> Rows:
        """The same at ``rows``."""
        users, histories = (tuple(own[row] for row in rows) if own else () for own in (self.users, self.histories))
        return Rows(self.name, users, histories, self.target[rows], self.candidates[rows])


@dataclass(frozen=True)
class Table:
    """The audited ``rows`` and those of ``others``, further splits of the same data. ``items`` are the owner's ids or
    titles, ``titles`` their titles (empty where not known). ``popularity[i]``: interactions of item i that are known
    without the audited lists; None where nothing is."""

    items: tuple[str, ...]
    titles: tuple[str, ...]
    rows: Rows
    others: tuple[Rows, ...] = ()
    popularity: Float64[np.ndarray, " items"] | None = None

    @classmethod
    def of(cls, splits: Mapping[str, Sequence[RawRow]], titles: Mapping[str, str] | None = None) -> Table:
        """From the rows of each split, of which the first is audited. ``titles`` by item; without, items that are not
        all numbers are their own titles. UserError: an item has no title in ``titles``."""
        index: dict[str, int] = {}
        made = [_rows(name, rows, index) for name, rows in splits.items()]
        items = tuple(index)
        if titles is None:
            named = () if all(map(str.isdecimal, items)) else items
        else:
            for item in items:
                if item not in titles:
                    raise UserError(f"no title is given for item {item!r} of the candidate file: add it to the titles")
            named = tuple(titles[item] for item in items)
        return cls(items, named, made[0], tuple(made[1:]), _popularity(made, len(items)))

    @property
    def rank(self) -> Int64[np.ndarray, " items"]:
        """Each item's place in the order of ids: by number where all are numbers, else as text."""
        numbers = all(item.isdecimal() for item in self.items)
        order = sorted(range(len(self.items)), key=lambda one: int(self.items[one]) if numbers else self.items[one])
        return np.argsort(np.array(order, dtype=np.int64))


def repeated(lists: Int64[np.ndarray, "n size"]) -> Bool[np.ndarray, " n"]:
    """Rows in which an item stands twice."""
    ordered = np.sort(lists, 1)
    return ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != PAD)).any(1)


def _rows(name: str, rows: Sequence[RawRow], index: dict[str, int]) -> Rows:
    def of(items: Sequence[str]) -> list[int]:
        return [index.setdefault(item, len(index)) for item in items]

    lists = [of(row.candidates) for row in rows]
    candidates = np.full((len(rows), max(map(len, lists), default=0)), PAD, dtype=np.int64)
    for own, listed in zip(candidates, lists, strict=True):
        own[: len(listed)] = listed
    target = np.array([of([row.target])[0] for row in rows], dtype=np.int64)
    histories = tuple(np.array(of(row.history), dtype=np.int32) for row in rows)
    users = tuple(row.user for row in rows)
    return Rows(name, users if any(users) else (), histories if any(map(len, histories)) else (), target, candidates)


def _popularity(splits: Sequence[Rows], items: int) -> Float64[np.ndarray, " items"] | None:
    """How often each item is met: in all histories, and as target of the splits that are not audited."""
    met = [history for rows in splits for history in rows.histories] + [rows.target for rows in splits[1:]]
    return np.bincount(np.concatenate(met), minlength=items).astype(np.float64) if met else None
