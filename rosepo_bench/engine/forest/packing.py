"""Which trees share a forward pass, and what a tree costs.

Trees stand one after the other without padding and see nothing of each other, so what a pass costs does not depend on
who shares it: passes are few and alike. Only where a group is cut into trees is a matter of cost, see
:class:`rosepo_bench.engine.forest.Limits`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import torch

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.forest import Batch, Tree, collate


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Every tree once, in passes of at most ``budget`` tokens: few of them, with about as many tokens each.

    Longest first, each tree to the pass that has the fewest tokens (Graham 1969); one pass more where that does not
    fit. Deterministic. Raises UserError for a tree longer than the budget.
    """
    order = sorted(range(len(lengths)), key=lambda tree: (-lengths[tree], tree))
    if order and lengths[order[0]] > budget:
        raise UserError(
            f"tree {order[0]} has {lengths[order[0]]} tokens, a pass takes {budget}: raise batch_tokens (in scoring, "
            "scoring.batch_tokens)"
        )
    count = -(-sum(lengths) // budget)
    while (passes := _spread(order, lengths, budget, count)) is None:
        count += 1 + count // 16
    return [sorted(trees) for trees in passes]


def batches(trees: Sequence[Tree], budget: int, device: torch.device) -> Iterator[tuple[list[int], Batch]]:
    """The passes of ``pack``: the places of their ``trees``, and these as a batch."""
    for chosen in pack([len(tree) for tree in trees], budget):
        yield chosen, collate([trees[t] for t in chosen], device=device)


def _spread(order: list[int], lengths: Sequence[int], budget: int, count: int) -> list[list[int]] | None:
    """``count`` passes; None where the trees do not fit into so few."""
    passes: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, number) for number in range(count)]
    for tree in order:
        load, number = loads[0]
        if load + lengths[tree] > budget:
            return None
        passes[number].append(tree)
        heapq.heapreplace(loads, (load + lengths[tree], number))
    return passes
