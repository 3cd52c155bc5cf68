"""Calls of forest_attention for tests: drawn forests and numbers, attention by its definition, and errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rosepo_bench.base.seeds import derive
from rosepo_bench.engine import ops

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
QUANTITIES = ("result", "grad query", "grad key", "grad value")


@dataclass(frozen=True)
class Case:
    """One call and the gradient ``grad`` ``[H, T, D]`` that comes into its backward pass."""

    query: Tensor
    key: Tensor
    value: Tensor
    grad: Tensor
    end: Tensor
    depth: Tensor
    window: int = 0
    scaling: float | None = None
    soft_cap: float = 0.0

    @property
    def heads(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.query, self.key, self.value

    @property
    def settings(self) -> dict[str, Any]:
        return {"depth": self.depth, "window": self.window, "scaling": self.scaling, "soft_cap": self.soft_cap}

    def to(self, dtype: torch.dtype) -> Case:
        return replace(self, **{name: getattr(self, name).to(dtype) for name in ("query", "key", "value", "grad")})

    def mask(self) -> Tensor:
        """bool ``[T, T]`` by the definition."""
        index, depth = torch.arange(len(self.end)), self.depth
        seen = (index[None] <= index[:, None]) & (index[:, None] < self.end[None])
        near = depth[:, None] - depth[None] < self.window if self.window else torch.ones(1, 1, dtype=torch.bool)
        return seen & near


def generator(*parts: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(0, "attention", *parts))


def forest(tokens: int, *, branch: float = 0.1, new: float = 0.01, seed: int = 0) -> tuple[Tensor, Tensor]:
    """``end`` and ``depth`` of random trees: every token goes on from the last one, from one of its ancestors
    (probability ``branch``), or is a root (``new``)."""
    chance = torch.rand(tokens, 2, generator=generator("forest", tokens, seed)).tolist()
    depth: list[int] = []
    for turn, where in chance:
        last = depth[-1] if depth else -1
        depth.append(0 if turn < new else 1 + int(where * last) if turn < new + branch and last > 0 else last + 1)
    return ends(depth), torch.tensor(depth, dtype=torch.int64)


def ends(depth: list[int]) -> Tensor:
    """The index after each token's subtree."""
    end = [len(depth)] * len(depth)
    path: list[int] = []
    for k, here in enumerate(depth):
        for done in path[here:]:
            end[done] = k
        path = [*path[:here], k]
    return torch.tensor(end, dtype=torch.int64)


def draw(
    end: Tensor,
    depth: Tensor,
    *,
    heads: int = 2,
    groups: int | None = None,
    width: int = 8,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **settings: Any,
) -> Case:
    """Heads as a model has them: views of memory ``[T, H, D]``. Scores of standard deviation 2."""
    random = generator("numbers", len(end), heads, width, seed)

    def normal(count: int) -> Tensor:
        return torch.randn(len(end), count, width, generator=random, dtype=torch.float64).transpose(0, 1)

    groups = groups or heads
    case = Case(2 * normal(heads), normal(groups), normal(groups), normal(heads), end, depth, **settings)
    return case.to(dtype)


def call(case: Case, **options: Any) -> dict[str, Tensor]:
    """The result and the gradients, by their names in QUANTITIES."""
    leaves = [x.detach().requires_grad_() for x in case.heads]
    result = ops.forest_attention(*leaves, case.end, **case.settings, **options)
    return dict(zip(QUANTITIES, (result.detach(), *torch.autograd.grad(result, leaves, case.grad)), strict=True))


def exact(case: Case) -> dict[str, Tensor]:
    """The same by the definition in float64, on the numbers that the case's dtype holds."""
    case = case.to(torch.float64)
    leaves = [x.detach().requires_grad_() for x in case.heads]
    times = len(case.query) // len(case.key)
    key, value = (x.repeat_interleave(times, dim=0) for x in leaves[1:])
    scaling = case.query.shape[2] ** -0.5 if case.scaling is None else case.scaling
    scores = leaves[0] @ key.mT * scaling
    if case.soft_cap:
        scores = case.soft_cap * torch.tanh(scores / case.soft_cap)
    result = scores.masked_fill(~case.mask(), -float("inf")).softmax(-1) @ value
    return dict(zip(QUANTITIES, (result.detach(), *torch.autograd.grad(result, leaves, case.grad)), strict=True))


def largest(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return largest(found.double() - wanted)


def check(cases: list[Case]) -> None:
    """The compiled operator's worst error over all cases is at most twice that of torch's own attention in the same
    dtype, and four units in the last place of the tensor's largest value; in float64, which errors are measured
    against, 1e-12 of it."""
    for name in QUANTITIES:
        ours = plain = most = 0.0
        for case in cases:
            wanted = exact(case)[name]
            ours = max(ours, error(call(case, impl="cpp")[name], wanted))
            most = max(most, largest(wanted))
            plain = max(plain, error(call(case, impl="reference")[name], wanted))
        dtype = cases[0].query.dtype
        allowed = 1e-12 * most if dtype == torch.float64 else 2 * plain + 4 * torch.finfo(dtype).eps * most
        assert ours <= allowed, (name, ours, plain, most)
