"""What a tree of the forest may be for a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.forest import Limits
from rosepo_bench.engine.model.forest_model import ForestModel


def limits_of(model: ForestModel, budget: int) -> Limits:
    """What a tree for ``model`` may be, in passes of ``budget`` tokens. UserError where that is not even one."""
    if budget < 1:
        raise UserError(f"batch_tokens is {budget}: a pass takes 1 token or more; raise it (scoring.batch_tokens too)")
    square = model.square_cost or counted_square_cost(model.network)
    return Limits(model.context, model.vocabulary, budget, square)


def counted_square_cost(network: Any) -> float:
    """What attention between two tokens of a tree costs, in tokens through the body, by a count of floating-point
    operations: 4·layers·width for a pair, 2 a weight of the body for a token. The backward pass takes twice both, so
    the ratio is that of training too."""
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
