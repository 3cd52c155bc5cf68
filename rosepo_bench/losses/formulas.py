"""The losses, each one readable function over rewards. This is the reference: the compiled operator
(csrc/preference_loss.h, called through rosepo_bench/engine/ops) mirrors it, and tests compare the two.

In the equations w is the chosen response, l the rejected one (k = 1..K if there are several); l_w is a summed log-prob,
|w| a length in tokens, r_w = l_w minus the reference's, Δ = r_w - r_l, σ the logistic function.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.losses.arguments import (
    Formula,
    LossArguments,
    Pairs,
    as_tensors,
    bad_pairs,
    check_arguments,
    check_values,
    refuse_value,
)


def smoothed(pairs: Pairs) -> Tensor:
    """-Σ_j q_j log softmax_j(βr) over {w, 1..K}, q_w = 1 - mean ε_k, q_k = ε_k/K.

    K = 1 is cDPO (Mitchell's note), ε = 0 S-DPO (arXiv 2406.09215), both DPO (arXiv 2305.18290, eq. 7). An ε for each
    pair is our reading of RosePO (arXiv 2410.12519); an ε for each rejected response is our extension."""
    scaled = pairs.beta * torch.cat([pairs.chosen, pairs.rejected], dim=1)
    share = pairs.epsilon / pairs.epsilon.shape[1]
    q = torch.cat([1 - share.sum(dim=1, keepdim=True), share], dim=1)
    return -(q * log_softmax(scaled, dim=1)).sum(dim=1, keepdim=True)


def odds_smoothed(pairs: Pairs) -> Tensor:
    """As `smoothed`, with q_k/q_w = ε_k/(1 - ε_k), normalised: where ε_k is the probability that k, and not w, was the
    one chosen of these two, q are the probabilities among all of them. K = 1 is cDPO, ε = 0 S-DPO. Our extension."""
    odds = torch.logit(pairs.epsilon.clamp(max=1 - 1e-6))  # the softmax of log odds is finite at ε = 0; at 1 it is not
    q = torch.cat([torch.zeros_like(pairs.chosen), odds], dim=1).softmax(dim=1)
    scaled = pairs.beta * torch.cat([pairs.chosen, pairs.rejected], dim=1)
    return -(q * log_softmax(scaled, dim=1)).sum(dim=1, keepdim=True)


def robust(pairs: Pairs) -> Tensor:
    """[-(1-ε) log σ(βΔ) + ε log σ(-βΔ)] / (1-2ε), rDPO (arXiv 2403.00409): unbounded below, and its weights reach 10 at
    ε = .45, hence the limit."""
    z, epsilon = pairs.beta * (pairs.chosen - pairs.rejected), pairs.epsilon
    return (-(1 - epsilon) * logsigmoid(z) + epsilon * logsigmoid(-z)) / (1 - 2 * epsilon)


def ipo(pairs: Pairs) -> Tensor:
    """(Δ - 1/(2β))², arXiv 2310.12036: the paper has sums (`ipo_sum`), libraries have rewards per token (`ipo`)."""
    return (pairs.chosen - pairs.rejected - 1 / (2 * pairs.beta)) ** 2


def simpo(pairs: Pairs) -> Tensor:
    """-log σ(βΔ - γ), rewards per token, arXiv 2405.14734; smoothed as cDPO."""
    return _logistic(pairs.beta * (pairs.chosen - pairs.rejected) - pairs.gamma, pairs.epsilon)


def cpo(pairs: Pairs) -> Tensor:
    """-log σ(βΔ) - sft_weight l_w/|w|, arXiv 2401.08417; its first term smoothed as cDPO."""
    preference = _logistic(pairs.beta * (pairs.chosen - pairs.rejected), pairs.epsilon)
    return preference - pairs.sft_weight * pairs.chosen / pairs.chosen_tokens


def orpo(pairs: Pairs) -> Tensor:
    """-r_w - β log σ(log odds_w - log odds_l), rewards per token, p = exp(r), arXiv 2403.07691, whose λ is β here; the
    second term smoothed as cDPO.

    Without smoothing that term is β log(1 + odds_l (1-p_w)/p_w), so r_w = 0, p_w = 1, has a loss: 0, with the
    derivatives -1 - β odds_l by r_w and 0 by r_l. With ε > 0 the loss grows without bound there, as it does at
    r_l = 0."""
    certain = (pairs.chosen > -torch.finfo(pairs.chosen.dtype).tiny) & (pairs.epsilon == 0)
    rejected = _log_odds(pairs.rejected)
    # The form that is not used gets an argument at which its gradient is finite.
    below = _logistic(_log_odds(torch.where(certain, -1.0, pairs.chosen)) - rejected, pairs.epsilon)
    at_one = torch.log1p(torch.exp(rejected) * torch.expm1(-torch.where(certain, pairs.chosen, -1.0)))
    return -pairs.chosen + pairs.beta * torch.where(certain, at_one, below)


def kto(pairs: Pairs) -> Tensor:
    """desirable (1 - σ(β(r_w - z))) + undesirable (1 - σ(β(z - r_l))), z = kl, arXiv 2402.01306: the sum over a pair's
    two examples."""
    chosen = torch.sigmoid(-pairs.beta * (pairs.chosen - pairs.kl))
    rejected = torch.sigmoid(-pairs.beta * (pairs.kl - pairs.rejected))
    return pairs.desirable * chosen + pairs.undesirable * rejected


def dmpo(pairs: Pairs) -> Tensor:
    """-log σ(β r_w - β/K Σ_k r_k), arXiv 2405.16127; smoothed as cDPO."""
    return _logistic(pairs.beta * (pairs.chosen - pairs.rejected.mean(dim=1, keepdim=True)), pairs.epsilon)


def _logistic(z: Tensor, epsilon: Tensor) -> Tensor:
    """-(1-ε) log σ(z) - ε log σ(-z), where ε is the mean of a pair's."""
    smooth = epsilon.mean(dim=1, keepdim=True)
    return -(1 - smooth) * logsigmoid(z) - smooth * logsigmoid(-z)


def _log_odds(logp: Tensor) -> Tensor:
    """log p/(1-p) of log p < 0. One form of log(1-p) is exact near p = 1, the other near p = 0; the one not used
    gets an argument at which its gradient is finite."""
    near = logp > -0.7
    close = torch.log(-torch.expm1(torch.where(near, logp, -0.7)))
    far = torch.log1p(-torch.exp(torch.where(near, -0.7, logp)))
    return logp - torch.where(near, close, far)


_REFERENCE: Final = frozenset({"reference_chosen", "reference_rejected"})
_LENGTHS: Final = frozenset({"chosen_tokens", "rejected_tokens"})
_EPSILON: Final = frozenset({"epsilon"})

LOSSES: Final[dict[str, Formula]] = {
    "dpo": Formula(smoothed, "-log σ(βΔ)", _REFERENCE),
    "cdpo": Formula(
        smoothed,
        "-(1-ε) log σ(βΔ) - ε log σ(-βΔ), an ε for each pair or one for all; K > 1 as rosepo",
        _REFERENCE,
        _EPSILON,
        many=True,
    ),
    "rosepo": Formula(
        smoothed,
        "-Σ_j q_j log softmax_j(βr) over {w, 1..K}, q_w = 1 - mean ε_k, q_k = ε_k/K: our reading of RosePO",
        _REFERENCE,
        _EPSILON,
        many=True,
    ),
    "sdpo": Formula(smoothed, "-log σ(-log Σ_k exp(β(r_k - r_w))): rosepo with ε = 0", _REFERENCE, many=True),
    "robust": Formula(
        robust,
        "[-(1-ε) log σ(βΔ) + ε log σ(-βΔ)] / (1-2ε): rDPO, unbiased if labels flip with probability ε",
        _REFERENCE,
        _EPSILON,
        max_epsilon=0.45,
    ),
    "ipo": Formula(ipo, "(r_w/|w| - r_l/|l| - 1/(2β))²", _REFERENCE | _LENGTHS),
    "ipo_sum": Formula(ipo, "(Δ - 1/(2β))²", _REFERENCE),
    "simpo": Formula(
        simpo, "-log σ(β(l_w/|w| - l_l/|l|) - γ), no reference, smoothed as cdpo", _LENGTHS | {"gamma"}, _EPSILON
    ),
    "cpo": Formula(
        cpo,
        "-log σ(β(l_w - l_l)) - sft_weight l_w/|w|, no reference, smoothed as cdpo",
        frozenset({"chosen_tokens"}),
        _EPSILON | {"sft_weight"},
    ),
    "orpo": Formula(
        orpo,
        "-l_w/|w| - β log σ(log odds_w - log odds_l), p = exp(l_y/|y|), no reference, smoothed as cdpo",
        _LENGTHS,
        _EPSILON,
        odds=True,
    ),
    "kto": Formula(
        kto,
        "desirable (1 - σ(β(r_w - z))) + undesirable (1 - σ(β(z - r_l))), z = kl",
        _REFERENCE | {"kl"},
        frozenset({"desirable", "undesirable"}),
    ),
    "dmpo": Formula(dmpo, "-log σ(β r_w - β/K Σ_k r_k), smoothed as cdpo", _REFERENCE, _EPSILON, many=True),
}


class Statistics(NamedTuple):
    """Means over the pairs, float64 scalars without a gradient; 0 without pairs. Pair weights are ignored."""

    margin: Tensor  # β (chosen reward - mean rejected reward)
    accuracy: Tensor  # share of pairs whose chosen reward is above every rejected one
    epsilon: Tensor


def check(given: LossArguments) -> Formula:
    """The loss that ``given`` names, with its arguments checked, except for the tensors' values."""
    if given.loss not in LOSSES:
        raise UserError(f"loss is {given.loss!r}: {nearest(given.loss, LOSSES)}")
    loss = LOSSES[given.loss]
    check_arguments(given, loss)
    return loss


def preference_loss(given: LossArguments, loss: Formula, *, validate: bool) -> tuple[Tensor, Statistics]:
    """Losses ``[pairs]`` and their statistics in plain torch operations; ``loss`` as :func:`check` returned it.

    Bad values raise on the CPU and with ``validate``. On other devices, where checking would wait for the device, and
    under torch.compile, the losses of their pairs are NaN instead.
    """
    given = as_tensors(given)
    looking = (validate or given.chosen.device.type == "cpu") and not torch.compiler.is_compiling()
    if looking:
        check_values(given, loss)
    pairs = rewards(given)
    losses = loss.formula(pairs).squeeze(1)
    if given.weight is not None:
        losses = given.weight * losses
    if not looking:
        losses = losses.masked_fill(bad_pairs(given, loss), torch.nan)
    elif not (good := torch.isfinite(losses)).all():
        refuse_value("the result", losses, ~good, "a finite loss: look at the log-probs, beta and weight")
    return losses, pair_statistics(pairs)


def rewards(given: LossArguments) -> Pairs:
    """The inputs of the formulas; ``given`` as :func:`as_tensors` returns it."""
    chosen, rejected = given.chosen.unsqueeze(1), given.rejected
    if given.reference_chosen is not None and given.reference_rejected is not None:
        chosen, rejected = chosen - given.reference_chosen.unsqueeze(1), rejected - given.reference_rejected
    tokens = torch.ones_like(chosen) if given.chosen_tokens is None else given.chosen_tokens.unsqueeze(1)
    if given.rejected_tokens is not None:
        chosen, rejected = chosen / tokens, rejected / given.rejected_tokens
    zero = chosen.new_zeros(())
    return Pairs(
        chosen=chosen,
        rejected=rejected,
        chosen_tokens=tokens,
        epsilon=_column(zero if given.epsilon is None else given.epsilon).expand(rejected.shape),
        beta=_column(given.beta),
        kl=zero if given.kl is None else given.kl,
        gamma=0.0 if given.gamma is None else given.gamma,
        sft_weight=1.0 if given.sft_weight is None else given.sft_weight,
        desirable=1.0 if given.desirable is None else given.desirable,
        undesirable=1.0 if given.undesirable is None else given.undesirable,
    )


def _column(values: Tensor | float) -> Tensor:
    assert isinstance(values, Tensor)
    return values if values.dim() == 2 else values.reshape(-1, 1)


def pair_statistics(pairs: Pairs) -> Statistics:
    """The statistics of the training log."""
    chosen, rejected = pairs.chosen.detach().double(), pairs.rejected.detach().double()
    margin = pairs.beta.double() * (chosen - rejected.mean(dim=1, keepdim=True))
    correct = (chosen > rejected).all(dim=1)
    count = max(1, len(chosen))
    return Statistics(
        margin.sum() / count, correct.double().sum() / count, pairs.epsilon.double().mean(1).sum() / count
    )
