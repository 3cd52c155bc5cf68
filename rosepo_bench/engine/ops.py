"""The compiled operators behind one Python function each, with gradients, fake kernels and argument checks.

>>> loss = preference_loss(chosen, rejected, ref_chosen, ref_rejected, epsilon=0.1, beta=0.1).mean()

``impl`` is ``auto`` (the compiled operator of the tensors' device), ``cpp``, ``cuda`` or ``reference``
(plain torch operations, any device). Nothing falls back: what an implementation cannot do is an error that
says what can.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rosepo_bench.engine import library
from rosepo_bench.errors import UserError, nearest
from rosepo_bench.preference import losses
from rosepo_bench.preference.arguments import check_arguments, check_values, smoothing

IMPLEMENTATIONS = ("auto", "cpp", "cuda", "reference")
_COMPILED_FOR = {"cpu": "cpp", "cuda": "cuda"}


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
        if not str(error).startswith("preference_loss: "):
            raise
        raise UserError(str(error).removeprefix("preference_loss: ").partition("\n")[0]) from None
    return loss


def live(impl: str, device: str | torch.device) -> str:
    """Which implementation runs for ``impl`` on ``device``: ``cpp``, ``cuda`` or ``reference``. Raises
    :class:`UserError` where none does."""
    if impl not in IMPLEMENTATIONS:
        raise UserError(f"impl is {impl!r}: {nearest(impl, IMPLEMENTATIONS)}")
    if impl == "reference":
        return impl
    kind = torch.device(device).type
    compiled = _COMPILED_FOR.get(kind)
    if compiled is None:
        raise UserError(f"impl is {impl!r}: no operator is compiled for {kind}; choose impl='reference'")
    if impl not in ("auto", compiled):
        raise UserError(f"impl is {impl!r}, the tensors are on {kind}: choose impl={compiled!r} or 'auto'")
    if _PROBLEM is not None:
        raise UserError(f"impl is {impl!r}: {_PROBLEM}; or choose impl='reference'")
    if compiled == "cuda" and not _HAS_CUDA:
        raise UserError(
            f"impl is {impl!r}: the library was built without CUDA; rebuild it with ROSEPO_CUDA=1, "
            "or choose impl='reference'"
        )
    return compiled


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


def _register() -> tuple[bool, str | None]:
    """(CUDA compiled in, why the operators are missing). At import, as torch.compile cannot trace a load."""
    try:
        facts = library.load()
    except UserError as error:
        return False, str(error)
    torch.library.register_fake("rosepo::preference_loss", _fake)
    torch.library.register_autograd("rosepo::preference_loss", _backward, setup_context=_setup_context)
    return facts["cuda"] != "none", None


_HAS_CUDA, _PROBLEM = _register()
