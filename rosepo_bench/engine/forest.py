"""The token forest: sequences that share tokens are computed once.

All sequences of a group (a prompt's chosen and rejected responses, its candidates, a user's steps) become one tree of
tokens laid out in depth-first order. Two integers a node say everything: ``depth`` (its position) and ``end`` (the
index after its subtree); the attention mask is then ``(k <= q) & (q < end[k])``, a node sees its ancestors and itself.
Exact for decoders with absolute or rotary positions and full causal attention.

Shape legend: T tokens of a row, B rows, S sequences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rosepo_bench.errors import UserError

Tokens = np.ndarray  # int32 [length]


@dataclass(frozen=True)
class Tree:
    """One tree: ``tokens``, ``depth``, ``end`` [T]; a triple ``(node, target, sequence)`` for every response token: the
    log-prob of ``target`` at ``node`` belongs to ``sequence`` (its place in the group)."""

    tokens: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    node: np.ndarray
    target: np.ndarray
    sequence: np.ndarray
    sequences: int

    def __len__(self) -> int:
        return len(self.tokens)


def build(group: Sequence[tuple[Tokens, Tokens]], *, context: int) -> Tree:
    """The tree of a group of (prompt, response) pairs of token ids.

    Sorted, every sequence shares a path with its predecessor up to their common prefix and adds nodes after it, so the
    order of creation is the depth-first order. Raises UserError for an empty prompt or response and for a sequence
    longer than ``context``, the model's longest position.
    """
    whole = [_joined(prompt, response, context) for prompt, response in group]
    # A last token is a target only: nothing follows it, unless another sequence goes on from there.
    inner = [ids[:-1] for ids in whole]
    # Big-endian bytes sort as the ids do; ids are never negative.
    order = sorted(range(len(inner)), key=lambda s: inner[s].astype(">u4").tobytes())
    tokens, depth, paths = [], [], {}
    end = np.zeros(sum(map(len, inner)), dtype=np.int64)
    previous, path, count = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64), 0
    for s in order:
        shared = _common(previous, inner[s])
        fresh = len(inner[s]) - shared
        end[path[shared:]] = count
        tokens.append(inner[s][shared:])
        depth.append(np.arange(shared, len(inner[s])))
        path = np.concatenate([path[:shared], np.arange(count, count + fresh)])
        previous, paths[s], count = inner[s], path, count + fresh
    end[path] = count
    node, target, sequence = _triples(group, whole, paths)
    return Tree(np.concatenate(tokens), np.concatenate(depth), end[:count], node, target, sequence, len(group))


def _joined(prompt: Tokens, response: Tokens, context: int) -> Tokens:
    if len(prompt) == 0 or len(response) == 0:
        raise UserError("a sequence needs a prompt and a response of at least one token each")
    if len(prompt) + len(response) > context:
        raise UserError(
            f"a prompt of {len(prompt)} tokens with a response of {len(response)} is longer than the model's "
            f"context of {context}; shorten prompt.history or raise model.context"
        )
    return np.concatenate([prompt, response]).astype(np.int32)


def _common(a: Tokens, b: Tokens) -> int:
    """Length of the common prefix."""
    length = min(len(a), len(b))
    differs = np.flatnonzero(a[:length] != b[:length])
    return int(differs[0]) if len(differs) else length


def _triples(
    group: Sequence[tuple[Tokens, Tokens]], whole: list[Tokens], paths: dict[int, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    starts = [len(prompt) for prompt, _ in group]
    node = np.concatenate([paths[s][starts[s] - 1 :] for s in range(len(group))])
    target = np.concatenate([whole[s][starts[s] :] for s in range(len(group))])
    sequence = np.repeat(np.arange(len(group)), [len(whole[s]) - starts[s] for s in range(len(group))])
    return node, target, sequence


@dataclass(frozen=True)
class Batch:
    """Rows of trees as tensors. ``tokens``, ``depth``, ``end`` [B, T]; ``rows`` [R] are the flat positions (b·T + t)
    that predict something, each once; per response token ``row_of_target`` (into ``rows``), ``target`` and
    ``sequence``."""

    tokens: Tensor
    depth: Tensor
    end: Tensor
    rows: Tensor
    row_of_target: Tensor
    target: Tensor
    sequence: Tensor
    sequences: int
    nodes: int

    def mask(self) -> Tensor:
        """bool ``[B, 1, T, T]``: which keys a query sees."""
        index = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        query, key = index[:, None], index[None, :]
        return ((key <= query) & (query < self.end[:, None, :]))[:, None]


def collate(trees: Sequence[Tree], *, row_tokens: int = 0, device: str | torch.device = "cpu") -> Batch:
    """Trees into one batch: rows of up to ``row_tokens`` (0: one tree a row), padded to the longest.

    The sequences keep the order of ``trees``: those of the first tree come first. Padding sees itself alone and
    predicts nothing.
    """
    rows = _rows([len(tree) for tree in trees], row_tokens)
    width = max(sum(len(trees[t]) for t in row) for row in rows)
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    depth = np.zeros_like(tokens)
    end = np.broadcast_to(np.arange(1, width + 1), tokens.shape).copy()
    flat = [np.zeros(0, dtype=np.int64)] * len(trees)
    for b, row in enumerate(rows):
        start = 0
        for t in row:
            tree, stop = trees[t], start + len(trees[t])
            tokens[b, start:stop], depth[b, start:stop] = tree.tokens, tree.depth
            end[b, start:stop] = tree.end + start
            flat[t] = tree.node + b * width + start
            start = stop
    offsets = np.cumsum([0] + [tree.sequences for tree in trees])
    positions, row_of_target = np.unique(np.concatenate(flat), return_inverse=True)
    arrays = {
        "tokens": tokens,
        "depth": depth,
        "end": end,
        "rows": positions,
        "row_of_target": row_of_target,
        "target": np.concatenate([tree.target for tree in trees]),
        "sequence": np.concatenate([tree.sequence + offsets[t] for t, tree in enumerate(trees)]),
    }
    tensors = {name: torch.from_numpy(np.asarray(array, dtype=np.int64)).to(device) for name, array in arrays.items()}
    return Batch(**tensors, sequences=int(offsets[-1]), nodes=sum(map(len, trees)))


def _rows(lengths: list[int], row_tokens: int) -> list[list[int]]:
    """First fit, longest first: which trees share a row."""
    if row_tokens <= 0:
        return [[t] for t in range(len(lengths))]
    rows: list[list[int]] = []
    room: list[int] = []
    for t in sorted(range(len(lengths)), key=lambda t: (-lengths[t], t)):
        fits = next((r for r, left in enumerate(room) if left >= lengths[t]), None)
        if fits is None:
            rows.append([])
            room.append(max(row_tokens, lengths[t]))
            fits = len(rows) - 1
        rows[fits].append(t)
        room[fits] -= lengths[t]
    return rows


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of trees, shortest first, in batches whose padded size (rows times the longest) stays within
    ``budget``."""
    chosen: list[int] = []
    for t in sorted(range(len(lengths)), key=lambda t: (lengths[t], t)):
        if chosen and (len(chosen) + 1) * lengths[t] > budget:
            yield chosen
            chosen = []
        chosen.append(t)
    if chosen:
        yield chosen
