"""Which trees share a forward pass, and what a tree costs.

Trees stand one after the other without padding and do not see each other, so that the cost of a pass does not depend
on which trees share it: the aim is few passes of about equal size. How a group is cut into trees does change the cost,
see :class:`rosepo_bench.engine.forest.Limits`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import torch

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.forest import Batch, Tree, collate


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of trees in passes of at most ``budget`` tokens, each tree once: few passes of about equal size.

    Longest first, each tree goes to the pass with the fewest tokens (Graham 1969); where the trees do not fit, more
    passes are tried. Deterministic. Raises UserError for a tree longer than the budget.
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
    """The passes of ``pack``: the indices of their trees, and the trees as a batch."""
    for chosen in pack([len(tree) for tree in trees], budget):
        yield chosen, collate([trees[t] for t in chosen], device=device)


def _spread(order: list[int], lengths: Sequence[int], budget: int, count: int) -> list[list[int]] | None:
    """The trees in ``count`` passes; None where they do not fit."""
    passes: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, number) for number in range(count)]
    for tree in order:
        load, number = loads[0]
        if load + lengths[tree] > budget:
            return None
        passes[number].append(tree)
        heapq.heapreplace(loads, (load + lengths[tree], number))
    return passes
