"""Which trees share a forward pass, and which of them a row: the cheapest by a cost model, within a budget of tokens.

A row of T tokens costs ``T + square·T²``: every token goes through the body's weights, and the dense mask makes
attention grow with the square; a pass costs ``fixed`` on top. The unit is one token through the body. So short trees
share rows where padding would cost more than the attention between them, long ones keep rows of their own, and trees
of different lengths go into different passes where the padding saved is worth a pass.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from rosepo_bench.engine.forest import Limits, build, collate, native
from rosepo_bench.errors import UserError

if TYPE_CHECKING:
    from rosepo_bench.engine.model import LanguageModel

# What a pass costs before its first token, in floating-point operations a layer: what the device could have computed
# while it was kept busy with small things. CPU: measured on one AVX-512 core (2.3 ms for three layers of the demo's
# model). CUDA: an estimate from launch times (40 kernels of 5 µs, 250 TFLOP/s), not measured.
PASS_FLOPS = {"cpu": 6e7, "cuda": 5e10}


@dataclass(frozen=True)
class Cost:
    """A row of T tokens costs ``T + square·T²``, a pass ``fixed`` more, in tokens through the body."""

    square: float
    fixed: float

    def of(self, rows: int, width: int) -> float:
        """A pass of ``rows`` rows of ``width`` tokens."""
        return self.fixed + rows * (width + self.square * width**2)


class Pass(NamedTuple):
    """One forward pass: ``trees`` in order, the first ``rows[0]`` of them in its first row and so on."""

    trees: list[int]
    rows: list[int]


def pack(lengths: Sequence[int], budget: int, cost: Cost) -> list[Pass]:
    """Every tree once, in passes of at most ``budget`` padded tokens (rows times the longest row), longest trees first.

    Deterministic. Raises UserError for a tree longer than the budget.
    """
    longest = max(range(len(lengths)), key=lengths.__getitem__, default=0)
    if lengths and lengths[longest] > budget:
        raise UserError(
            f"tree {longest} has {lengths[longest]} tokens, a pass takes {budget}: raise batch_tokens (in scoring, "
            "scoring.batch_tokens)"
        )
    made = native().pack(lengths, budget=budget, square=cost.square, fixed=cost.fixed)
    return [Pass(trees, rows) for trees, rows in made]


def limits_of(model: LanguageModel, budget: int) -> Limits:
    """What a tree for ``model`` may be, in passes of ``budget`` tokens. UserError where that is not even one."""
    if budget < 1:
        raise UserError(f"batch_tokens is {budget}: a pass takes 1 token or more; raise it (scoring.batch_tokens too)")
    return Limits(model.context, model.network.get_input_embeddings().num_embeddings, budget, cost_of(model).square)


def cost_of(model: LanguageModel) -> Cost:
    """The cost of ``model``'s passes: as it was given, else counted from its shape."""
    given, counted = model.cost or Cost(0.0, 0.0), counted_cost(model.network, model.device)
    return Cost(given.square or counted.square, given.fixed or counted.fixed)


def counted_cost(network: Any, device: torch.device) -> Cost:
    """By a count of floating-point operations: 2 a weight of the body for a token, 4·layers·width for a pair of tokens
    in attention. The backward pass takes twice both, so the ratio is that of training too."""
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
    return Cost(attention / body, shape.num_hidden_layers * PASS_FLOPS[device.type] / body)


def measured_cost(model: LanguageModel, tokens: int, *, repeats: int = 5) -> Cost:
    """By timing training passes of up to ``tokens`` random tokens: the least-squares fit, relative errors, through the
    median times.

    Interleaved, gradients thrown away; half a minute for the demo's model. Timings differ from run to run: put what it
    finds into ``model.square_cost`` and ``model.pass_cost``, and runs pack alike. Raises UserError where the times make
    no sense.
    """
    longest = min(model.context, tokens, 1024)
    widths = (longest, longest // 2, longest // 8)
    shapes = [(rows, width) for width in widths for rows in (1, max(1, tokens // (4 * width)), tokens // width)]
    draw, size = np.random.default_rng(0), model.network.get_input_embeddings().num_embeddings
    batches = []
    for rows, width in shapes:
        ids = draw.integers(0, size, (rows, width + 1))
        trees = [build([(row[:-2], row[-2:])], context=width + 1) for row in ids]
        batches.append(collate(trees, device=model.device))
    seconds = np.array([[_seconds(model, batch) for batch in batches] for _ in range(repeats + 1)])[1:]
    terms = np.array([[1, rows * width, rows * width**2] for rows, width in shapes], dtype=float)
    median = np.median(seconds, axis=0)
    fixed, token, square = np.linalg.lstsq(terms / median[:, None], np.ones(len(shapes)), rcond=None)[0]
    if token <= 0:
        raise UserError("the times of passes do not grow with their tokens: the machine is too busy to measure")
    return Cost(max(float(square / token), 0.0), max(float(fixed / token), 0.0))


def _seconds(model: LanguageModel, batch: Any) -> float:
    """One forward and backward pass."""
    _wait(model)
    began = time.perf_counter()
    model.logps(batch).sum().backward()
    _wait(model)
    model.network.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def _wait(model: LanguageModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
