"""The losses, each one readable function over sequence log-probs. This is the reference: the compiled
operator (csrc/preference_loss.h, called through rosepo_bench/engine/ops.py) mirrors it, and tests compare
the two."""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.nn.functional import logsigmoid

from rosepo_bench.preference.arguments import check_arguments, check_values, smoothing

LOSSES: Final[dict[str, str]] = {
    "cdpo": "-(1-ε) log σ(βΔ) - ε log σ(-βΔ): our reading of RosePO; with ε = 0 DPO, with one ε for all cDPO",
    "robust": "[-(1-ε) log σ(βΔ) + ε log σ(-βΔ)] / (1-2ε): rDPO, unbiased if labels flip with probability ε",
}


def preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    epsilon: Tensor | float,
    beta: float,
    form: str = "cdpo",
    validate: bool = False,
) -> Tensor:
    """The smoothed preference loss of each pair, ``[pairs]``, with a gradient for ``chosen`` and
    ``rejected``.

    With Δ the :func:`margin`, in nats::

        cdpo    -(1-ε) log σ(βΔ) - ε log σ(-βΔ)
        robust  [-(1-ε) log σ(βΔ) + ε log σ(-βΔ)] / (1-2ε)

    ``chosen``, ``rejected``, ``reference_chosen``, ``reference_rejected``: summed log-probs of the
    responses, end token included, under the policy and the frozen reference, ``[pairs]``, float32 or
    float64. ``epsilon``: the smoothing, ``[pairs]`` or one number, 0 to 1 for cdpo (above .5 the preference
    flips), 0 to .45 for robust, which is unbounded below and whose weights reach 10 there. ``beta`` > 0.

    DPO is arXiv 2305.18290 (eq. 7); cDPO, one ε for all pairs, is Mitchell's note on it; robust is rDPO,
    arXiv 2403.00409. An ε for each pair in the cDPO form is our reading of RosePO, arXiv 2410.12519.

    Raises :class:`~rosepo_bench.errors.UserError` for an argument outside these. Values on a GPU are looked
    at only with ``validate=True``, which waits for the device; a float ``epsilon`` and ``beta`` always are.
    """
    logps = (chosen, rejected, reference_chosen, reference_rejected)
    check_arguments(*logps, epsilon=epsilon, beta=beta, form=form)
    epsilon = smoothing(epsilon, like=chosen)
    check_values(*logps, epsilon=epsilon, beta=beta, form=form, validate=validate)
    z = beta * margin(*logps)
    kept = -(1 - epsilon) * logsigmoid(z)
    flipped = -epsilon * logsigmoid(-z)
    if form == "robust":
        return (kept - flipped) / (1 - 2 * epsilon)
    return kept + flipped


def margin(chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor) -> Tensor:
    """Δ ``[pairs]``, nats: how much more than the reference the policy prefers the chosen response."""
    return (chosen - reference_chosen) - (rejected - reference_rejected)
