"""What the preference loss refuses, whichever implementation runs: an error names the argument and its
value."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from rosepo_bench.errors import UserError, nearest

MAX_EPSILON: Final[dict[str, float]] = {"cdpo": 1.0, "robust": 0.45}


def check_arguments(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    epsilon: Tensor | float,
    beta: float,
    form: str,
) -> None:
    """Everything that is known without looking at a tensor's values: never waits for a device."""
    if form not in MAX_EPSILON:
        raise UserError(f"form is {form!r}: {nearest(form, MAX_EPSILON)}")
    if not (math.isfinite(beta) and beta > 0):
        raise UserError(f"beta is {beta}: want a finite number above 0")
    tensors = {
        "chosen": chosen,
        "rejected": rejected,
        "reference_chosen": reference_chosen,
        "reference_rejected": reference_rejected,
    }
    if isinstance(epsilon, Tensor):
        tensors["epsilon"] = epsilon
    elif not 0 <= epsilon <= MAX_EPSILON[form]:
        raise UserError(f"epsilon is {epsilon}: want 0 to {MAX_EPSILON[form]} for form {form!r}")
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, like=chosen)


def _check_tensor(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.dtype not in (torch.float32, torch.float64):
        raise UserError(f"{name} is {tensor.dtype}: want torch.float32 or torch.float64")
    if tensor.dim() != 1:
        raise UserError(f"{name} has shape {list(tensor.shape)}: want [pairs]")
    if tensor.shape != like.shape:
        raise UserError(f"{name} has {tensor.shape[0]} pairs, chosen has {like.shape[0]}")
    if tensor.dtype != like.dtype:
        raise UserError(f"{name} is {tensor.dtype}, chosen is {like.dtype}: want one dtype")
    if tensor.device != like.device:
        raise UserError(f"{name} is on {tensor.device}, chosen is on {like.device}: want one device")
    if tensor.requires_grad and name not in ("chosen", "rejected"):
        raise UserError(f"{name} requires a gradient, which the loss does not give: detach it")


def smoothing(epsilon: Tensor | float, like: Tensor) -> Tensor:
    """``epsilon`` as a tensor ``[pairs]``."""
    return epsilon if isinstance(epsilon, Tensor) else torch.full_like(like.detach(), epsilon)


def check_values(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    epsilon: Tensor,
    beta: float,
    form: str,
    validate: bool,
) -> None:
    """Looks at the values: on the CPU always, elsewhere if ``validate`` asks for it, never under
    torch.compile."""
    if torch.compiler.is_compiling() or not (validate or chosen.device.type == "cpu"):
        return
    tensors = {
        "chosen": chosen,
        "rejected": rejected,
        "reference_chosen": reference_chosen,
        "reference_rejected": reference_rejected,
    }
    for name, tensor in tensors.items():
        _refuse(name, tensor, ~torch.isfinite(tensor), "a finite log-probability")
    limit = MAX_EPSILON[form]
    outside = ~((epsilon >= 0) & (epsilon <= limit))
    _refuse("epsilon", epsilon, outside, f"0 to {limit:g} for form {form!r}")
    z = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    _refuse("beta * margin", z, ~torch.isfinite(z), "a finite number: look at the log-probs and at beta")


def _refuse(name: str, values: Tensor, bad: Tensor, wanted: str) -> None:
    if bad.any():
        first = int(bad.nonzero()[0, 0])
        raise UserError(f"{name}[{first}] is {values[first].item():g}: want {wanted}")
