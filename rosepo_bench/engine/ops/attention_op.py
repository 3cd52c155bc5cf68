"""The compiled ``forest_attention`` behind one Python function, with its gradient, fake kernels and argument checks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.ops import attention_reference as reference
from rosepo_bench.engine.ops.implementation import autocast, for_people, live, refuse_tangents, register

# The reference calls torch's SDPA, of which only the MATH backend has second and forward-mode derivatives.
_DIFFERENTIABLE_WAY = "impl='reference' under torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"


def forest_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    end: Tensor,
    *,
    depth: Tensor | None = None,
    window: int = 0,
    scaling: float | None = None,
    soft_cap: float = 0.0,
    impl: str = "auto",
) -> Tensor:
    """Attention over the token forest, ``[H, T, D]`` as a view of memory ``[T, H, D]``, with a gradient for ``query``,
    ``key`` and ``value``; the equation is in attention_reference.py.

    ``query`` ``[H, T, D]``; ``key``, ``value`` ``[G, T, D]``, H a multiple of G; any strides, and no copy where the
    last axis is contiguous. The T tokens are trees one after the other, each in depth-first order, and ``end`` ``[T]``
    int64 is the index after each token's subtree: query q sees key k iff ``k <= q < end[k]``, with a ``window`` also
    only if ``depth[q] - depth[k] < window``; ``depth`` ``[T]`` int64 grows along every path. ``scaling`` None:
    ``D ** -0.5``. float32, float64, bfloat16 or float16, computed in float32 (float64).

    No mask is made, and scores of pairs that do not see each other are not computed, except to fill up a SIMD vector. A
    value of ``query``, ``key`` or ``value`` that is not finite affects only the queries that see it.

    Raises UserError for any other argument, for an ``end`` that describes no forest, and for what is not compiled:
    CUDA, and ``soft_cap`` (scores x become ``soft_cap tanh(x / soft_cap)``). Under autocast query, key and value are
    cast as for torch's SDPA. No second derivative.
    """
    # First, as rotary positions leave query and key in float32 beside a value that a linear layer cast.
    query, key, value = autocast(query, key, value)
    reference.check_arguments(query, key, value, end, depth=depth, window=window, scaling=scaling)
    reference.check_cap(soft_cap)
    if impl != "reference" and query.is_cuda:
        raise UserError(
            f"impl is {impl!r}: forest_attention is compiled for the CPU alone, the tensors are on {query.device}; "
            "choose model.attention='flex', or impl='reference'"
        )
    if live(impl, query.device) == "reference":
        return reference.forest_attention(
            query, key, value, end, depth=depth, window=window, scaling=scaling, soft_cap=soft_cap
        )
    if soft_cap:
        raise UserError(f"soft_cap is {soft_cap}, which is not compiled: choose impl='reference'")
    refuse_tangents(_DIFFERENTIABLE_WAY, query=query, key=key, value=value)
    scaling = query.shape[2] ** -0.5 if scaling is None else float(scaling)
    try:
        found: Tensor = torch.ops.rosepo.forest_attention(query, key, value, end, depth, window, scaling)[0]
    except RuntimeError as error:
        raise for_people(error, "forest_attention") from None
    return found


def _empty(like: Tensor) -> Tensor:
    heads, tokens, width = like.shape
    return like.new_empty(tokens, heads, width).transpose(0, 1)


def _fake(
    query: Tensor, key: Tensor, value: Tensor, end: Tensor, depth: Tensor | None, window: int, scaling: float
) -> tuple[Tensor, Tensor]:
    reference.check_arguments(query, key, value, end, depth=depth, window=window, scaling=scaling)
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    return _empty(query), query.new_empty(query.shape[:2], dtype=wide)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, window, scaling = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.settings = (window, scaling)
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    # The result that forward saved is constant to autograd: a second derivative would be silently wrong.
    if torch.is_grad_enabled():
        raise UserError(
            f"forest_attention, compiled, has no second derivative (create_graph): choose {_DIFFERENTIABLE_WAY}"
        )
    found = torch.ops.rosepo.forest_attention_backward(grad, *ctx.saved_tensors, *ctx.settings)
    wanted = ctx.needs_input_grad[:3]
    return (*(x if needed else None for x, needed in zip(found, wanted, strict=True)), *(None,) * 4)


def _fake_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    # A single meta tensor among others makes the dispatcher call this, and the result would be uninitialised memory.
    for x in (grad, key, value, *rest):
        if isinstance(x, Tensor) and x.device != query.device:
            raise UserError(f"a tensor is on {x.device}, query is on {query.device}: want one device")
    return _empty(query), _empty(key), _empty(value)


register("forest_attention", fake=_fake, backward=_backward, setup_context=_setup_context)
register("forest_attention_backward", fake=_fake_backward)
