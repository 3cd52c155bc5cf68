from collections.abc import Callable, Iterable, Sequence

import numpy as np

from rosepo_bench.engine.forest import Tree

def build(
    groups: Iterable[Iterable[tuple[np.ndarray, np.ndarray]]],
    *,
    context: int,
    vocabulary: int,
    budget: int,
    square: float,
    unit: int,
    distinct: bool,
    name: Callable[[int, int], str],
) -> tuple[
    list[int],  # trees of each group
    list[int],  # sequences of each tree
    list[int],  # where each tree's nodes end, from 0
    list[int],  # where each tree's triples end, from 0
    np.ndarray,  # tokens
    np.ndarray,  # depth
    np.ndarray,  # end
    np.ndarray,  # node
    np.ndarray,  # target
    np.ndarray,  # sequence
]: ...
def collate(trees: Sequence[Tree]) -> tuple[np.ndarray, ...]: ...
