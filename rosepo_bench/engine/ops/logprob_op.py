"""The compiled ``sequence_logprob`` behind one Python function, with its gradient, fake kernels and argument checks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.ops import logprob_reference as logprob
from rosepo_bench.engine.ops.implementation import autocast, for_people, live, refuse_tangents, register

MEMORY_BUDGET = 256 << 20
_DIFFERENTIABLE = ("hidden", "weight", "bias")


def sequence_logprob(
    hidden: Tensor,
    weight: Tensor,
    *,
    targets: Tensor,
    row_of_target: Tensor,
    sequence_of_target: Tensor,
    num_sequences: int,
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    soft_cap: float = 0.0,
    chunk_rows: int = 0,
    memory_budget: int = MEMORY_BUDGET,
    impl: str = "auto",
    validate: bool = False,
) -> Tensor:
    """Summed log-probs of sequences ``[num_sequences]``, float32 (float64 for float64 input), with a gradient for
    ``hidden``, ``weight`` and ``bias``; the equation is in logprob_reference.py.

    ``hidden`` ``[N, d]``: the final hidden states of the rows that predict a token, each row once however many targets
    it has. ``weight`` ``[V, d]``, ``bias`` ``[V]``: the language model's head. Each predicted token is a triple of
    ``targets``, ``row_of_target``, ``sequence_of_target`` ``[M]`` int64, in any order, repeats allowed; a sequence
    without triples has log-prob 0. float32, float64, bfloat16 or float16, summed in float32 (float64).

    No ``[N, V]`` matrix is held: rows go through the head ``chunk_rows`` at a time. 0 chooses as many as fit a scratch
    of 64 MiB on the CPU (32 to 512 rows) or 256 MiB on CUDA (256 to 1024 rows). With a gradient for ``hidden`` only,
    two matrix products suffice, both in the forward pass: the loss depends on one scalar per sequence, whose gradient
    the backward pass multiplies with. A trained head needs a third product; its probabilities are kept if they fit
    ``memory_budget`` bytes, and otherwise computed again (a fourth).

    Raises UserError for any other argument. On CUDA an index out of range or a log-prob that is not finite makes its
    sequence NaN and is raised by :func:`raise_errors`, or at once with ``validate=True``, which waits for the device.
    Under autocast hidden, weight and bias are cast as those of a linear layer. No second derivative
    (``impl="reference"`` has it).
    """
    triples = {"targets": targets, "row_of_target": row_of_target, "sequence_of_target": sequence_of_target}
    logprob.check_tensors(hidden=hidden, weight=weight, bias=bias, **triples)
    hidden, weight, bias = _autocast(hidden, weight, bias)
    running = live(impl, hidden.device)
    shape: dict[str, Any] = {**triples, "num_sequences": num_sequences}
    squash: dict[str, Any] = {"logit_scale": logit_scale, "soft_cap": soft_cap}
    logprob.check_arguments(
        hidden, weight, bias=bias, chunk_rows=chunk_rows, memory_budget=memory_budget, **shape, **squash
    )
    look = _looks_at_values(running, hidden, validate)
    if look:
        logprob.check_ranges(hidden, weight, **shape)
    if running == "reference":
        if look:
            logprob.check_finite(hidden, weight)
        logps = logprob.sequence_logprob(hidden, weight, bias=bias, **shape, **squash)
    else:
        refuse_tangents(hidden=hidden, weight=weight, bias=bias)
        learns = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in (hidden, weight, bias)]
        try:
            logps = torch.ops.rosepo.sequence_logprob(
                hidden,
                weight,
                bias,
                targets,
                row_of_target,
                sequence_of_target,
                num_sequences,
                logit_scale,
                soft_cap,
                chunk_rows,
                memory_budget,
                learns[0],
                learns[1] or learns[2],
            )[0]
        except RuntimeError as error:
            raise for_people(error, "sequence_logprob") from None
    if look and not bool(torch.isfinite(logps.detach()).all()):
        logprob.check_finite(hidden, weight, bias)
        raise UserError("log-probs are not finite, though hidden and weight are: their product overflows")
    return logps


def _autocast(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    hidden, weight, *rest = autocast(hidden, weight, *(() if bias is None else (bias,)))
    return hidden, weight, rest[0] if rest else None


def _looks_at_values(running: str, hidden: Tensor, validate: bool) -> bool:
    """Whether Python checks values; the compiled CPU operator checks them itself."""
    if torch.compiler.is_compiling():
        return False
    if validate and hidden.is_cuda and torch.cuda.is_current_stream_capturing():
        raise UserError("validate=True waits for the device, which a CUDA graph under capture cannot do: leave it out")
    return validate or (running == "reference" and hidden.device.type == "cpu")


def _padded(columns: int, dtype: torch.dtype) -> int:
    """Elements from one kept row to the next, computed as in csrc/sequence_logprob_flow.h."""
    step = 64 // dtype.itemsize
    return (columns + step - 1) // step * step


def _fake(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    row_of_target: Tensor,
    sequence_of_target: Tensor,
    num_sequences: int,
    logit_scale: float,
    soft_cap: float,
    chunk_rows: int,
    memory_budget: int,
    hidden_gradient: bool,
    weight_gradient: bool,
) -> tuple[Tensor, ...]:
    logprob.check_arguments(
        hidden,
        weight,
        bias=bias,
        targets=targets,
        row_of_target=row_of_target,
        sequence_of_target=sequence_of_target,
        num_sequences=num_sequences,
        logit_scale=logit_scale,
        soft_cap=soft_cap,
        chunk_rows=chunk_rows,
        memory_budget=memory_budget,
    )
    rows, triples, width = hidden.shape[0], targets.shape[0], logprob.wide(hidden)
    stride = _padded(weight.shape[0], hidden.dtype)
    keep = weight_gradient and rows * stride <= memory_budget // hidden.dtype.itemsize
    again = weight_gradient and not keep

    def numbers(count: int) -> Tensor:
        return hidden.new_empty(count, dtype=width)

    return (
        numbers(num_sequences),
        hidden.new_empty(rows if hidden_gradient else 0, hidden.shape[1]),
        hidden.new_empty(rows if keep else 0, stride),
        targets.new_empty(rows + 1),
        targets.new_empty(triples),
        numbers(triples if soft_cap else 0),
        numbers(triples if again else 0),
        numbers(rows if again else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, scale, cap, chunk, _, hidden_gradient, weight_gradient = inputs
    needed = dict(zip(_DIFFERENTIABLE, ctx.needs_input_grad, strict=False))
    if (needed["hidden"] and not hidden_gradient) or ((needed["weight"] or needed["bias"]) and not weight_gradient):
        raise UserError("a gradient is asked for that the forward pass did not prepare: call ops.sequence_logprob")
    ctx.mark_non_differentiable(*output[1:])
    ctx.settings = (scale, cap, chunk)
    ctx.has_bias = tensors[2] is not None
    ctx.save_for_backward(*(x for x in tensors if x is not None), *output[1:])


def _backward(ctx: Any, grad_logps: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    # What forward saved is constant to autograd: a second derivative would be silently wrong.
    if torch.is_grad_enabled():
        raise UserError("sequence_logprob, compiled, has no second derivative (create_graph): choose impl='reference'")
    saved = list(ctx.saved_tensors)
    if not ctx.has_bias:
        saved.insert(2, None)
    wanted = ctx.needs_input_grad[:3]
    found = torch.ops.rosepo.sequence_logprob_backward(grad_logps, *saved, *ctx.settings, *wanted)
    gradients = [grad if needed else None for grad, needed in zip(found, wanted, strict=True)]
    return (*gradients, *(None,) * 10)


def _fake_backward(grad: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
    # A single meta tensor among others makes the dispatcher call this, and the result would be uninitialised memory.
    for x in (grad, weight, bias, *rest):
        if isinstance(x, Tensor) and x.device != hidden.device:
            raise UserError(f"a tensor is on {x.device}, hidden is on {hidden.device}: want one device")
    hidden_gradient, weight_gradient, bias_gradient = rest[-3:]
    return (
        hidden.new_empty(hidden.shape[0] if hidden_gradient else 0, hidden.shape[1]),
        weight.new_empty(weight.shape) if weight_gradient else weight.new_empty(0),
        weight.new_empty(weight.shape[0] if bias_gradient else 0),
    )


register("sequence_logprob", fake=_fake, backward=_backward, setup_context=_setup_context)
register("sequence_logprob_backward", fake=_fake_backward)
