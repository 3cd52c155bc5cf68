"""Log-probs of sequences from hidden rows: the readable reference, and the checks of arguments that all
implementations share.

Shape legend: N rows, V vocabulary, d width, M triples, S sequences.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

from rosepo_bench.base.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Bounds of logit_scale and soft_cap, which keep both, and logits divided by them, finite in float32.
LEAST, MOST = 1e-6, 1e6
MOST_COUNTED = 1 << 48


def sequence_logprob(
    hidden: Float[Tensor, "N d"],
    weight: Float[Tensor, "V d"],
    *,
    targets: Int64[Tensor, " M"],
    row_of_target: Int64[Tensor, " M"],
    sequence_of_target: Int64[Tensor, " M"],
    num_sequences: int,
    bias: Float[Tensor, " V"] | None = None,
    logit_scale: float = 1.0,
    soft_cap: float = 0.0,
) -> Float[Tensor, " S"]:
    """The log-prob of each sequence: the sum over its triples of ``log_softmax(x[row])[target]``, with logits
    ``x = squash(logit_scale (hidden weightᵀ + bias))`` and
    ``squash(x) = soft_cap tanh(x / soft_cap)`` (Gemma 2, arXiv 2408.00118), or ``x`` where ``soft_cap`` is 0.

    It holds the logits of all rows, ``[N, V]``, in memory, several times with a gradient; the compiled operator
    (csrc/sequence_logprob.h, called by ops/logprob_op.py) does not.
    """
    logits = linear(hidden, weight, bias).to(wide(hidden)) * logit_scale
    if soft_cap:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    token = logits.log_softmax(-1)[row_of_target, targets]
    return token.new_zeros(num_sequences).index_add(0, sequence_of_target, token)


def wide(hidden: Tensor) -> torch.dtype:
    """The dtype in which log-probs are computed and returned."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def check_tensors(**arguments: Tensor | None) -> None:
    """Checks that they are dense tensors, before other checks ask for shapes and dtypes. Raises UserError."""
    for name, value in arguments.items():
        if value is None and name == "bias":
            continue
        if not isinstance(value, Tensor):
            raise UserError(f"{name} is a {type(value).__name__}: want a tensor")
        if value.layout is not torch.strided:
            raise UserError(f"{name} has layout {value.layout}: want a dense tensor")


def check_arguments(
    hidden: Tensor,
    weight: Tensor,
    *,
    targets: Tensor,
    row_of_target: Tensor,
    sequence_of_target: Tensor,
    num_sequences: int,
    bias: Tensor | None,
    logit_scale: float,
    soft_cap: float,
    chunk_rows: int,
    memory_budget: int,
) -> None:
    """Checks everything but the tensors' values, so that it never waits for a device. Raises UserError."""
    if hidden.dtype not in DTYPES:
        raise UserError(f"hidden is {hidden.dtype}: want float32, float64, bfloat16 or float16")
    if hidden.dim() != 2:
        raise UserError(f"hidden has shape {list(hidden.shape)}: want [rows, width]")
    _check_values("weight", weight, hidden, (None, hidden.shape[1]), "[vocabulary, width]")
    if bias is not None:
        _check_values("bias", bias, hidden, (weight.shape[0],), "[vocabulary]")
    indices = {"targets": targets, "row_of_target": row_of_target, "sequence_of_target": sequence_of_target}
    for name, index in indices.items():
        if index.dtype != torch.int64:
            raise UserError(f"{name} is {index.dtype}: want torch.int64")
        if index.dim() != 1 or index.shape != targets.shape:
            raise UserError(f"{name} has shape {list(index.shape)}: want [triples], {list(targets.shape)} as targets")
        _check_device(name, index, hidden)
    _check_number("logit_scale", logit_scale)
    if not isinstance(soft_cap, Real) or soft_cap != 0:
        _check_number("soft_cap", soft_cap)
    _check_count("num_sequences", num_sequences, "")
    _check_count("chunk_rows", chunk_rows, "rows, ")
    _check_count("memory_budget", memory_budget, "bytes, ")


def check_ranges(
    hidden: Tensor,
    weight: Tensor,
    *,
    targets: Tensor,
    row_of_target: Tensor,
    sequence_of_target: Tensor,
    num_sequences: int,
) -> None:
    """Raises UserError for an index out of range. Waits for the device."""
    for name, index, limit, of in (
        ("targets", targets, weight.shape[0], "rows of weight"),
        ("row_of_target", row_of_target, hidden.shape[0], "rows of hidden"),
        ("sequence_of_target", sequence_of_target, num_sequences, "num_sequences"),
    ):
        bad = (index < 0) | (index >= limit)
        if bad.any():
            first = int(bad.nonzero()[0, 0])
            raise UserError(f"{name}[{first}] is {index[first].item()}: want 0 to {limit - 1} ({of})")


def check_finite(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    """Raises UserError for the first value that is not finite. Waits for the device."""
    for name, tensor in (("hidden", hidden), ("weight", weight), ("bias", bias)):
        if tensor is None or bool(torch.isfinite(tensor).all()):
            continue
        first = [int(i) for i in (~torch.isfinite(tensor)).nonzero()[0]]
        raise UserError(f"{name}{first} is {tensor[tuple(first)].item()}: want a finite number")


def _check_values(name: str, tensor: Tensor, hidden: Tensor, size: tuple[int | None, ...], want: str) -> None:
    if tensor.dim() != len(size):
        raise UserError(f"{name} has shape {list(tensor.shape)}: want {want}")
    for found, wanted in zip(tensor.shape, size, strict=True):
        if wanted is not None and found != wanted:
            raise UserError(f"{name} has shape {list(tensor.shape)}: want {want} with {wanted} for {found}")
    if tensor.dtype != hidden.dtype:
        raise UserError(f"{name} is {tensor.dtype}, hidden is {hidden.dtype}: want one dtype")
    _check_device(name, tensor, hidden)


def _check_device(name: str, tensor: Tensor, hidden: Tensor) -> None:
    if tensor.device != hidden.device:
        raise UserError(f"{name} is on {tensor.device}, hidden is on {hidden.device}: want one device")


def _check_number(name: str, number: float) -> None:
    if isinstance(number, Tensor):
        raise UserError(f"{name} is a tensor: want a number; to train it, multiply hidden by it")
    if isinstance(number, bool) or not isinstance(number, Real | torch.SymFloat | torch.SymInt):
        raise UserError(f"{name} is a {type(number).__name__}: want a number")
    if not LEAST <= number <= MOST:
        raise UserError(f"{name} is {number:g}: want {LEAST:g} to {MOST:g}")


def _check_count(name: str, number: int, unit: str) -> None:
    if isinstance(number, bool) or not isinstance(number, Integral | torch.SymInt):
        raise UserError(f"{name} is a {type(number).__name__}: want {unit}a whole number")
    if not 0 <= number <= MOST_COUNTED:
        raise UserError(f"{name} is {number}: want {unit}0 to {MOST_COUNTED}")
