"""Redraws of a candidate file under the null hypothesis that nothing in a list tells which of its items is the target.

The file's own negatives are exchanged between its rows: every arrangement that puts no negative into its row's history,
onto its target, or twice into a list has the same probability. An honest law of negatives, uniform or by popularity,
has this property whatever the targets' popularity is, if it is one law for all rows. The arrangements are reached by
random swaps, and the redraws are exchangeable with the file itself by the parallel scheme of Besag and Clifford
(Generalized Monte Carlo significance tests, Biometrika 76, 1989): the chain runs backwards from the file to a hub, and
each redraw runs forwards from there. Places within a list are drawn independently, and so are the spellings of an item
among its occurrences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from rosepo_bench.evaluation.audit.table import PAD, Table

SWEEPS = 2  # each offers every negative a swap with a random other row; more only make redraws less alike


@dataclass(frozen=True)
class Draw:
    """The file or a redraw. ``lists``: the target first, then the negatives, then ``items`` (the number of items) as
    padding. ``places``: where each stands in the list, in any unit. ``odd``: it is not spelled as the item mostly is;
    None where each item has one spelling."""

    lists: Int32[np.ndarray, "n size"]
    places: Float32[np.ndarray, "n size"]
    odd: Bool[np.ndarray, "n size"] | None


class Redraws:
    """Draws from the null of ``table.rows``, all of which must be whole."""

    def __init__(self, table: Table, odd: OddSpelling | None, rng: np.random.Generator) -> None:
        self.rng, self.odd = rng, odd
        self.observed, self.sizes = observed(table, odd), table.rows.sizes
        # The listed items, numbered anew, so that memory does not grow with the catalogue; padding is the last.
        self.listed = np.union1d(self.observed.lists, [len(table.items)]).astype(np.int32)
        self.padding = len(self.listed) - 1
        self.rows = np.arange(len(table.rows)) * len(self.listed)
        lists = np.searchsorted(self.listed, self.observed.lists)
        self.taken = self._taken(lists, table.rows.histories)
        self.hub = np.ascontiguousarray(rng.permuted(lists[:, 1:], axis=1).T)
        for _ in range(SWEEPS):
            self._sweep(self.hub)
            self._turn(self.hub)

    def draw(self) -> Draw:
        """One redraw."""
        state = self.hub.copy()
        for _ in range(SWEEPS):
            self._turn(state)
            self._sweep(state)
        self._mark(state, False)
        self._mark(self.hub, True)
        lists = np.concatenate([self.observed.lists[:, :1], self.listed[state.T]], 1)
        places = self.rng.random(lists.shape, dtype=np.float32)
        places[lists == self.listed[-1]] = 2  # behind all others
        return Draw(lists, places, None if self.odd is None else self.odd.shuffled(self.rng))

    def _taken(
        self, lists: Int64[np.ndarray, "n size"], histories: Sequence[Int32[np.ndarray, " _"]]
    ) -> Bool[np.ndarray, " _"]:
        """What cannot be put into each row: its target, its negatives, and its history unless the file's own negatives
        stand in histories too. Padding stays where it is."""
        taken, known = np.zeros((2, len(lists), len(self.listed)), dtype=bool)
        for own, history in zip(known, histories, strict=False):
            own[np.isin(self.listed, history)] = True
        if not np.take_along_axis(known, lists[:, 1:], 1).any():
            taken |= known
        np.put_along_axis(taken, lists, True, 1)
        taken[:, self.padding] = True
        return taken.reshape(-1)

    def _mark(self, state: Int64[np.ndarray, "_ n"], value: bool) -> None:
        at = (self.rows + state).reshape(-1)
        self.taken[at] = value
        self.taken[self.rows + self.padding] = True

    def _turn(self, state: Int64[np.ndarray, "_ n"]) -> None:
        """Turns each row's negatives by a random number of columns: a row is a set, and swaps stay in a column."""
        depth, n = state.shape
        at = (np.arange(depth)[:, None] + self.rng.integers(depth, size=n)) % depth
        state[:] = np.take_along_axis(state, at, 0)

    def _sweep(self, state: Int64[np.ndarray, "_ n"]) -> None:
        """Pairs the rows at random for every column and swaps where both rows can take the other's negative."""
        n, taken = len(self.rows), self.taken
        for column in self.rng.permutation(len(state)):
            own, shuffled = state[column], self.rng.permutation(n)
            one, two = shuffled[: n // 2], shuffled[n // 2 : n // 2 * 2]
            first, second = own[one], own[two]
            free = ~(taken.take(self.rows[two] + first) | taken.take(self.rows[one] + second))
            one, two, first, second = one[free], two[free], first[free], second[free]
            at, other = self.rows[one], self.rows[two]
            taken[at + first] = taken[other + second] = False
            taken[at + second] = taken[other + first] = True
            own[one], own[two] = second, first


class OddSpelling:
    """Which occurrences of an item are not spelled as it mostly is. Two candidates are one item if their letters and
    digits agree, without regard to case."""

    def __init__(self, table: Table, lists: Int32[np.ndarray, "n size"]) -> None:
        letters = ["".join(filter(str.isalnum, title.casefold())) or title for title in table.titles]
        _, key = np.unique(np.array([*letters, "\0"]), return_inverse=True)
        spelling = np.bincount(lists.reshape(-1), minlength=len(table.items) + 1)
        spelling[-1] = 0
        most = np.zeros(key.max() + 1, dtype=np.int64)
        np.maximum.at(most, key, spelling)
        self.flags = (spelling < most[key])[lists]
        self.key = key[lists].reshape(-1)
        several = np.zeros(len(most), dtype=bool)
        several[self.key[self.flags.reshape(-1)]] = True
        self.at = np.flatnonzero(several[self.key])
        self.at = self.at[np.argsort(self.key[self.at], kind="stable")]

    def shuffled(self, rng: np.random.Generator) -> Bool[np.ndarray, "n size"]:
        """The flags, exchanged at random among the occurrences of each item."""
        flags = self.flags.copy()
        order = np.lexsort((rng.random(len(self.at)), self.key[self.at]))
        flags.reshape(-1)[self.at] = self.flags.reshape(-1)[self.at[order]]
        return flags


def observed(table: Table, odd: OddSpelling | None) -> Draw:
    """The file itself."""
    lists, places = layout(table)
    return Draw(lists, places, None if odd is None else odd.flags)


def layout(table: Table) -> tuple[Int32[np.ndarray, "n size"], Float32[np.ndarray, "n size"]]:
    """The lists of a Draw and the places of their items."""
    rows, items = table.rows, len(table.items)
    at: Int64[np.ndarray, "n size"] = np.argsort(rows.candidates != rows.target[:, None], axis=1, kind="stable")
    lists = np.take_along_axis(rows.candidates, at, 1)
    return np.where(lists == PAD, items, lists).astype(np.int32), at.astype(np.float32)
