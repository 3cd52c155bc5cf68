"""The loss of pairs whose log-probs are known, through the compiled operator or in plain torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.ops import preference_loss_and_statistics
from rosepo_bench.losses.arguments import Pairs
from rosepo_bench.losses.base import Columns, Loss
from rosepo_bench.losses.formulas import LOSSES, Statistics, pair_statistics


class Part(NamedTuple):
    """Pairs with lists of one length K: log-probs and, where the loss needs one, those of the reference
    ``[pairs, 1 + K]``, the chosen title first; lengths in tokens; ε ``[pairs, K]``."""

    logps: Tensor
    reference: Tensor | None
    tokens: Tensor
    epsilon: Tensor


def pair_losses(loss: Loss, part: Part, columns: Columns, impl: str) -> tuple[Tensor, Statistics]:
    """Losses ``[pairs]`` with a gradient for ``part.logps``, and their statistics. ``columns`` are of these pairs."""
    columns = Columns(*(None if column is None else column.to(part.logps.dtype) for column in columns))
    if loss.kernel is None:
        return _plain(loss, part, columns)
    if columns.desirable is None:
        return _compiled(loss, part, columns, impl, loss.options())
    return _by_weights(loss, part, columns, impl)


def _compiled(
    loss: Loss, part: Part, columns: Columns, impl: str, options: Mapping[str, float]
) -> tuple[Tensor, Statistics]:
    assert loss.kernel is not None
    formula = LOSSES[loss.kernel]
    wanted, given = formula.needs | formula.takes, dict[str, Any](options)
    if part.reference is not None and "reference_chosen" in wanted:
        given |= {"reference_chosen": part.reference[:, 0], "reference_rejected": part.reference[:, 1:]}
    if "chosen_tokens" in wanted:
        given["chosen_tokens"] = part.tokens[:, 0]
    if "rejected_tokens" in wanted:
        given["rejected_tokens"] = part.tokens[:, 1:]
    if "epsilon" in wanted:
        given["epsilon"] = part.epsilon
    if "kl" in wanted:
        given["kl"] = columns.kl
    beta = own_beta(loss) if columns.beta is None else columns.beta
    chosen, rejected = part.logps[:, 0], part.logps[:, 1:]
    return preference_loss_and_statistics(
        chosen, rejected, loss=loss.kernel, beta=beta, weight=columns.weight, impl=impl, **given
    )


def own_beta(loss: Loss) -> float:
    """The loss's β; 1 for a loss without one."""
    return float(getattr(loss, "beta", 1.0))


def _by_weights(loss: Loss, part: Part, columns: Columns, impl: str) -> tuple[Tensor, Statistics]:
    """The operator takes one weight of each term: a call for each pair of weights that occurs."""
    assert columns.desirable is not None
    assert columns.undesirable is not None
    table = torch.stack([columns.desirable, columns.undesirable], dim=1)
    distinct, which = torch.unique(table, dim=0, return_inverse=True)
    losses, sums = part.logps.new_zeros(len(part.logps)), torch.zeros(3, dtype=torch.float64)
    for number, (desirable, undesirable) in enumerate(distinct.tolist()):
        rows = (which == number).nonzero()[:, 0]
        weights = {**loss.options(), "desirable": desirable, "undesirable": undesirable}
        found, statistics = _compiled(loss, taken(part, rows), taken(columns, rows), impl, weights)
        losses = losses.index_put((rows,), found)
        sums += len(rows) * torch.stack([one.cpu() for one in statistics])
    return losses, Statistics(*(sums / max(1, len(losses))).unbind())


def taken(columns: Any, rows: Tensor) -> Any:
    """The rows of every tensor with an axis of pairs."""
    return type(columns)(*(one[rows] if isinstance(one, Tensor) and one.dim() else one for one in columns))


def _plain(loss: Loss, part: Part, columns: Columns) -> tuple[Tensor, Statistics]:
    pairs = rewards(loss, part, columns)
    losses = checked(loss, loss(pairs), pairs)
    return losses if columns.weight is None else columns.weight * losses, pair_statistics(pairs)


def rewards(loss: Loss, part: Part, columns: Columns) -> Pairs:
    """What a loss in plain torch is given."""
    values = part.logps if part.reference is None else part.logps - part.reference
    if "lengths" in loss.needs:
        values = values / part.tokens
    beta = values.new_full((len(values), 1), own_beta(loss)) if columns.beta is None else columns.beta[:, None]
    weights = {
        name: column[:, None]
        for name, column in (("desirable", columns.desirable), ("undesirable", columns.undesirable))
        if column is not None
    }
    plain: dict[str, Any] = {"gamma": 0.0, "sft_weight": 1.0, "desirable": 1.0, "undesirable": 1.0, **weights}
    kl = values.new_zeros(()) if columns.kl is None else columns.kl
    return Pairs(values[:, :1], values[:, 1:], part.tokens[:, :1], part.epsilon, beta, kl, **plain)


def checked(loss: Loss, losses: Tensor, pairs: Pairs) -> Tensor:
    """``[pairs]``. UserError for what a third party's loss may get wrong: shape, NaN, a lost gradient."""
    shape = list(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
    if shape != [len(pairs.chosen), 1]:
        raise UserError(f"loss {loss.label()!r} returned {shape}: want one value per pair, [{len(pairs.chosen)}, 1]")
    if not bool(losses.detach().isfinite().all()):
        row = int((~losses.detach().isfinite()).nonzero()[0, 0])
        raise UserError(f"loss {loss.label()!r} is not finite: {losses[row, 0].item()} for pair {row} of the pass")
    if pairs.chosen.requires_grad and not losses.requires_grad:
        raise UserError(f"loss {loss.label()!r} has no gradient: it must be computed from the pairs' rewards by torch")
    return losses[:, 0]
