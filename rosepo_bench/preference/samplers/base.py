"""The contract of samplers: which items are rejected, and with which probability.

All items are eligible but the chosen one and the user's past. The user's future is eligible: leaving an item out
*because* they take it later would leak the future into training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int32, Int64, Shaped

from rosepo_bench.base.component import Component
from rosepo_bench.base.errors import UserError, of_dataset
from rosepo_bench.base.plugins import Kind
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import TrainView
from rosepo_bench.preference.samplers.law import by_law

Pool = Literal["", "candidates", "catalogue"]


@dataclass(frozen=True)
class ScoredQueries(Queries):
    """Queries with the SFT model's scores, under the evaluation's rule, of the items ``scored[i]``: the prompt's
    candidates, or the top of the whole catalogue."""

    scored: Int32[np.ndarray, "n m"]
    scores: Float64[np.ndarray, "n m"]


@dataclass(frozen=True)
class Rejected:
    """K rejected items per prompt. ``law`` is log q(y_w|x,y_l) - log q(y_l|x,y_w), or 0 where the choice is
    deterministic; ``kind`` the sampler that chose the item; ``mask`` is False where a list is shorter than K, whose
    items are then -1. The first column is never masked."""

    items: Int32[np.ndarray, "n K"]
    law: Float64[np.ndarray, "n K"]
    kind: Shaped[np.ndarray, "n K"]
    mask: Bool[np.ndarray, "n K"]

    @classmethod
    def joined(cls, parts: Sequence[Rejected], axis: int) -> Rejected:
        """The parts one after the other: prompts (0) or places of the lists (1)."""
        columns = (field.name for field in fields(cls))
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts], axis) for name in columns})

    def take(self, rows: Int64[np.ndarray, " rows"]) -> Rejected:
        """The same at ``rows``."""
        return Rejected(self.items[rows], self.law[rows], self.kind[rows], self.mask[rows])


class Sampler(Component):
    """Chooses rejected items. A sampler needs :meth:`log_weights` alone; its eligibility, draws and law follow.
    Override :meth:`one` where the choice is not a draw from such weights."""

    kind: ClassVar[Kind] = Kind("sampler", "samplers", "rosepo_bench.preference.samplers")

    @property
    def by_chosen(self) -> bool:
        """Whether the weights depend on the chosen item. Then they are computed again when y_w and y_l swap roles, and
        `chosen_log_weights` is not asked."""
        return False

    @property
    def pool(self) -> Pool:
        """The items whose scores under the SFT model it reads, then as :class:`ScoredQueries`; empty: none."""
        return ""

    def log_weights(
        self, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"]
    ) -> Float[np.ndarray, "*n items"]:
        """Log weights up to a constant per row, -inf for items that are never drawn: ``[items]`` where all prompts have
        the same, otherwise ``[n, items]``. A draw is proportional to exp(weight) among the eligible items."""
        raise NotImplementedError

    def chosen_log_weights(
        self, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"] | None:
        """The weight of each prompt's chosen item had another one been chosen, on the scale of :meth:`log_weights`;
        None: as it stands there."""
        return None

    def one(
        self,
        view: TrainView,
        prompts: Queries,
        chosen: Int64[np.ndarray, " n"],
        barred: Int[np.ndarray, "n b"],
        seed: int,
    ) -> Rejected:
        """One rejected item per prompt (K = 1); the items ``barred`` are not eligible either. Where no item is left
        ``mask`` is False and the item -1."""
        uniform01 = generator(seed, "rejected", self.label()).random(len(prompts))
        found = by_law(self, view, prompts, chosen, barred, uniform01)
        kind = np.full((len(prompts), 1), self.label())
        return Rejected(found.items[:, None].astype(np.int32), found.law[:, None], kind, found.left[:, None])

    def draw(self, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"], k: int, seed: int) -> Rejected:
        """``k`` distinct rejected items per prompt, one after the other without replacement; the law of each is
        conditional on those before it. The first j of a draw of k are a draw of j. UserError: a prompt for which no
        item is left at all."""
        assert k >= 1, "at least one rejected item"
        first = self.one(view, prompts, chosen, np.empty((len(prompts), 0), dtype=np.int64), seed)
        if not first.mask.all():
            user = prompts.user[np.flatnonzero(~first.mask[:, 0])[0]]
            raise UserError(f"user {user}: no eligible item is left for sampler {self.label()}; give it more items")
        drawn = first
        for place in range(1, k):
            barred = np.where(drawn.mask, drawn.items, chosen[:, None])
            more = self.one(view, prompts, chosen, barred, derive(seed, "list", place))
            drawn = Rejected.joined([drawn, _ended(more, drawn.mask[:, -1:])], axis=1)
        return drawn


def _ended(more: Rejected, open: Bool[np.ndarray, "n 1"]) -> Rejected:
    """The next place of lists of which only the ``open`` ones go on."""
    mask = more.mask & open
    return Rejected(np.where(mask, more.items, np.int32(-1)), np.where(mask, more.law, 0.0), more.kind, mask)


def checked(
    sampler: Sampler, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"], k: int, seed: int
) -> Rejected:
    """The sampler's draw. UserError names the data set, the sampler, and the user and item, where it breaks the
    contract."""
    with of_dataset(view.label):
        return _checked(sampler, view, prompts, chosen, k, seed)


def _checked(
    sampler: Sampler, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"], k: int, seed: int
) -> Rejected:
    drawn = sampler.draw(view, prompts, chosen, k, seed)
    _check_columns(sampler, drawn, (len(prompts), k))
    for fault, where in _faults(drawn, view, prompts, chosen).items():
        if where.any():
            row, place = np.argwhere(where)[0]
            user, item = prompts.user[row], drawn.items[row, place]
            raise UserError(f"sampler {sampler.label()}: user {user}, place {place}: item {item} {fault}")
    return drawn


def _check_columns(sampler: Sampler, drawn: Rejected, shape: tuple[int, int]) -> None:
    """UserError: a column of another shape or dtype."""
    for name, kinds in {"items": "int32", "law": "float64", "kind": "text", "mask": "bool"}.items():
        column = np.asarray(getattr(drawn, name))
        found = "text" if column.dtype.kind == "U" else str(column.dtype)
        if column.shape != shape or found != kinds:
            given = f"{found} of shape {column.shape}"
            raise UserError(f"sampler {sampler.label()}: {name} is {given}, not {kinds} of shape {shape}")


def _faults(
    drawn: Rejected, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"]
) -> dict[str, Bool[np.ndarray, "n K"]]:
    """What can be wrong with an item, and where it is."""
    items, mask = drawn.items, drawn.mask
    past, again = np.zeros_like(mask), np.zeros_like(mask)
    for row, history in enumerate(prompts.histories):
        past[row] = (history[:, None] == items[row]).any(axis=0)
    for place in range(1, items.shape[1]):
        again[:, place] = (items[:, :place] == items[:, place, None]).any(axis=1)
    follows = np.hstack([np.ones_like(mask[:, :1]), mask[:, :-1]])
    return {
        "stands at a place whose mask is False; want -1": ~mask & (items != -1),
        "ends the list before its first place": np.cumsum(mask, axis=1) == 0,
        "follows a place whose mask is False": mask & ~follows,
        f"is not one of the catalogue's {view.items}; at places without an item, mask is False": mask
        & ((items < 0) | (items >= view.items)),
        "is the chosen item": mask & (items == chosen[:, None]),
        "was taken before": mask & past,
        "stands twice in the list": mask & again,
        "has a law of NaN or +inf": np.isnan(drawn.law) | (drawn.law == np.inf),
    }
