"""The head that all contestants compute: the same rows, targets and upstream gradients for each.

Shape legend: N rows, d hidden, V vocabulary, S sequences of ``TOKENS`` rows each; a row predicts one token. The first
S/2 sequences are chosen responses, the others their rejected ones, as peers that know pairs alone want them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive

TOKENS = 8
MODES = ("forward", "frozen", "trained")
"""``forward``: log-probs without a gradient; ``frozen``: with the gradient of hidden; ``trained``: of weight too."""

BETA = 0.1
"""β of the DPO loss that stands in for the upstream gradient where a peer cannot take one."""


@dataclass(frozen=True)
class Size:
    """N, d and V of a head, with the dtype's name and the device it runs on."""

    rows: int
    hidden: int
    vocabulary: int
    dtype: str
    device: str

    def __post_init__(self) -> None:
        if self.rows % (2 * TOKENS):
            raise UserError(f"rows = {self.rows}: rows come in pairs of sequences of {TOKENS}; take a multiple of 16")


@dataclass(frozen=True)
class Head:
    """``hidden`` [N, d], ``weight`` [V, d], ``targets`` [N]; ``upstream`` [S] is dL/d log-prob of each sequence."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    upstream: Tensor

    @property
    def sequences(self) -> int:
        return len(self.upstream)

    @cached_property
    def rows(self) -> Tensor:
        """int64 ``[N]``: the row of each target."""
        return torch.arange(len(self.targets), device=self.targets.device)

    @cached_property
    def sequence_of_target(self) -> Tensor:
        """int64 ``[N]``."""
        return self.rows // TOKENS

    def sums(self, token_logps: Tensor) -> Tensor:
        """Log-probs of tokens ``[N]`` summed by sequence ``[S]``."""
        return token_logps.new_zeros(self.sequences).index_add(0, self.sequence_of_target, token_logps)


@dataclass(frozen=True)
class Result:
    """Log-probs ``[S]`` and the gradients that the mode asks for."""

    logps: Tensor
    hidden: Tensor | None = None
    weight: Tensor | None = None


def draw(size: Size, seed: int) -> Head:
    """A head whose logits have a standard deviation of 3, so that few tokens hold most of the probability and the
    product P·W weighs as much in the gradient as it does in a trained model."""
    device, dtype = torch.device(size.device), getattr(torch, size.dtype)
    random = torch.Generator(device).manual_seed(derive(seed, "bench", "head", size.rows, size.hidden, size.vocabulary))

    def normal(*shape: int, scale: float, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, generator=random, device=device, dtype=kind).mul_(scale)

    return Head(
        hidden=normal(size.rows, size.hidden, scale=1.0),
        weight=normal(size.vocabulary, size.hidden, scale=3 / math.sqrt(size.hidden)),
        targets=torch.randint(size.vocabulary, (size.rows,), generator=random, device=device),
        upstream=normal(size.rows // TOKENS, scale=1.0, kind=torch.float32),
    )


def dpo_loss(logps: Tensor) -> Tensor:
    """The mean DPO loss without a reference model over sequences ``[S]``, chosen first."""
    chosen, rejected = logps.chunk(2)
    return -logsigmoid(BETA * (chosen - rejected)).mean()
