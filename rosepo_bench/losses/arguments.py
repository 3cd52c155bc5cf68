"""Checks the arguments of the preference losses, the same for every implementation. Errors name the argument and its
value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from rosepo_bench.base.errors import UserError


class Pairs(NamedTuple):
    """The inputs of a formula. A response's reward is its log-prob, minus the reference's for the losses that take one,
    divided by the response's length for those that take both lengths. Arguments that were not given: 0 for ε, kl and
    gamma, 1 for the lengths and the weights of terms."""

    chosen: Tensor  # reward [pairs, 1]
    rejected: Tensor  # rewards [pairs, K]
    chosen_tokens: Tensor | float  # [pairs, 1]
    epsilon: Tensor  # [pairs, K]
    beta: Tensor  # [pairs, 1]
    kl: Tensor | float  # []
    gamma: float
    sft_weight: float
    desirable: float
    undesirable: float


@dataclass(frozen=True)
class Formula:
    """A registered loss. ``formula`` maps :class:`Pairs` to losses ``[pairs, 1]``. Arguments in ``needs`` are required,
    those in ``takes`` optional, all others refused; every loss accepts chosen, rejected, beta and weight."""

    formula: Callable[[Pairs], Tensor]
    about: str
    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    max_epsilon: float = 1.0
    many: bool = False  # takes several rejected responses per pair
    odds: bool = False  # log-probs must be below 0; where ε is 0, the chosen one may be 0


class LossArguments(NamedTuple):
    """The arguments of :func:`rosepo_bench.engine.ops.preference_loss`, in the order of the operator's schema."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor | None
    reference_rejected: Tensor | None
    chosen_tokens: Tensor | None
    rejected_tokens: Tensor | None
    epsilon: Tensor | float | None
    beta: Tensor | float
    weight: Tensor | None
    kl: Tensor | float | None
    gamma: float | None
    sft_weight: float | None
    desirable: float | None
    undesirable: float | None
    loss: str

    def items(self) -> list[tuple[str, object]]:
        """Names and values of the arguments that were given, without the loss's name."""
        named = list(zip(self._fields, self, strict=True))
        return [(name, value) for name, value in named[:-1] if value is not None]


# The shapes that each tensor may have: 1 scalar, P [pairs], R as `rejected`.
_SHAPES: Final = {
    "chosen": "P",
    "rejected": "R",
    "reference_chosen": "P",
    "reference_rejected": "R",
    "chosen_tokens": "P",
    "rejected_tokens": "R",
    "epsilon": "1PR",
    "beta": "1P",
    "weight": "P",
    "kl": "1",
}
_NUMBERS: Final = frozenset({"epsilon", "beta", "kl", "gamma", "sft_weight", "desirable", "undesirable"})
_ALWAYS: Final = frozenset({"chosen", "rejected", "beta", "weight"})


def check_arguments(given: LossArguments, loss: Formula) -> None:
    """Checks everything but the tensors' values: never waits for a device."""
    _check_use(given, loss)
    _check_logps(given, loss)
    for name, value in given.items():
        if isinstance(value, Tensor) and name in _SHAPES:
            _check_tensor(name, value, given)
        elif isinstance(value, (int, float)) and name in _NUMBERS:
            _check_number(name, value, loss, given.loss)
        else:
            raise UserError(f"{name} is a {type(value).__name__}: want a {_kind(name)}")


def _check_use(given: LossArguments, loss: Formula) -> None:
    names = dict(given.items())
    for name, value in names.items():
        if name not in _ALWAYS | loss.needs | loss.takes:
            what = value if isinstance(value, float) else "given"
            raise UserError(f"{name} is {what}: loss {given.loss!r} does not use it")
    for name in given._fields:
        if name in loss.needs and name not in names:
            raise UserError(f"{name} is missing: loss {given.loss!r} needs it")
    if given.beta is None:
        raise UserError("beta is None: want a number or a tensor")


def _check_logps(given: LossArguments, loss: Formula) -> None:
    for name, tensor in (("chosen", given.chosen), ("rejected", given.rejected)):
        if not isinstance(tensor, Tensor):
            raise UserError(f"{name} is a {type(tensor).__name__}: want a tensor")
        if tensor.dtype not in (torch.float32, torch.float64):
            raise UserError(f"{name} is {tensor.dtype}: want torch.float32 or torch.float64")
    if given.chosen.dim() != 1:
        raise UserError(f"chosen has shape {list(given.chosen.shape)}: want [pairs]")
    shape = given.rejected.shape
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] == 0):
        raise UserError(f"rejected has shape {list(shape)}: want [pairs] or [pairs, 1 or more]")
    if len(shape) == 2 and shape[1] > 1 and not loss.many:
        raise UserError(f"rejected has {shape[1]} columns: loss {given.loss!r} takes one")


def _check_tensor(name: str, tensor: Tensor, given: LossArguments) -> None:
    chosen, rejected = given.chosen, given.rejected
    if tensor.layout is not torch.strided:
        raise UserError(f"{name} has layout {tensor.layout}: want a dense tensor")
    dtype = torch.int64 if name.endswith("_tokens") else chosen.dtype
    if tensor.dtype != dtype:
        why = ", as the lengths are counts" if dtype == torch.int64 else ", as chosen is"
        raise UserError(f"{name} is {tensor.dtype}: want {dtype}{why}")
    if tensor.device != chosen.device:
        raise UserError(f"{name} is on {tensor.device}: want {chosen.device}, where chosen is")
    pairs = chosen.shape[0]
    table = [pairs, *rejected.shape[1:]]
    shapes = [shape for key, shape in (("1", []), ("P", [pairs]), ("R", table)) if key in _SHAPES[name]]
    if list(tensor.shape) not in shapes:
        wanted = " or ".join(str(shape) for shape in shapes)
        raise UserError(f"{name} has shape {list(tensor.shape)}: want {wanted}")
    if tensor.requires_grad and name not in ("chosen", "rejected"):
        raise UserError(f"{name} requires a gradient, which the loss does not give: detach it")


def _check_number(name: str, value: float, loss: Formula, loss_name: str) -> None:
    if name == "epsilon":
        good, wanted = 0 <= value <= loss.max_epsilon, _epsilon_range(loss, loss_name)
    elif name == "beta":
        good, wanted = math.isfinite(value) and value > 0, "a finite number above 0"
    else:
        good, wanted = math.isfinite(value) and value >= 0, "a finite number, 0 or more"
    if not good:
        raise UserError(f"{name} is {value}: want {wanted}")


def _kind(name: str) -> str:
    kinds = ["number"] * (name in _NUMBERS) + ["tensor"] * (name in _SHAPES)
    return " or a ".join(kinds)


def _epsilon_range(loss: Formula, name: str) -> str:
    return f"0 to {loss.max_epsilon:g}" + (f" for loss {name!r}" if loss.max_epsilon < 1 else "")


def as_tensors(given: LossArguments) -> LossArguments:
    """The same arguments with tables ``[pairs, K]`` and tensors for ``epsilon``, ``beta`` and ``kl``."""
    like = given.chosen

    def tensor(value: Any) -> Any:
        return torch.full((), value, dtype=like.dtype, device=like.device) if isinstance(value, (int, float)) else value

    def table(value: Any) -> Any:
        return value.unsqueeze(1) if value is not None and value.dim() == 1 else value

    return given._replace(
        rejected=table(given.rejected),
        reference_rejected=table(given.reference_rejected),
        rejected_tokens=table(given.rejected_tokens),
        epsilon=tensor(given.epsilon),
        beta=tensor(given.beta),
        kl=tensor(given.kl),
    )


def check_values(given: LossArguments, loss: Formula) -> None:
    """Checks the tensors' values, which waits for their device; raises for the first bad one."""
    for name, values, bad, wanted in _bad_values(given, loss):
        if bad.any():
            refuse_value(name, values, bad, wanted)


def refuse_value(name: str, values: Tensor, bad: Tensor, wanted: str) -> None:
    """Raises for the first value where ``bad``."""
    first = tuple(int(k) for k in bad.nonzero()[0])
    shown = first[:1] if bad.dim() == 2 and bad.shape[1] == 1 else first
    place = f"[{', '.join(map(str, shown))}]" if shown else ""
    raise UserError(f"{name}{place} is {values[first].item():g}: want {wanted}")


def bad_pairs(given: LossArguments, loss: Formula) -> Tensor:
    """Bool ``[pairs]``: the pairs with a bad value, found without waiting for the device."""
    found = torch.zeros_like(given.chosen, dtype=torch.bool)
    for _, _, bad, _ in _bad_values(given, loss):
        found = found | (bad.any(dim=1) if bad.dim() == 2 else bad)
    return found


def _bad_values(given: LossArguments, loss: Formula) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """(argument, its values, where they are bad, what is wanted)."""
    for name, x in given.items():
        if not isinstance(x, Tensor):
            continue
        if name.endswith("_tokens"):
            yield name, x, x < 1, "a length of at least 1"
        elif name == "epsilon":
            yield name, x, ~((x >= 0) & (x <= loss.max_epsilon)), _epsilon_range(loss, given.loss)
        elif name == "beta":
            yield name, x, ~(torch.isfinite(x) & (x > 0)), "a finite number above 0"
        elif name in ("weight", "kl"):
            yield name, x, ~(torch.isfinite(x) & (x >= 0)), "a finite number, 0 or more"
        elif loss.odds:
            smoothed = _smoothed(given) if name == "chosen" else torch.ones_like(x, dtype=torch.bool)
            finite = torch.isfinite(x)
            yield name, x, smoothed & ~(finite & (x < 0)), "a finite log-probability below 0, as its odds are compared"
            yield name, x, ~smoothed & ~(finite & (x <= 0)), "a finite log-probability"
        else:
            yield name, x, ~torch.isfinite(x), "a finite log-probability"


def _smoothed(given: LossArguments) -> Tensor:
    """Bool ``[pairs]`` or ``[]``, of a loss with one rejected response: where ε is above 0."""
    if not isinstance(given.epsilon, Tensor):
        return torch.zeros((), dtype=torch.bool, device=given.chosen.device)
    return (given.epsilon if given.epsilon.dim() < 2 else given.epsilon[:, 0]) > 0
