"""The token forest: sequences that share tokens are computed once.

All sequences of a group (a prompt's chosen and rejected responses, its candidates, a user's steps) become one tree of
tokens laid out in depth-first order. Two integers a node say everything: ``depth`` (its position) and ``end`` (the
index after its subtree); node q sees node k where ``(k <= q) & (q < end[k])``, its ancestors and itself. The trees of a
forward pass stand one after the other in one row, without padding, and never see each other by the same line.
Exact for decoders with absolute or rotary positions and causal attention, with or without a window.

Trees are built and laid out by csrc/forest*.cpp; which trees share a forward pass is decided in ``packing.py``.

Shape legend: T tokens of all trees of a pass, R rows that predict, S sequences.
"""

from __future__ import annotations

import functools
import importlib.machinery
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.ops import library

MODULE = Path(__file__).with_name(f"_forest{importlib.machinery.EXTENSION_SUFFIXES[0]}")

Tokens = np.ndarray  # integers [length]
Group = Iterable[tuple[Tokens, Tokens]]


def build_id() -> str:
    """The build id of the compiled module. Raises UserError where it is missing or stale."""
    return library.verify(MODULE, library.checkout())


@functools.cache
def native() -> ModuleType:
    """The compiled module. Raises UserError where it is missing or stale, or does not load."""
    build_id()
    try:
        from rosepo_bench.engine.forest import _forest
    except ImportError as error:
        raise UserError(f"{MODULE} does not load: {error}") from error
    return _forest


@dataclass(frozen=True)
class Tree:
    """One tree: ``tokens``, ``depth``, ``end`` [T]; a triple ``(node, target, sequence)`` for every response token: the
    log-prob of ``target`` at ``node`` belongs to ``sequence`` (its place in the tree's part of the group)."""

    tokens: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    node: np.ndarray
    target: np.ndarray
    sequence: np.ndarray
    sequences: int

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Limits:
    """What a tree may be. ``context``: longest prompt with its response. ``vocabulary``: token ids are below it; 0: not
    known. ``budget``: most tokens of a tree; 0: any number. ``square``: a tree of T tokens costs T + square·T², and a
    group is cut into several trees where that is cheaper; 0: it never is."""

    context: int
    vocabulary: int = 0
    budget: int = 0
    square: float = 0.0


def build(group: Group, *, context: int, vocabulary: int = 0) -> Tree:
    """The tree of a group of (prompt, response) pairs of token ids, sequences in the group's order.

    Nodes are in depth-first order, children by their ids; equal prefixes are the same nodes. A last token is a target
    and no node, unless another sequence goes on from there. Raises UserError, with the sequence's number, for an empty
    prompt or response, an id that is negative or not below ``vocabulary`` (0: not known), and a sequence longer than
    ``context``, the model's longest position.
    """
    limits = Limits(context, vocabulary)
    ((tree,),) = build_all([group], limits, name=lambda _, sequence: f"sequence {sequence}")
    return tree


def build_all(
    groups: Iterable[Group],
    limits: Limits,
    *,
    unit: int = 1,
    distinct: bool = False,
    name: Callable[[int, int], str] = lambda group, sequence: f"sequence {sequence} of group {group}",
) -> list[list[Tree]]:
    """The trees of many groups in one call, see ``build``; the GIL is free meanwhile.

    A group is one tree, or several of consecutive sequences where ``limits`` asks for it; every ``unit`` consecutive
    sequences stay in one tree. Raises UserError as ``build`` does, also for a unit alone over the budget and, where
    ``distinct``, for two equal sequences in a unit; ``name(group, sequence)`` is what the message calls a sequence.
    """
    counts, sequences, nodes, triples, tokens, depth, end, node, target, sequence = native().build(
        groups,
        context=limits.context,
        vocabulary=limits.vocabulary,
        budget=limits.budget,
        square=limits.square,
        unit=unit,
        distinct=distinct,
        name=name,
    )
    spans = zip(itertools.pairwise(nodes), itertools.pairwise(triples), sequences, strict=True)
    trees: Iterator[Tree] = (
        Tree(tokens[a:b], depth[a:b], end[a:b], node[c:d], target[c:d], sequence[c:d], count)
        for (a, b), (c, d), count in spans
    )
    return [list(itertools.islice(trees, count)) for count in counts]


@dataclass(frozen=True)
class Batch:
    """The trees of one forward pass as tensors, one after the other: ``tokens``, ``depth``, ``end`` [T]; ``rows`` [R]
    are the nodes that predict something, each once; per response token ``row_of_target`` (into ``rows``), ``target``
    and ``sequence``. ``longest``: tokens of the longest path, known
    without waiting for the device."""

    tokens: Tensor
    depth: Tensor
    end: Tensor
    rows: Tensor
    row_of_target: Tensor
    target: Tensor
    sequence: Tensor
    sequences: int
    longest: int

    def __len__(self) -> int:
        return len(self.tokens)


def collate(trees: Sequence[Tree], *, device: str | torch.device = "cpu") -> Batch:
    """Trees into one batch. The sequences keep the order of ``trees``: those of the first tree come first."""
    names = ("tokens", "depth", "end", "rows", "row_of_target", "target", "sequence")
    arrays = zip(names, native().collate(trees), strict=True)
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays}
    longest = max(int(tree.depth.max()) + 1 for tree in trees)
    return Batch(**tensors, sequences=sum(tree.sequences for tree in trees), longest=longest)
