"""The readable twin of csrc/forest.cpp: the tree of a group, and the batch of trees, in plain Python."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from rosepo_bench.engine.forest import Tree


def build(group: Sequence[tuple[np.ndarray, np.ndarray]]) -> Tree:
    """The tree of (prompt, response) pairs.

    Sorted, every sequence shares a path with its predecessor up to their common prefix and adds nodes after it, so the
    order of creation is the depth-first order.
    """
    whole = [[*map(int, prompt), *map(int, response)] for prompt, response in group]
    # A last token is a target only: nothing follows it, unless another sequence goes on from there.
    inner = [ids[:-1] for ids in whole]
    tokens: list[int] = []
    depth: list[int] = []
    end: list[int] = []
    paths: dict[int, list[int]] = {}
    previous: list[int] = []
    path: list[int] = []
    for s in sorted(range(len(inner)), key=inner.__getitem__):
        shared = common(previous, inner[s])
        for node in path[shared:]:
            end[node] = len(tokens)
        path = [*path[:shared], *range(len(tokens), len(tokens) + len(inner[s]) - shared)]
        tokens += inner[s][shared:]
        depth += range(shared, len(inner[s]))
        end += [-1] * (len(inner[s]) - shared)
        previous, paths[s] = inner[s], path
    for node in path:
        end[node] = len(tokens)
    triples = [
        (paths[s][at - 1], whole[s][at], s)
        for s, (prompt, _) in enumerate(group)
        for at in range(len(prompt), len(whole[s]))
    ]
    node, target, sequence = (np.array(column) for column in zip(*triples, strict=True))
    return Tree(np.array(tokens), np.array(depth), np.array(end), node, target, sequence, len(group))


def common(a: list[int], b: list[int]) -> int:
    """Length of the common prefix."""
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return length


def collate(trees: Sequence[Tree]) -> dict[str, np.ndarray]:
    """The arrays of the batch: trees one after the other."""
    starts = [0, *itertools.accumulate(map(len, trees))]
    firsts = [0, *itertools.accumulate(tree.sequences for tree in trees)]
    nodes = np.concatenate([tree.node + start for tree, start in zip(trees, starts, strict=False)])
    rows, row_of_target = np.unique(nodes, return_inverse=True)
    return {
        "tokens": np.concatenate([tree.tokens for tree in trees]),
        "depth": np.concatenate([tree.depth for tree in trees]),
        "end": np.concatenate([tree.end + start for tree, start in zip(trees, starts, strict=False)]),
        "rows": rows,
        "row_of_target": row_of_target,
        "target": np.concatenate([tree.target for tree in trees]),
        "sequence": np.concatenate([tree.sequence + first for tree, first in zip(trees, firsts, strict=False)]),
    }
