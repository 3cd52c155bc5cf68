"""Losses that weigh the pairs of an optimizer step against each other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rosepo_bench.base.component import linear, log, setting
from rosepo_bench.losses.base import Columns, StepRewards
from rosepo_bench.losses.compiled import Compiled

FLOOR = 1e-3  # β of a pair stays above this share of β


class DrDPO(Compiled):
    """-β' log mean_i exp(-ℓ_i/β'), ℓ the smoothed DPO loss: as a sum over pairs with the weights n softmax(-ℓ/β'),
    which has the same gradient."""

    name = "dr_dpo"
    about = "-β' log mean_i exp(-ℓ_i/β') over an optimizer step, ℓ the loss cdpo: pairs with a large loss count less"
    paper = "arXiv 2407.07880"
    formula: ClassVar[str] = "cdpo"
    of_whole_step = frozenset({"pairs"})

    beta_prime: float = setting(1.0, gt=0, search=log(0.1, 10), about="β': large values weigh all pairs alike")

    def of_step(self, step: StepRewards, memory: dict[str, float], rng: np.random.Generator) -> Columns:
        return Columns(weight=len(step.loss) * torch.softmax(-step.loss / self.beta_prime, dim=0))


class BetaDPO(Compiled):
    """β_i = β (1 + a (Δ_i - m)), m a moving mean of the margins Δ over the steps; ``dropped`` of the pairs get the
    weight 0, drawn so that pairs with Δ near m stay. Our reading: the others are weighted up to a mean of 1."""

    name = "beta_dpo"
    about = "cdpo with β_i = β (1 + a (Δ_i - m)) for each pair, and a share of the pairs left out at each step"
    paper = "arXiv 2407.08639"
    formula: ClassVar[str] = "cdpo"
    of_whole_step = frozenset({"pairs"})

    a: float = setting(0.6, ge=0, search=linear(0, 1), about="how strongly β follows the margin")
    momentum: float = setting(0.9, ge=0, lt=1, about="of the moving mean m and its standard deviation")
    dropped: float = setting(0.2, ge=0, lt=1, about="share of the pairs that are left out")

    def of_step(self, step: StepRewards, memory: dict[str, float], rng: np.random.Generator) -> Columns:
        margin = step.chosen - step.rejected
        mean = self._moving(memory, "mean", float(margin.mean()))
        spread = self._moving(memory, "spread", float(margin.std(correction=0)))
        beta = (self.beta * (1 + self.a * (margin - mean))).clamp(min=FLOOR * self.beta)
        return Columns(beta=beta, weight=self._weights(margin, mean, max(spread, 1e-8), rng))

    def _moving(self, memory: dict[str, float], name: str, value: float) -> float:
        before = memory.get(name, value)
        memory[name] = self.momentum * before + (1 - self.momentum) * value
        return memory[name]

    def _weights(self, margin: Tensor, mean: float, spread: float, rng: np.random.Generator) -> Tensor:
        """1/(1 - dropped) for the pairs that stay, drawn without replacement in proportion to
        exp(-((Δ - m)/s)²/2), by the largest of weight plus Gumbel noise."""
        kept = max(1, round((1 - self.dropped) * len(margin)))
        logits = -0.5 * ((margin - mean) / spread) ** 2
        noise = torch.from_numpy(rng.gumbel(size=len(margin))).to(logits)
        weight = torch.zeros_like(margin)
        weight[(logits + noise).topk(kept).indices] = len(margin) / kept
        return weight
