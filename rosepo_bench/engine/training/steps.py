"""The pairs of a preference training and its optimizer steps, in as many forward passes as they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Examples
from rosepo_bench.engine.forest.packing import batches
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.prompts.examples import PlacedTree
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.engine.training.pair_loss import Part, pair_losses, taken
from rosepo_bench.losses.base import Columns, Loss


@dataclass(frozen=True)
class TrainingPairs:
    """Pairs ready for training: ``examples`` are the prompts; ``titles`` their chosen and rejected items, -1 where a
    list is shorter; ``reference`` the log-probs of these under the reference model, None for losses that need none. For
    losses that read mismatched pairs: ``partner``, the chosen item of another pair, and its log-prob after this pair's
    prompt under the reference model."""

    examples: Examples
    titles: Int[np.ndarray, "n R"]
    reference: Float64[np.ndarray, "n R"] | None
    epsilon: Float64[np.ndarray, "n K"]
    partner: Int[np.ndarray, " n"] | None = None
    partner_reference: Float64[np.ndarray, " n"] | None = None

    def check(self, loss: Loss) -> None:
        """UserError for pairs that the loss cannot take."""
        there = self.titles[:, 1:] >= 0
        lists, epsilon = there.sum(axis=1), self.epsilon[there]
        if not lists.all():
            raise UserError(f"pair {int(np.argmin(lists))} has no rejected response")
        if lists.max(initial=1) > 1 and not loss.many:
            raise UserError(f"loss {loss.label()!r} takes one rejected response, the pairs have {lists.max()}")
        if "reference" in loss.needs and self.reference is None:
            raise UserError(f"loss {loss.label()!r} needs the reference model's log-probs, and there are none")
        if not ((epsilon >= 0) & (epsilon <= loss.max_epsilon)).all():
            bad = epsilon[~((epsilon >= 0) & (epsilon <= loss.max_epsilon))][0]
            raise UserError(f"loss {loss.label()!r} takes ε from 0 to {loss.max_epsilon:g}, a pair has {bad:g}")
        lacking = self.partner is None or ("reference" in loss.needs and self.partner_reference is None)
        if "mismatched" in loss.of_whole_step and lacking:
            raise UserError(f"loss {loss.label()!r} reads mismatched pairs, and there are none")


@dataclass(frozen=True)
class Steps:
    """The optimizer steps of one training. ``lengths``: tokens of each item's title."""

    model: LanguageModel
    pairs: TrainingPairs
    loss: Loss
    lengths: Int64[np.ndarray, " items"]
    batch_tokens: int
    meter: Meter

    def backward(self, groups: list[PlacedTree], columns: Columns) -> dict[str, float]:
        """Adds the gradient of the mean loss over all pairs of ``groups``, in as many forward passes as the budget of
        tokens requires. Returns the step's loss, reward margin, accuracy and mean ε. ``columns`` are in the order of
        the groups' pairs."""
        starts = np.cumsum([0, *(group.examples for group in groups)])
        total, sums = int(starts[-1]), np.zeros(4)
        for chosen, batch in batches([group.tree for group in groups], self.batch_tokens, self.model.device):
            logps = self.model.logps(batch)
            parts = []
            for part, rows in self.parts([groups[g] for g in chosen], [starts[g] for g in chosen], logps):
                losses, statistics = pair_losses(self.loss, part, taken(columns, rows), self.model.impl)
                parts.append(losses.sum() / total)
                told = [parts[-1].detach().double().cpu(), *(len(rows) / total * one.cpu() for one in statistics)]
                sums += torch.stack(told).numpy()
            torch.stack(parts).sum().backward()
            self.meter.count(tokens=len(batch))
        self.meter.count(pairs=total)
        return dict(zip(("loss", "margin", "accuracy", "epsilon"), sums.tolist(), strict=True))

    def parts(
        self, groups: Sequence[PlacedTree], starts: Sequence[int], logps: Tensor
    ) -> Iterator[tuple[Part, Tensor]]:
        """The pairs of a forward pass by the length of their lists, with their places in the step."""
        begins = np.cumsum([0, *(len(group.places) for group in groups)])
        for width in sorted({group.width for group in groups}):
            own = [number for number, group in enumerate(groups) if group.width == width]
            at = torch.from_numpy(np.concatenate([np.arange(begins[n], begins[n + 1]) for n in own]))
            rows = np.concatenate([groups[n].rows(self.pairs.titles.shape[1]) for n in own])
            place = np.concatenate([starts[n] + np.arange(groups[n].examples) for n in own])
            table = (logps if len(own) == len(groups) else logps[at.to(logps.device)]).view(-1, width)
            yield self._part(table, rows, width), torch.from_numpy(place).to(logps.device)

    def _part(self, logps: Tensor, rows: Int64[np.ndarray, " rows"], width: int) -> Part:
        pairs = self.pairs
        needed = pairs.reference is not None and "reference" in self.loss.needs
        return Part(
            logps,
            self._tensor(pairs.reference[rows, :width], logps) if needed and pairs.reference is not None else None,
            torch.from_numpy(self.lengths[pairs.titles[rows, :width]]).to(logps.device),
            self._tensor(pairs.epsilon[rows, : width - 1], logps),
        )

    @staticmethod
    def _tensor(values: Float64[np.ndarray, "rows _"], like: Tensor) -> Tensor:
        return torch.from_numpy(values).to(dtype=like.dtype, device=like.device)
