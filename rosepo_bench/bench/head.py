"""The head that all contestants compute: the same rows, targets and upstream gradients for each.

Shape legend: N rows, d hidden, V vocabulary, S sequences of ``TOKENS`` rows each; a row predicts one token. The first
S/2 sequences are chosen responses, the others their rejected ones, as peers that take only pairs require.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import logsigmoid

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive

TOKENS = 8
MODES = ("forward", "frozen", "trained")
"""``forward``: log-probs without a gradient; ``frozen``: with the gradient of hidden; ``trained``: also that of
weight."""

BETA = 0.1
"""β of the DPO loss, whose gradient is the upstream gradient for peers that cannot take one."""


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
    """The inputs of a contestant; ``upstream`` is dL/d log-prob of each sequence."""

    hidden: Float[Tensor, "N d"]
    weight: Float[Tensor, "V d"]
    targets: Int64[Tensor, " N"]
    upstream: Float[Tensor, " S"]

    @property
    def sequences(self) -> int:
        return len(self.upstream)

    @cached_property
    def rows(self) -> Int64[Tensor, " N"]:
        """The row of each target."""
        return torch.arange(len(self.targets), device=self.targets.device)

    @cached_property
    def sequence_of_target(self) -> Int64[Tensor, " N"]:
        """The sequence of each target."""
        return self.rows // TOKENS

    def sums(self, token_logps: Float[Tensor, " N"]) -> Float[Tensor, " S"]:
        """Log-probs of tokens summed by sequence."""
        return token_logps.new_zeros(self.sequences).index_add(0, self.sequence_of_target, token_logps)


@dataclass(frozen=True)
class Result:
    """Log-probs and the gradients that the mode asks for."""

    logps: Float[Tensor, " S"]
    hidden: Float[Tensor, "N d"] | None = None
    weight: Float[Tensor, "V d"] | None = None


def draw(size: Size, seed: int) -> Head:
    """A head whose logits have a standard deviation of 3: as in a trained model, few tokens have most of the
    probability, and the product P·W matters in the gradient."""
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


def dpo_loss(logps: Float[Tensor, " S"]) -> Float[Tensor, ""]:
    """The mean DPO loss without a reference model; the first half of the sequences is chosen."""
    chosen, rejected = logps.chunk(2)
    return -logsigmoid(BETA * (chosen - rejected)).mean()
