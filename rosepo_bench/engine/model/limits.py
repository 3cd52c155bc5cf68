"""The limits of a forest's trees for a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.forest import Limits
from rosepo_bench.engine.model.forest_model import ForestModel


def limits_of(model: ForestModel, budget: int) -> Limits:
    """The limits of trees for ``model`` in passes of ``budget`` tokens. UserError for a budget below 1."""
    if budget < 1:
        raise UserError(f"batch_tokens is {budget}: a pass takes 1 token or more; raise it (scoring.batch_tokens too)")
    square = model.square_cost or counted_square_cost(model.network)
    return Limits(model.context, model.vocabulary, budget, square)


def counted_square_cost(network: Any) -> float:
    """The cost of attention between two tokens of a tree, in units of one token's pass through the body, by counting
    floating-point operations: 4·layers·width per pair of tokens, 2 per weight of the body per token. The backward pass
    doubles both, so that the ratio also holds for training."""
    shape = network.config
    head = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    attention = 4 * shape.num_hidden_layers * shape.num_attention_heads * head
    body = 2 * sum(
        weight.numel()
        for module in network.base_model.modules()
        if not isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
        if weight.dim() > 1
    )
    return attention / body
