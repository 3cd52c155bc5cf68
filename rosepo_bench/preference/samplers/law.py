"""Draws one item per prompt from a sampler's distribution q (its "law"), with the log-ratio for the swapped pair.

The preference oracle asks: given the unordered pair, how likely is it that the other item was the chosen one? The
sampler's part of the answer is log q(y_w | x, y_l) - log q(y_l | x, y_w), where the first term is the probability of
rejecting y_w had y_l been chosen: then y_l is not eligible and y_w is. If y_w is also in the past (taken a second
time), it could not have been rejected and the difference is -inf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import TrainView
from rosepo_bench.preference.samplers import dense
from rosepo_bench.preference.samplers.dense import Found
from rosepo_bench.preference.samplers.prefix import Sums


@runtime_checkable
class Weighted(Protocol):
    """What the law needs of a sampler; see `base.Sampler`."""

    @property
    def by_chosen(self) -> bool: ...

    def label(self) -> str: ...

    def log_weights(
        self, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"]
    ) -> Float[np.ndarray, "*n items"]: ...

    def chosen_log_weights(
        self, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"] | None: ...


def by_law(
    sampler: Weighted,
    view: TrainView,
    prompts: Queries,
    chosen: Int64[np.ndarray, " n"],
    barred: Int[np.ndarray, "n b"],
    uniform01: Float64[np.ndarray, " n"],
) -> Found:
    """Draws among the eligible items with probability proportional to exp(weight), by inversion of ``uniform01``."""
    return _Draws(sampler, view, prompts, chosen, barred, uniform01).all()


@dataclass(frozen=True)
class _Draws:
    """The arguments of `by_law`."""

    sampler: Weighted
    view: TrainView
    prompts: Queries
    chosen: Int64[np.ndarray, " n"]
    barred: Int[np.ndarray, "n b"]
    uniform01: Float64[np.ndarray, " n"]

    def all(self) -> Found:
        """One row tells whether all prompts share their weights."""
        rows = np.arange(len(self.prompts))
        if not len(rows):
            return Found.none(0)
        first = self._weights(rows[:1], self.chosen[:1])
        return self._one_by_one(rows) if first.ndim == 2 or self.sampler.by_chosen else self._shared(rows, first)

    def _one_by_one(self, rows: Int64[np.ndarray, " rows"]) -> Found:
        found = Found.none(len(rows))
        for part in dense.chunks(rows, self.view.items):
            found.put(part, self._dense(part, self._weights(part, self.chosen[part])))
        return found

    def _shared(self, rows: Int64[np.ndarray, " rows"], log_weights: Float64[np.ndarray, " items"]) -> Found:
        found, unsure = Found.none(len(rows)), []
        sums, swapped = Sums.of(log_weights), self._swapped(rows, log_weights)
        longest = max(len(past) for past in self.prompts.histories) + self.barred.shape[1] + 1
        for part in dense.chunks(rows, longest):
            taken = dense.unavailable(self.prompts.take(part), self.barred[part])
            some, sure = sums.draw(taken, self.chosen[part], swapped[part], self.uniform01[part])
            found.put(part, some)
            unsure.append(part[~sure])
        for part in dense.chunks(np.concatenate(unsure), self.view.items):
            found.put(part, self._dense(part, log_weights))
        return found

    def _dense(self, rows: Int64[np.ndarray, " rows"], log_weights: Float64[np.ndarray, "*rows items"]) -> Found:
        forth = np.array(np.broadcast_to(log_weights, (len(rows), self.view.items)))
        prompts, chosen = self.prompts.take(rows), self.chosen[rows]

        def back(items: Int64[np.ndarray, " rows"]) -> Float64[np.ndarray, "rows items"]:
            if self.sampler.by_chosen:
                again = self._weights(rows, items)
                return np.array(np.broadcast_to(again, (len(rows), self.view.items)))
            swapped = np.array(np.broadcast_to(log_weights, (len(rows), self.view.items)))
            swapped[np.arange(len(rows)), chosen] = self._swapped(rows, log_weights)
            return swapped

        return dense.draw(forth, back, prompts, chosen, self.barred[rows], self.uniform01[rows])

    def _weights(
        self, rows: Int64[np.ndarray, " rows"], chosen: Int64[np.ndarray, " rows"]
    ) -> Float64[np.ndarray, "*rows items"]:
        found = np.asarray(self.sampler.log_weights(self.view, self.prompts.take(rows), chosen), dtype=np.float64)
        self._require("log_weights", found, ((self.view.items,), (len(rows), self.view.items)))
        return found

    def _swapped(
        self, rows: Int64[np.ndarray, " rows"], log_weights: Float64[np.ndarray, "*rows items"]
    ) -> Float64[np.ndarray, " rows"]:
        """The log weight of each chosen item had another one been chosen."""
        chosen = self.chosen[rows]
        given = self.sampler.chosen_log_weights(self.view, self.prompts.take(rows), chosen)
        if given is None:
            return log_weights[chosen] if log_weights.ndim == 1 else log_weights[np.arange(len(rows)), chosen]
        found = np.asarray(given, dtype=np.float64)
        self._require("chosen_log_weights", found, ((len(rows),),))
        return found

    def _require(self, what: str, found: Float64[np.ndarray, "*any"], shapes: tuple[tuple[int, ...], ...]) -> None:
        where = f"sampler {self.sampler.label()}: {what}"
        if found.shape not in shapes:
            raise UserError(f"{where} has the shape {found.shape}, not {' or '.join(map(str, shapes))}")
        if np.isnan(found).any() or (found == np.inf).any():
            raise UserError(f"{where} holds NaN or +inf; -inf is the weight of an item that is never drawn")
