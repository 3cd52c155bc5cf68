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


def collate(trees: Sequence[Tree], rows: Sequence[int]) -> dict[str, np.ndarray]:
    """The arrays of the batch in which the first ``rows[0]`` trees share the first row, and so on."""
    places = [0, *np.cumsum(rows)]
    members = [list(trees[a:b]) for a, b in itertools.pairwise(places)]
    width = max(sum(map(len, row)) for row in members)
    tokens, depth = np.zeros((2, len(rows), width), dtype=int)
    end = np.tile(np.arange(1, width + 1), (len(rows), 1))
    flat, target, sequence, sequences = [], [], [], 0
    for b, row in enumerate(members):
        start = 0
        for tree in row:
            here = slice(start, start + len(tree))
            tokens[b, here], depth[b, here], end[b, here] = tree.tokens, tree.depth, tree.end + start
            flat += (tree.node + start + b * width).tolist()
            target += tree.target.tolist()
            sequence += (tree.sequence + sequences).tolist()
            start, sequences = start + len(tree), sequences + tree.sequences
    positions, row_of_target = np.unique(flat, return_inverse=True)
    return {
        "tokens": tokens,
        "depth": depth,
        "end": end,
        "rows": positions,
        "row_of_target": row_of_target,
        "target": np.array(target),
        "sequence": np.array(sequence),
    }
