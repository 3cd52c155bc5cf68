"""The exact numbers of a head, which every contestant must give before it is timed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn.functional import log_softmax

from rosepo_bench.bench.head import TOKENS, Head, Result, dpo_loss

CHECKED_ROWS = 512
"""At most so many rows of a frozen head are checked, in evenly spaced pairs; of a trained head all rows, as dW sums
over them."""

TOLERANCE = {torch.float64: 1e-10, torch.float32: 5e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Largest error relative to the tensor's largest magnitude, by the head's dtype."""

_CHUNK = 256


class UnequalError(RuntimeError):
    """A contestant's numbers are wrong: nothing is timed."""


@dataclass(frozen=True)
class Exact:
    """The result on ``rows`` and ``sequences``, in fp64 (fp32 for 16-bit heads). Where there is a dW, these are
    all rows."""

    rows: Int64[Tensor, " n"]
    sequences: Int64[Tensor, " s"]
    result: Result
    tolerance: float

    def require(self, found: Result, who: str) -> None:
        """Raises :class:`UnequalError` where a tensor is absent or off by more than the tolerance."""
        _require("log-probs", found.logps, self.result.logps, self.sequences, self.tolerance, who)
        _require("gradient of hidden", found.hidden, self.result.hidden, self.rows, self.tolerance, who)
        _require("gradient of weight", found.weight, self.result.weight, None, self.tolerance, who)


def exact(head: Head, mode: str, *, pairs_alone: bool = False) -> Exact:
    """By autograd in high precision, some rows at a time. With ``pairs_alone`` the upstream gradient is that of
    :func:`dpo_loss`."""
    sequences = _checked_sequences(head, mode)
    rows = (sequences[:, None] * TOKENS + torch.arange(TOKENS, device=sequences.device)).flatten()
    kind = torch.float32 if head.hidden.dtype.itemsize == 2 else torch.float64
    hidden, weight, targets = head.hidden[rows].to(kind), head.weight.to(kind), head.targets[rows]
    with torch.no_grad():
        parts = zip(hidden.split(_CHUNK), targets.split(_CHUNK), strict=True)
        tokens = torch.cat([_token_logps(part, weight, wanted) for part, wanted in parts])
    logps = tokens.view(-1, TOKENS).sum(-1)
    tolerance = TOLERANCE[head.hidden.dtype]
    if mode == "forward":
        return Exact(rows, sequences, Result(logps), tolerance)
    if pairs_alone:
        upstream = _dpo_upstream(logps) * (len(sequences) / head.sequences)
    else:
        upstream = head.upstream[sequences].to(kind)
    gradients = _gradients(hidden, weight, targets, upstream.repeat_interleave(TOKENS), mode == "trained")
    return Exact(rows, sequences, Result(logps, *gradients), tolerance)


def _checked_sequences(head: Head, mode: str) -> Tensor:
    pairs = head.sequences // 2
    count = pairs if mode == "trained" else min(pairs, CHECKED_ROWS // (2 * TOKENS))
    chosen = torch.linspace(0, pairs - 1, count).round().long().to(head.targets.device)
    return torch.cat([chosen, chosen + pairs])


def _gradients(
    hidden: Tensor, weight: Tensor, targets: Tensor, scalars: Tensor, trained: bool
) -> tuple[Tensor, Tensor | None]:
    weight = weight.detach().requires_grad_(trained)
    grad_weight = torch.zeros_like(weight, requires_grad=False) if trained else None
    grads = []
    for part, wanted, scalar in zip(*(x.split(_CHUNK) for x in (hidden, targets, scalars)), strict=True):
        leaf = part.detach().requires_grad_()
        found = torch.autograd.grad(_token_logps(leaf, weight, wanted), [leaf, weight] if trained else [leaf], scalar)
        grads.append(found[0])
        if grad_weight is not None:
            grad_weight += found[1]
    return torch.cat(grads), grad_weight


def _token_logps(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return log_softmax(hidden @ weight.T, -1).gather(1, targets[:, None])[:, 0]


def _dpo_upstream(logps: Tensor) -> Tensor:
    leaf = logps.detach().requires_grad_()
    return torch.autograd.grad(dpo_loss(leaf), leaf)[0]


def _require(
    name: str, found: Tensor | None, wanted: Tensor | None, index: Tensor | None, tolerance: float, who: str
) -> None:
    if wanted is None:
        return
    if found is None:
        raise UnequalError(f"{who} gives no {name}")
    error = float(((found if index is None else found[index]).to(wanted.dtype) - wanted).abs().max())
    largest = float(wanted.abs().max())
    if not error <= tolerance * largest:
        raise UnequalError(f"{who}: the {name} are off by {error:.2e}, the largest is {largest:.2e}")
