"""The compiled preference loss behind one Python function, with its gradient, fake kernel and argument checks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rosepo_bench.engine.implementation import for_people, live, register
from rosepo_bench.errors import UserError
from rosepo_bench.preference import losses
from rosepo_bench.preference.arguments import check_arguments, check_values, smoothing


def preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    epsilon: Tensor | float,
    beta: float,
    form: str = "cdpo",
    impl: str = "auto",
    validate: bool = False,
) -> Tensor:
    """The smoothed preference loss of each pair, ``[pairs]``: equations, arguments and errors as in
    :func:`rosepo_bench.preference.losses.preference_loss`.

    The compiled operator computes loss and gradients in one pass; it has no second derivative
    (``reference`` has). On the CPU values are always checked, on CUDA only with ``validate=True``, as that
    waits for the device: without it an ε out of range gives NaN. In code under ``torch.compile`` the
    operator's own checks raise RuntimeError.
    """
    running = live(impl, chosen.device)
    logps = (chosen, rejected, reference_chosen, reference_rejected)
    if running == "reference":
        return losses.preference_loss(*logps, epsilon=epsilon, beta=beta, form=form, validate=validate)
    check_arguments(*logps, epsilon=epsilon, beta=beta, form=form)
    smooth = smoothing(epsilon, like=chosen)
    if running == "cuda":
        check_values(*logps, epsilon=smooth, beta=beta, form=form, validate=validate)
    try:
        loss: Tensor = torch.ops.rosepo.preference_loss(*logps, smooth, beta, form)[0]
    except RuntimeError as error:
        raise for_people(error, "preference_loss") from None
    return loss


def _fake(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    epsilon: Tensor,
    beta: float,
    form: str,
) -> tuple[Tensor, Tensor, Tensor]:
    check_arguments(chosen, rejected, reference_chosen, reference_rejected, epsilon=epsilon, beta=beta, form=form)
    # Contiguous whatever the inputs' strides, as the kernels write them.
    return tuple(chosen.new_empty(chosen.shape) for _ in range(3))  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    for name, needed in zip(
        ("reference_chosen", "reference_rejected", "epsilon"), ctx.needs_input_grad[2:5], strict=True
    ):
        if needed:
            raise UserError(f"{name} requires a gradient, which the loss does not give: detach it")
    _, grad_chosen, grad_rejected = output
    ctx.mark_non_differentiable(grad_chosen, grad_rejected)
    ctx.save_for_backward(grad_chosen, grad_rejected)


def _backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    # The saved gradients are constants to autograd: a second derivative would be zero without a word.
    if torch.is_grad_enabled():
        raise UserError("the compiled preference_loss has no second derivative (create_graph): choose impl='reference'")
    chosen, rejected = (
        grad_loss * saved if needed else None
        for saved, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[:2], strict=True)
    )
    return chosen, rejected, None, None, None, None, None


register("preference_loss", fake=_fake, backward=_backward, setup_context=_setup_context)
