"""The compiled preference losses behind one Python function, with their gradient, fake kernel and argument checks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.ops.implementation import for_people, live, raise_errors, refuse_tangents, register
from rosepo_bench.losses import formulas as losses
from rosepo_bench.losses.arguments import LossArguments, as_tensors
from rosepo_bench.losses.formulas import Statistics

_P = ParamSpec("_P")


def preference_loss_and_statistics(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor | None = None,
    reference_rejected: Tensor | None = None,
    *,
    loss: str = "cdpo",
    beta: Tensor | float,
    epsilon: Tensor | float = 0.0,
    weight: Tensor | None = None,
    chosen_tokens: Tensor | None = None,
    rejected_tokens: Tensor | None = None,
    kl: Tensor | float | None = None,
    gamma: float | None = None,
    sft_weight: float | None = None,
    desirable: float | None = None,
    undesirable: float | None = None,
    impl: str = "auto",
    validate: bool = False,
) -> tuple[Tensor, Statistics]:
    """The preference loss of each pair, ``[pairs]``, with a gradient for ``chosen`` and ``rejected``; and means over
    the pairs: reward margin, accuracy, ε.

    ``loss`` names a row of ``python -m rosepo_bench ls losses``; equations and sources are in
    :mod:`rosepo_bench.losses.formulas`. An argument that the loss does not use is refused, never ignored.

    ``chosen`` ``[pairs]``, ``rejected`` ``[pairs]`` or ``[pairs, K]``: summed log-probs of the responses under the
    policy, end token included, in nats, float32 or float64; ``reference_chosen``, ``reference_rejected``: the same
    under the frozen reference. K > 1 is for rosepo, cdpo, sdpo, dmpo. orpo takes log-probs below 0, and a ``chosen`` of
    0 where ε is 0: the loss is then the limit, 0.
    ``beta`` > 0: a number or ``[pairs]``. ``epsilon``: a number, ``[pairs]`` or ``[pairs, K]``, 0 to 1 (above .5 the
    preference flips), 0 to .45 for robust. ``weight`` ``[pairs]``, at least 0, multiplies each pair's loss.
    ``chosen_tokens``, ``rejected_tokens``: lengths of the responses, int64, at least 1, shaped as the log-probs.
    ``gamma``: SimPO's margin. ``sft_weight``: weight of CPO's second term (default 1). ``kl``: KTO's z over the whole
    effective batch, a number or a scalar tensor; ``desirable``, ``undesirable``: KTO's weights (default 1).

    ``impl`` as in :func:`live`. The compiled operators compute losses, gradients and statistics in one pass, in float64
    whatever the tensors' dtype; they have no second and no forward-mode derivatives (``reference`` has both).

    Raises :class:`UserError` for any other argument, with its name and value. Values in tensors are checked on the CPU.
    On CUDA, where a check would wait for the device, a bad value makes its pair's loss and gradients NaN, and
    :func:`raise_errors` names it; ``validate=True`` checks at once, and is refused under torch.compile and while a CUDA
    graph is captured. In compiled code the operators' own refusals are RuntimeErrors.
    """
    given = LossArguments(
        chosen,
        rejected,
        reference_chosen,
        reference_rejected,
        chosen_tokens,
        rejected_tokens,
        None if isinstance(epsilon, (int, float)) and epsilon == 0 else epsilon,
        beta,
        weight,
        kl,
        gamma,
        sft_weight,
        desirable,
        undesirable,
        loss,
    )
    formula = losses.check(given)
    running = live(impl, chosen.device)
    if validate and _blind(running):
        raise UserError("validate is True: values cannot be read under torch.compile or in a CUDA graph; leave it out")
    if running == "reference":
        return losses.preference_loss(given, formula, validate=validate)
    refuse_tangents(**{name: value for name, value in given.items() if isinstance(value, Tensor)})
    found, _, _, means = _call(as_tensors(given))
    if validate and running == "cuda":
        raise_errors(chosen.device)
    return found, Statistics(*means.unbind())


def _blind(running: str) -> bool:
    """Whether values cannot be read now: under torch.compile, or while a CUDA graph is captured."""
    if torch.compiler.is_compiling():
        return running != "cpp"  # which always checks values
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _call(given: LossArguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    try:
        results: tuple[Tensor, Tensor, Tensor, Tensor] = torch.ops.rosepo.preference_loss(*given)
    except RuntimeError as error:
        raise for_people(error, "preference_loss") from None
    return results


def _alone(function: Callable[_P, tuple[Tensor, Statistics]]) -> Callable[_P, Tensor]:
    @functools.wraps(function)
    def loss(*arguments: _P.args, **options: _P.kwargs) -> Tensor:
        return function(*arguments, **options)[0]

    loss.__name__ = "preference_loss"
    loss.__signature__ = inspect.signature(function).replace(return_annotation=Tensor)  # type: ignore[attr-defined]
    loss.__doc__ = (
        "The loss of :func:`preference_loss_and_statistics` without the statistics; see there for the arguments."
    )
    return loss


preference_loss = _alone(preference_loss_and_statistics)


def _fake(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arguments = LossArguments(*given)
    losses.check(arguments)
    chosen, rejected = arguments.chosen, arguments.rejected
    # The kernels write contiguous results, whatever the strides of the inputs.
    return (
        chosen.new_empty(chosen.shape),
        chosen.new_empty(chosen.shape),
        chosen.new_empty(rejected.shape),
        chosen.new_empty(3, dtype=torch.float64),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    for name, needed in zip(LossArguments._fields, ctx.needs_input_grad, strict=False):
        if needed and name not in ("chosen", "rejected"):
            raise UserError(f"{name} requires a gradient, which the loss does not compute: detach it")
    _, grad_chosen, grad_rejected, statistics = output
    ctx.mark_non_differentiable(grad_chosen, grad_rejected, statistics)
    ctx.save_for_backward(grad_chosen, grad_rejected)


def _backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    # The saved gradients are constants to autograd: a second derivative would silently be zero.
    if torch.is_grad_enabled():
        raise UserError("the compiled preference_loss has no second derivative (create_graph): choose impl='reference'")
    grad_chosen, grad_rejected = ctx.saved_tensors
    chosen = grad_loss * grad_chosen if ctx.needs_input_grad[0] else None
    rejected = grad_loss.unsqueeze(1) * grad_rejected if ctx.needs_input_grad[1] else None
    return chosen, rejected, *[None] * (len(LossArguments._fields) - 2)


register("preference_loss", fake=_fake, backward=_backward, setup_context=_setup_context)
