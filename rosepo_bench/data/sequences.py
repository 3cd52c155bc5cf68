"""From raw rows to histories: merge, deduplicate, order, filter, split. Vectorised: tens of millions of rows
are fine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import digest, generator
from rosepo_bench.data.titles import told_apart
from rosepo_bench.data.types import Dataset, RawInteractions, Split, Ties

Kind = Literal["leave_one_out", "temporal"]
SHORTEST = 3  # leave_one_out: one event to learn from, one to validate, one to test


@dataclass
class _Table:
    """Rows, sorted by user and time; ``counts`` after each step."""

    user: Int64[np.ndarray, " rows"]
    item: Int64[np.ndarray, " rows"]
    time: Int64[np.ndarray, " rows"]
    counts: dict[str, dict[str, int]]

    def keep(self, rows: Int64[np.ndarray, " kept"] | Bool[np.ndarray, " rows"]) -> None:
        self.user, self.item, self.time = self.user[rows], self.item[rows], self.time[rows]

    def count(self, step: str) -> None:
        users, items = (int(np.count_nonzero(np.bincount(column))) for column in (self.user, self.item))
        self.counts[step] = {"users": users, "items": items, "interactions": len(self.user)}


def prepare(
    raw: RawInteractions, core: int, kind: Kind = "leave_one_out", ties: Ties = "file", seed: int = 0
) -> Dataset:
    """Histories of a raw data set. Steps, each counted: ``raw``; ``merged`` (the editions of a work become one item);
    ``unique`` (of a user's events with the same item only the first is kept); ``core`` (every user and item has at
    least ``core`` events); ``usable`` (leave_one_out also needs three events per user; items still need ``core``).
    Items of one title stay several: ``titles.told_apart`` names them. A user's events of one time stand in the order of
    the ``file``, of the ``item`` ids, or ``shuffled`` by ``seed``.

    UserError: no user is left."""
    table = _Table(raw.user, raw.item, raw.time, {})
    table.count("raw")
    if raw.works is not None:
        table.item = raw.works[raw.item]
    table.count("merged")
    table.keep(np.lexsort((_tie_order(raw, table, ties, seed), raw.time, raw.user)))
    _, first = np.unique(table.user * len(raw.titles) + table.item, return_index=True)
    table.keep(np.sort(first))
    table.count("unique")
    _core(table, core, core)
    table.count("core")
    _core(table, max(core, SHORTEST) if kind == "leave_one_out" else core, core)
    table.count("usable")
    if not len(table.user):
        raise UserError(_nobody(raw, core, table.counts))
    return _dataset(raw, table, ties)


def split(dataset: Dataset, kind: Kind) -> Split:
    """Targets of every user. ``leave_one_out``: the last event is the test, the one before it the validation.
    ``temporal``: the same two dates for all users, at 80 % and 90 % of all events' times. Events before the first date
    are for training. The validation target is the user's first event between the two dates, the test target the first
    one from the second date on; either needs a history.

    UserError: no user has a validation target, or none a test target; ``temporal`` without dates."""
    if kind == "temporal" and not dataset.dated:
        raise UserError(
            f'{dataset.full_name}: the temporal split needs dates; with time_unit = "order" use leave_one_out'
        )
    lengths = np.array([len(sequence) for sequence in dataset.sequences], dtype=np.int64)
    if kind == "leave_one_out":
        if int(lengths.min()) < SHORTEST:
            raise UserError(
                f"{dataset.full_name}: leave_one_out needs {SHORTEST} events per user, the shortest history has "
                f"{lengths.min()}; prepare it for this split, or use temporal"
            )
        return Split(kind, lengths - 2, lengths - 2, lengths - 1)
    times = np.sort(np.concatenate(dataset.times))
    dates = times[int(0.8 * len(times))], times[int(0.9 * len(times))]
    before = np.array([np.searchsorted(own, dates) for own in dataset.times], dtype=np.int64).reshape(-1, 2)
    first, second = np.maximum(before, 1).T  # a target needs a history
    validation = np.where(first < before[:, 1], first, -1)
    test = np.where(second < lengths, second, -1)
    if (validation < 0).all() or (test < 0).all():
        raise UserError(
            f"{dataset.full_name}: the temporal split leaves {np.sum(validation >= 0)} validation and "
            f"{np.sum(test >= 0)} test users; the events fall on too few dates: use leave_one_out"
        )
    return Split(kind, before[:, 0], validation, test)


def tied(dataset: Dataset, split: Split) -> Bool[np.ndarray, " users"]:
    """Users whose test target has the same time as a neighbouring event: how ties are ordered decided which is it."""
    out = np.zeros(dataset.users, dtype=bool)
    for user in np.flatnonzero(split.test >= 0).tolist():
        times, at = dataset.times[user], int(split.test[user])
        out[user] = bool((times[max(at - 1, 0) : at + 2] == times[at]).sum() > 1)
    return out


def tied_share(dataset: Dataset, split: Split) -> float:
    """Share of the test users that are :func:`tied`."""
    return float(tied(dataset, split)[split.test >= 0].mean())


def id_order(of: RawInteractions | Dataset) -> Int64[np.ndarray, " items"]:
    """The place of each item in the order of the owner's ids: of their numbers where all are whole numbers, else of
    their text. Without ids it is the item's number."""
    ids, numbers = of.item_ids, range(len(of.titles))
    if not ids:
        return np.arange(len(of.titles))
    numeric = all(one.isdecimal() for one in ids)
    order = sorted(numbers, key=lambda item: int(ids[item])) if numeric else sorted(numbers, key=ids.__getitem__)
    return np.argsort(np.array(order, dtype=np.int64))


def _tie_order(raw: RawInteractions, table: _Table, ties: Ties, seed: int) -> Shaped[np.ndarray, " rows"]:
    """What orders a user's events of one time."""
    if ties == "item":
        return id_order(raw)[table.item]
    if ties == "shuffled":
        return generator(seed, "ties", raw.source.name).random(len(raw.user))
    return np.arange(len(raw.user))


def _core(table: _Table, user_k: int, item_k: int) -> None:
    """Drops users with fewer than ``user_k`` and items with fewer than ``item_k`` events until none
    is left to drop."""
    while len(table.user):
        users, items = np.bincount(table.user), np.bincount(table.item)
        good = (users[table.user] >= user_k) & (items[table.item] >= item_k)
        if good.all():
            return
        table.keep(good)


def _dataset(raw: RawInteractions, table: _Table, ties: Ties) -> Dataset:
    """Users and items renumbered in their old order; histories are views of one array."""
    items, item = np.unique(table.item, return_inverse=True)
    users = np.unique(table.user).tolist()
    owners = [raw.titles[index] for index in items.tolist()]
    titles = told_apart(owners, [raw.hints[index] for index in items.tolist()] if raw.hints else ())
    genres = tuple(raw.genres[index] for index in items.tolist())
    bounds = np.flatnonzero(np.diff(table.user)) + 1
    flat = item.astype(np.int32)
    flat.setflags(write=False)
    table.time.setflags(write=False)
    return Dataset(
        name=raw.source.name,
        source=raw.source,
        titles=titles,
        genres=genres,
        sequences=tuple(np.split(flat, bounds)),
        times=tuple(np.split(table.time, bounds)),
        counts=table.counts,
        user_ids=tuple(raw.user_ids[user] for user in users),
        item_ids=tuple(raw.item_ids[index] for index in items.tolist()) if raw.item_ids else (),
        renamed=tuple((item, own) for item, own in enumerate(owners) if titles[item] != own),
        merged=tuple(_merged(raw, items)),
        ties=ties,
        dated=raw.dated,
        digest=digest(raw.source.name, list(titles), [list(genre) for genre in genres], flat, table.time, bounds),
    )


def _merged(raw: RawInteractions, items: Int64[np.ndarray, " items"]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The items that several of the owner's became, with the ids of those that have events."""
    if raw.works is None:
        return
    met = np.unique(raw.item)
    met = met[np.argsort(raw.works[met], kind="stable")]
    works, first = np.unique(raw.works[met], return_index=True)
    for work, own in zip(works.tolist(), np.split(met, first[1:]), strict=True):
        item = int(np.searchsorted(items, work))
        if len(own) > 1 and item < len(items) and items[item] == work:
            yield item, tuple(raw.item_ids[index] for index in own.tolist())


def _nobody(raw: RawInteractions, core: int, counts: dict[str, dict[str, int]]) -> str:
    """An error's text: what each step left, and the largest core that would leave somebody."""
    steps = "; ".join(
        f"{step}: " + ", ".join(f"{n} {what}" for what, n in count.items()) for step, count in counts.items()
    )
    for k in range(core - 1, 0, -1):
        trial = _Table(raw.user, raw.item if raw.works is None else raw.works[raw.item], raw.time, {})
        _, first = np.unique(trial.user * len(raw.titles) + trial.item, return_index=True)
        trial.keep(first)
        _core(trial, max(k, SHORTEST), k)
        if len(trial.user):
            return f"{raw.source.name}: nobody is left in the {core}-core ({steps}); try core = {k}"
    return f"{raw.source.name}: nobody has {SHORTEST} different items ({steps}); leave_one_out needs them"
