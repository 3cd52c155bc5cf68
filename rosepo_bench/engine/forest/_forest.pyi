from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Int32, Int64

from rosepo_bench.engine.forest import Group, Tree

def build(
    groups: Iterable[Group],
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
    Int32[np.ndarray, " T"],  # tokens
    Int64[np.ndarray, " T"],  # depth
    Int64[np.ndarray, " T"],  # end
    Int64[np.ndarray, " P"],  # node
    Int32[np.ndarray, " P"],  # target
    Int64[np.ndarray, " P"],  # sequence
]: ...
def collate(trees: Sequence[Tree]) -> tuple[Int64[np.ndarray, " _"], ...]: ...
