"""The contract of losses: from a pair's rewards to its loss."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from rosepo_bench.base.component import Component
from rosepo_bench.base.plugins import Kind
from rosepo_bench.losses.arguments import Pairs


class StepRewards(NamedTuple):
    """All pairs of one optimizer step, over all processes, without a gradient. Rewards as in :class:`Pairs`. What
    ``of_whole_step`` does not ask for is NaN, or None."""

    chosen: Tensor  # [pairs]
    rejected: Tensor  # [pairs], the mean over a pair's rejected responses
    loss: Tensor  # [pairs], with the loss's own settings
    mismatched: Tensor | None  # [pairs]: another pair's chosen item after this pair's prompt


class Columns(NamedTuple):
    """What a loss decides over the whole step, ``[pairs]`` each but ``kl``, a scalar. None: the loss's own value, or a
    weight of 1."""

    beta: Tensor | None = None
    weight: Tensor | None = None
    kl: Tensor | None = None
    desirable: Tensor | None = None
    undesirable: Tensor | None = None


class Loss(Component):
    """A preference loss. One in plain torch needs :meth:`__call__` alone."""

    kind: ClassVar[Kind] = Kind("loss", "losses", "rosepo_bench.losses")
    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    """``reference``: rewards are log-probs minus the reference model's; ``lengths``: they are per token."""
    max_epsilon: ClassVar[float] = 0.0
    """The largest ε that it takes; 0: it has no smoothing."""
    many: ClassVar[bool] = False
    """Takes several rejected responses per pair."""
    of_whole_step: ClassVar[frozenset[str]] = frozenset()
    """What :meth:`of_step` reads: ``pairs``, the rewards and losses of the step's pairs; ``mismatched``, those of
    mismatched pairs. Either costs a pass without gradient over the step. Empty: it is not called."""

    @property
    def kernel(self) -> str | None:
        """Its name in the compiled family; None: plain torch operations, as the record says."""
        return None

    def options(self) -> dict[str, float]:
        """Its settings that the compiled operator takes beside β."""
        return {}

    def __call__(self, pairs: Pairs) -> Tensor:
        """Losses ``[pairs, 1]`` of rewards ``chosen`` ``[pairs, 1]`` and ``rejected`` ``[pairs, K]``, with a gradient
        for both."""
        raise NotImplementedError

    def of_step(self, step: StepRewards, memory: dict[str, float], rng: np.random.Generator) -> Columns:
        """Called before each optimizer step. What it keeps in ``memory`` lasts over the training and is stored in
        checkpoints; ``rng`` depends on the seed and the step's number."""
        return Columns()
