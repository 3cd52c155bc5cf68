"""Calls of sequence_logprob for tests: drawn inputs, the naive head to compare with, and errors against float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rosepo_bench.base.seeds import derive
from rosepo_bench.engine import ops

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
QUANTITIES = ("logps", "grad hidden", "grad weight", "grad bias")


@dataclass(frozen=True)
class Case:
    """One call and the gradient ``grad`` ``[S]`` that comes into its backward pass."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    targets: Tensor
    row_of_target: Tensor
    sequence_of_target: Tensor
    num_sequences: int
    grad: Tensor
    logit_scale: float = 1.0
    soft_cap: float = 0.0

    @property
    def triples(self) -> dict[str, Any]:
        names = ("targets", "row_of_target", "sequence_of_target", "num_sequences")
        return {name: getattr(self, name) for name in names}

    @property
    def squash(self) -> dict[str, float]:
        return {"logit_scale": self.logit_scale, "soft_cap": self.soft_cap}

    def to(self, dtype: torch.dtype) -> Case:
        bias = None if self.bias is None else self.bias.to(dtype)
        return replace(self, hidden=self.hidden.to(dtype), weight=self.weight.to(dtype), bias=bias)


def generator(*parts: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(0, "logprob", *parts))


def draw(
    rows: int,
    vocabulary: int,
    width: int,
    dtype: torch.dtype = torch.float64,
    *,
    triples: int | None = None,
    sequences: int = 5,
    bias: bool = False,
    spread: float = 2.0,
    seed: int = 0,
    **squash: float,
) -> Case:
    """Logits of standard deviation ``spread``. The last sequence is empty; where there are triples enough, one is
    there twice and in two sequences, so some row has several targets and some has none."""
    random = generator("draw", rows, vocabulary, width, str(dtype), seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=random, dtype=torch.float64)

    count = (2 * rows + 3 if triples is None else triples) if rows and vocabulary else 0
    target, row, sequence = (
        torch.randint(max(1, limit), (count,), generator=random) for limit in (vocabulary, rows, sequences - 1)
    )
    if triples is None and count:
        row[row == rows - 1] = 0  # with more than one row, the last one predicts nothing
        target[1:3], row[1:3], sequence[1:3] = target[0], row[0], torch.tensor([sequence[0], sequences - 2])
    case = Case(
        normal(rows, width),
        normal(vocabulary, width) * spread / max(1, width) ** 0.5,
        normal(vocabulary) if bias else None,
        *(target, row, sequence, sequences),
        normal(sequences),
        **squash,
    )
    return case.to(dtype)


def naive(case: Case) -> tuple[Tensor, ...]:
    """Log-probs and gradients as plain torch gives them: all logits in memory, log_softmax in fp32 (fp64)."""
    leaves = [x.detach().clone().requires_grad_() for x in (case.hidden, case.weight, case.bias) if x is not None]
    wide = torch.float64 if case.hidden.dtype == torch.float64 else torch.float32
    logits = torch.nn.functional.linear(*leaves).to(wide) * case.logit_scale
    if case.soft_cap:
        logits = case.soft_cap * torch.tanh(logits / case.soft_cap)
    token = logits.log_softmax(-1)[case.row_of_target, case.targets]
    logps = torch.zeros(case.num_sequences, dtype=wide).index_add(0, case.sequence_of_target, token)
    return logps.detach(), *torch.autograd.grad(logps, leaves, case.grad.to(wide))


def exact(case: Case) -> tuple[Tensor, ...]:
    """The same in float64, on the numbers that the case's dtype holds."""
    return naive(case.to(torch.float64))


def call(case: Case, wanted: str = "hidden weight bias", **options: Any) -> dict[str, Tensor]:
    """Log-probs and the gradients that are wanted, by their names in QUANTITIES."""
    inputs = {"hidden": case.hidden, "weight": case.weight, "bias": case.bias}
    given = {
        name: None if x is None else x.detach().requires_grad_(name in wanted.split()) for name, x in inputs.items()
    }
    leaves = {name: x for name, x in given.items() if x is not None and x.requires_grad}
    logps = ops.sequence_logprob(**given, **case.triples, **case.squash, **options)
    assert logps.requires_grad == bool(leaves)
    found = torch.autograd.grad(logps, list(leaves.values()), case.grad.to(logps.dtype)) if leaves else ()
    return {"logps": logps.detach()} | {f"grad {name}": x for name, x in zip(leaves, found, strict=True)}


def magnitudes(case: Case) -> dict[str, float]:
    """How large the terms are whose sums log-probs and gradients are: what their rounding is measured by, as the sums
    themselves may cancel (log-probs of a vocabulary of one, a row's gradients of both signs). A cap's slope, 1 - tanh²,
    rounds as 1 does."""
    case = case.to(torch.float64)
    x = torch.nn.functional.linear(case.hidden, case.weight, case.bias) * case.logit_scale
    if case.soft_cap:
        x = case.soft_cap * torch.tanh(x / case.soft_cap)
    c = case.grad.abs()[case.sequence_of_target]
    of_row = torch.zeros(len(x), dtype=c.dtype).index_add(0, case.row_of_target, c)
    terms = x.softmax(-1) * of_row[:, None]
    terms = case.logit_scale * terms.index_put((case.row_of_target, case.targets), c, accumulate=True)
    longest = int(torch.bincount(case.sequence_of_target, minlength=1).max())
    return {
        "logps": longest * (largest(x) + 1),
        "grad hidden": largest(terms @ case.weight.abs()),
        "grad weight": largest(terms.T @ case.hidden.abs()),
        "grad bias": largest(terms.sum(0)),
    }


def largest(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return largest(found.double() - wanted)
