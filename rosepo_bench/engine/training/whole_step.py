"""What a loss decides over a whole optimizer step: one more pass over it, without gradient."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.engine.forest import Limits
from rosepo_bench.engine.forest.packing import batches
from rosepo_bench.engine.prompts.examples import Histories, PlacedTree, grouped
from rosepo_bench.engine.prompts.prompter import Prompter
from rosepo_bench.engine.training.pair_loss import pair_losses, rewards
from rosepo_bench.engine.training.steps import Steps
from rosepo_bench.losses.base import Columns, Loss, StepRewards


@dataclass(frozen=True)
class WholeStep:
    """Gathers :class:`StepRewards` and asks the loss. The result depends neither on how the step is packed nor on the
    number of forward passes, but by rounding."""

    steps: Steps
    partners: dict[int, PlacedTree]  # the tree with the mismatched response of each pair, by pair
    seed: int

    @classmethod
    def of(
        cls,
        steps: Steps,
        prompter: Prompter,
        sequences: Histories,
        limits: Limits,
        seed: int,
        *,
        alone: bool = False,
    ) -> WholeStep:
        """``prompter``, ``sequences``, ``limits`` and ``alone`` as for the pairs, so that a step holds whole trees."""
        pairs, partners = steps.pairs, dict[int, PlacedTree]()
        if "mismatched" in steps.loss.of_whole_step:
            assert pairs.partner is not None
            titles = pairs.partner[:, None]
            made = grouped(prompter, sequences, pairs.examples, titles, limits=limits, alone=alone)
            partners = {int(row): group for user in made for group in user for row in group.rows(1)}
        return cls(steps, partners, seed)

    def columns(self, groups: list[PlacedTree], step: int, memory: dict[str, float]) -> Columns:
        """The loss's columns, in the order of the groups' pairs."""
        began, network, loss = time.monotonic(), self.steps.model.network, self.steps.loss
        training = network.training
        network.eval()
        with torch.no_grad():
            told = self._rewards(groups)
            found = checked(loss, loss.of_step(told, memory, generator(self.seed, "of step", step)), len(told.chosen))
        network.train(training)
        self.steps.meter.step_seconds += time.monotonic() - began
        return found

    def _rewards(self, groups: list[PlacedTree]) -> StepRewards:
        columns = self.steps.pairs.titles.shape[1]
        rows = np.concatenate([group.rows(columns) for group in groups])
        empty = torch.full((len(rows),), torch.nan, dtype=torch.float64, device=self.steps.model.device)
        told = StepRewards(empty, empty.clone(), empty.clone(), None)
        if "pairs" in self.steps.loss.of_whole_step:
            self._fill(told, groups)
        return told._replace(mismatched=self._mismatched(rows) if self.partners else None)

    def _fill(self, told: StepRewards, groups: list[PlacedTree]) -> None:
        """The rewards and losses of the pairs."""
        steps, starts = self.steps, np.cumsum([0, *(group.examples for group in groups)])
        for chosen, batch in batches([group.tree for group in groups], steps.batch_tokens, steps.model.device):
            logps = steps.model.logps(batch)
            for part, place in steps.parts([groups[g] for g in chosen], [starts[g] for g in chosen], logps):
                pairs = rewards(steps.loss, part, Columns())
                told.chosen[place] = pairs.chosen[:, 0].to(told.chosen)
                told.rejected[place] = pairs.rejected.mean(dim=1).to(told.chosen)
                none = Columns(kl=torch.zeros((), device=steps.model.device))  # z is not known yet
                losses, _ = pair_losses(steps.loss, part, none, steps.model.impl)
                told.loss[place] = losses.to(told.chosen)

    def _mismatched(self, rows: Int64[np.ndarray, " pairs"]) -> Tensor:
        """The reward of each pair's mismatched response."""
        steps, pairs = self.steps, self.steps.pairs
        assert pairs.partner is not None
        groups = list({id(group): group for group in (self.partners[int(row)] for row in rows)}.values())
        place = np.full(len(pairs.titles), -1)
        place[rows] = np.arange(len(rows))
        found = torch.empty(len(rows), dtype=torch.float64)
        for chosen, batch in batches([group.tree for group in groups], steps.batch_tokens, steps.model.device):
            at = place[np.concatenate([groups[g].rows(1) for g in chosen])]
            logps = steps.model.logps(batch).double().cpu()
            found[torch.from_numpy(at[at >= 0])] = logps[torch.from_numpy(at >= 0)]
        if "reference" in steps.loss.needs:
            assert pairs.partner_reference is not None
            found -= torch.from_numpy(pairs.partner_reference[rows])
        if "lengths" in steps.loss.needs:
            found /= torch.from_numpy(steps.lengths[pairs.partner[rows]])
        return found.to(steps.model.device)


def checked(loss: Loss, columns: Columns, pairs: int) -> Columns:
    """UserError for what a loss may decide wrongly: another shape, a value that is not finite or below 0."""
    for name, column in columns._asdict().items():
        if column is None:
            continue
        shape = () if name == "kl" else (pairs,)
        if tuple(column.shape) != shape:
            raise UserError(
                f"loss {loss.label()!r}: {name} of the step has shape {list(column.shape)}: want {list(shape)}"
            )
        if not bool((column.isfinite() & (column > 0 if name == "beta" else column >= 0)).all()):
            raise UserError(f"loss {loss.label()!r}: {name} of the step holds a value that is not finite or too small")
    return columns
