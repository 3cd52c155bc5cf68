"""What prepared data hide: clones of users, a future that training sees, ties in time, users who have met nearly all
items. A table computed from the data says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from rosepo_bench.data import candidates
from rosepo_bench.data.sequences import id_order, tied_share
from rosepo_bench.data.types import Dataset, Split

WINDOW = 5
"""So many equal items before the target are no chance: series make runs of two and three."""
MANY_CLONES = 0.05
"""A larger share of targets that follow the same WINDOW items in another user's training part is warned of."""
IN_ORDER = 0.95
"""From this share of ties on, which ascend in the item id, file order is said to carry the id."""
FEW_TIES = 10
"""Of fewer ties it is not said whether they ascend."""
NAMED = 3
"""As many of the users that are left out are named."""


@dataclass(frozen=True)
class _Events:
    """All events, user by user: ``user``, ``item``, ``time``, and ``place`` in the user's history."""

    dataset: Dataset

    @cached_property
    def lengths(self) -> Int64[np.ndarray, " users"]:
        return np.array([len(own) for own in self.dataset.sequences], dtype=np.int64)

    @cached_property
    def first(self) -> Int64[np.ndarray, " users"]:
        """Where each user's events begin."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def user(self) -> Int64[np.ndarray, " events"]:
        return np.repeat(np.arange(self.dataset.users), self.lengths)

    @cached_property
    def item(self) -> Int64[np.ndarray, " events"]:
        return np.concatenate(self.dataset.sequences).astype(np.int64)

    @cached_property
    def time(self) -> Int64[np.ndarray, " events"]:
        return np.concatenate(self.dataset.times)

    @cached_property
    def place(self) -> Int64[np.ndarray, " events"]:
        return np.arange(len(self.user)) - self.first[self.user]


def facts(dataset: Dataset, split: Split, size: int) -> dict[str, Any]:
    """By name: ``tied_share`` of the test targets; ``cloned_share`` and ``copied_share``, of those that follow the same
    two and the same five items in another user's training part; ``later_share``, that of the training events which are
    later than the earliest test event (None: no dates); ``ties``, how they are ordered; ``tied_neighbours``, the share
    of neighbouring events of one time, and ``tied_ascending``, the share of these that ascend in the item id (None:
    fewer than 10 ties); ``test_users`` with a target, of which ``left_out`` have no candidate list of ``size``, and
    ``left_out_first``, the owner's ids of up to three of them."""
    events = _Events(dataset)
    tested = split.test >= 0
    without = np.flatnonzero(tested & ~candidates.with_list(dataset, split.test, size))
    return {
        "tied_share": tied_share(dataset, split),
        "ties": dataset.ties,
        **_neighbours(dataset, events),
        "cloned_share": float(_cloned(events, split, 2)[tested].mean()),
        "copied_share": float(_cloned(events, split, WINDOW)[tested].mean()),
        "later_share": _later_share(events, split) if dataset.dated else None,
        "test_users": int(tested.sum()),
        "left_out": len(without),
        "left_out_first": [dataset.user_id(user) for user in without[:NAMED].tolist()],
    }


def cloned(dataset: Dataset, split: Split, items: int = 2) -> Bool[np.ndarray, " users"]:
    """Users whose test target directly follows the same items in another user's training part too: ``items`` before
    it, or all where the history is shorter, at least two. Windows of one history that were published as users of their
    own look like this."""
    return _cloned(_Events(dataset), split, items)


def _cloned(events: _Events, split: Split, items: int) -> Bool[np.ndarray, " users"]:
    found = np.zeros(len(split.test), dtype=bool)
    for before in range(2, items + 1):
        tested = np.flatnonzero((split.test >= before) if before == items else (split.test == before))
        if len(tested):
            found[tested] = _met(events, split, tested, before)
    return found


def _met(events: _Events, split: Split, tested: Int64[np.ndarray, " n"], before: int) -> Bool[np.ndarray, " n"]:
    """Which of these users' test targets follow the same ``before`` items in another user's training part."""
    learned = np.flatnonzero((events.place >= before) & (events.place < split.train_end[events.user]))
    code = _runs(events.item, np.concatenate([learned, events.first[tested] + split.test[tested]]), before + 1)
    lowest, highest = np.full(len(code), len(split.test)), np.full(len(code), -1)  # the users who have each run
    np.minimum.at(lowest, code[: len(learned)], events.user[learned])
    np.maximum.at(highest, code[: len(learned)], events.user[learned])
    own = code[len(learned) :]
    return (highest[own] >= 0) & ((lowest[own] != tested) | (highest[own] != tested))


def _runs(item: Int64[np.ndarray, " events"], last: Int64[np.ndarray, " n"], length: int) -> Int64[np.ndarray, " n"]:
    """A number from 0 up for the ``length`` items that end at each of ``last``; equal for equal ones alone."""
    items = int(item.max()) + 1
    code = item[last - length + 1]
    for back in range(length - 2, -1, -1):
        _, code = np.unique(code * items + item[last - back], return_inverse=True)
    return code.astype(np.int64)


def _later_share(events: _Events, split: Split) -> float:
    tested = np.flatnonzero(split.test >= 0)
    earliest = events.time[events.first[tested] + split.test[tested]].min()
    learned = events.time[events.place < split.train_end[events.user]]
    return float((learned > earliest).mean()) if len(learned) else 0.0


def _neighbours(dataset: Dataset, events: _Events) -> dict[str, float | None]:
    neighbours = np.flatnonzero(np.diff(events.user) == 0)
    tied = neighbours[events.time[neighbours] == events.time[neighbours + 1]]
    order = id_order(dataset)[events.item]
    ascending = float((order[tied] < order[tied + 1]).mean()) if len(tied) >= FEW_TIES else None
    return {"tied_neighbours": len(tied) / max(1, len(neighbours)), "tied_ascending": ascending}


def remarks(told: Mapping[str, Any]) -> list[str]:
    """What a reader must know of these :func:`facts`, which may be incomplete, as sentences in Markdown."""
    return [sentence for part in (_of_ties, _of_clones, _of_time, _of_lists) for sentence in part(told)]


def warning(told: Mapping[str, Any]) -> str:
    """The warning of cloned users; empty where there are few."""
    if (told.get("copied_share") or 0) <= MANY_CLONES:
        return ""
    return (
        f"**Cloned users.** {_percent(told['copied_share'])} of the test targets stand after the same {WINDOW} items "
        "(all, where a history is shorter) in another user's training part, where a model can look them up. Windows of "
        "one history that were published as several users look like this: merge such users, or hold their histories "
        "out together."
    )


def _of_ties(told: Mapping[str, Any]) -> Iterator[str]:
    ties = told.get("ties") or "file"
    if told.get("tied_share"):
        order = {"file": "file order", "item": "the order of item ids", "shuffled": "a draw"}[ties]
        yield (
            f"For {_percent(told['tied_share'])} of the users the last events have the same time: {order} determines "
            "the target."
        )
    if ties == "file" and (told.get("tied_ascending") or 0) >= IN_ORDER:
        yield (
            f"{_percent(told['tied_neighbours'])} of neighbouring events have the same time, and "
            f"{_percent(told['tied_ascending'])} of these ascend in the item id: file order carries the item id; "
            '`ties = "shuffled"` removes it.'
        )


def _of_clones(told: Mapping[str, Any]) -> Iterator[str]:
    if told.get("cloned_share") is not None:
        yield (
            f"For {_percent(told['cloned_share'])} of the test targets, another user's training part has the same "
            "target after the same two items."
        )


def _of_time(told: Mapping[str, Any]) -> Iterator[str]:
    if told.get("later_share"):
        yield (
            f"{_percent(told['later_share'])} of the training events are later than the earliest test event: "
            '`split = "temporal"` holds out everything after one date instead.'
        )


def _of_lists(told: Mapping[str, Any]) -> Iterator[str]:
    if told.get("left_out"):
        names = [f"`{name}`" for name in told["left_out_first"]] + ["…"] * (told["left_out"] > NAMED)
        yield (
            f"Left out: {told['left_out']} of {told['test_users']} users with a test target ({', '.join(names)}), who "
            "have met too many items to fill a candidate list with others."
        )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
