"""Random tensors of every kind for the operators: values, strides, and what is wrong with an argument."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

WORST = (float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 1e30, -1e4, 5e-324, 1e-40, 0.0, -0.0, -1.0, 1.0, 2.0)
FAR = (-1, 1, 2, 5, 100, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1)
STRANGE = (
    *(torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int8, torch.bool),
    *(torch.uint8, torch.complex64, torch.float8_e4m3fn),
)
NUMBERS = (*WORST, -1, 0, 3, 2**62, 2**63 - 1, -(2**63), 2**70, None, "x", [1.0], 1.5)


class Chance(random.Random):
    """A source of draws that ``seed`` alone determines; ``tensors`` is torch's."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.tensors = torch.Generator().manual_seed(seed)

    def under(self, probability: float) -> bool:
        return self.random() < probability

    def size(self, most: int) -> int:
        """0 now and then, else small, seldom large enough for the vectors of a kernel and their rest."""
        return 0 if self.under(0.04) else self.randint(1, most if self.under(0.8) else 4 * most)

    def normal(self, *size: int, dtype: torch.dtype, spread: float = 1.0) -> Tensor:
        x = torch.randn(size, generator=self.tensors, dtype=torch.float64)
        return self.stridden((x * self._scale(spread)).to(dtype))

    def index(self, count: int, limit: int) -> Tensor:
        drawn = torch.randint(max(1, limit), (count if limit else 0,), generator=self.tensors)
        return self.stridden(drawn)

    def uniform(self, *size: int, low: float, high: float, dtype: torch.dtype) -> Tensor:
        x = torch.rand(size, generator=self.tensors, dtype=torch.float64)
        return self.stridden((low + (high - low) * x).to(dtype))

    def _scale(self, spread: float) -> float:
        kind = self.random()
        if kind < 0.9:
            return spread
        return self.choice((0.0, 1e-310, 1e-40, 1e-8, 30.0, 1e3))

    def stridden(self, x: Tensor, most: float = 1.0) -> Tensor:
        """In other strides: transposed, a part of something larger, or (not where ``most`` is 0.9) one row for all."""
        kind = self.random() * most
        if kind < 0.4 or not x.dim():
            return x
        if kind < 0.6:
            return x.transpose(0, -1).contiguous().transpose(0, -1)
        if kind < 0.9:
            axis = self.randrange(x.dim())
            step, offset = self.randint(1, 3), self.randint(0, 2)
            shape = list(x.shape)
            shape[axis] = offset + step * shape[axis]
            larger = torch.full(shape, torch.nan if x.is_floating_point() else -(2**40), dtype=x.dtype)
            part = larger.narrow(axis, offset, shape[axis] - offset)[(slice(None),) * axis + (slice(None, None, step),)]
            return part.copy_(x)
        return x[:1].expand(x.shape) if len(x) else x


def spoiled(chance: Chance, arguments: dict[str, Any], times: int = 1) -> dict[str, Any]:
    """The arguments with ``times`` of them spoiled; what comes out may still be right."""
    worse = dict(arguments)
    for name in chance.sample(sorted(worse), min(times, len(worse))):
        x = worse[name]
        worse[name] = _worse_tensor(chance, x) if isinstance(x, Tensor) else _worse_number(chance, x)
    return worse


def _worse_number(chance: Chance, x: Any) -> Any:
    if isinstance(x, str):
        return chance.choice(("", x + "o", "\0", 3, None, *NUMBERS))
    return torch.tensor(0.5) if chance.under(0.1) else chance.choice(NUMBERS)


def _worse_tensor(chance: Chance, x: Tensor) -> Any:
    kind = chance.random()
    if kind < 0.45:
        return _with_value(chance, x)
    if kind < 0.7:
        return _resized(chance, x)
    if kind < 0.85:
        return x.to(chance.choice(STRANGE))
    if kind < 0.9 and x.dim():
        return _reshaped(chance, x)
    if kind < 0.95:
        return chance.choice((None, 1.0, "x", [1, 2]))
    if kind < 0.97 and x.is_floating_point():
        return x.detach().clone().requires_grad_()
    return x.to_sparse() if kind < 0.98 else x.to("meta")


def _with_value(chance: Chance, x: Tensor) -> Tensor:
    """One element, or every one, is extreme or out of range."""
    number = chance.choice(WORST if x.is_floating_point() else FAR)
    value = torch.tensor(number, dtype=torch.float64 if x.is_floating_point() else torch.int64).to(x.dtype)
    if not x.numel() or chance.under(0.15):
        return value.expand(x.shape)
    flat = x.flatten().clone()
    flat[chance.randrange(len(flat))] = value
    return flat.view(x.shape)


def _resized(chance: Chance, x: Tensor) -> Tensor:
    if not x.dim():
        return x.expand(chance.randint(0, 3)).clone()
    axis = chance.randrange(x.dim())
    length = x.shape[axis]
    if chance.under(0.5) and length:
        return x.narrow(axis, 0, chance.randrange(length))
    return torch.cat([x, x.narrow(axis, 0, min(length, chance.randint(1, 2)))], dim=axis)


def _reshaped(chance: Chance, x: Tensor) -> Tensor:
    ways = [x.unsqueeze(0), x.unsqueeze(-1), x.flatten(), x.transpose(0, -1)]
    return chance.choice([*ways, x[0]] if len(x) else ways)


def finite(values: Sequence[Any]) -> bool:
    """Whether all are numbers, text or tensors in memory, and every number is finite."""
    return all(map(_finite, values))


def _finite(x: Any) -> bool:
    if isinstance(x, float):
        return math.isfinite(x)
    if not isinstance(x, Tensor):
        return True
    if x.device.type == "meta" or x.layout is not torch.strided:
        return False
    return x.dtype in (torch.int64, torch.bool) or (x.itemsize > 1 and bool(torch.isfinite(x.detach()).all()))
