"""The token forest: tokens that several sequences begin with are computed once.

All sequences of a group (a prompt's chosen and rejected responses, its candidates, a user's steps) become one tree of
tokens laid out in depth-first order. A node has two integers: ``depth`` (its position) and ``end`` (the index after
its subtree). Node q sees node k where ``(k <= q) & (q < end[k])``: its ancestors and itself. The trees of a forward
pass stand one after the other in one row, without padding; by the same condition they never see each other.
Exact for decoders with absolute or rotary positions and causal attention, with or without a window.

Trees are built and laid out by csrc/forest*.cpp; which trees share a forward pass is decided in ``packing.py``.

Shape legend: T tokens of a tree or of all trees of a pass, P response tokens (predictions), R rows that predict.
"""

from __future__ import annotations

import functools
import importlib.machinery
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.ops import library

if TYPE_CHECKING:
    from jaxtyping import Int32, Int64

MODULE = Path(__file__).with_name(f"_forest{importlib.machinery.EXTENSION_SUFFIXES[0]}")

Tokens = np.ndarray  # of integers, one axis; an alias, so that jaxtyping is not needed at run time
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
    """One tree. Each response token is a triple ``(node, target, sequence)``: the log-prob of ``target`` at ``node``
    counts for ``sequence``, numbered from 0 within the tree."""

    tokens: Int32[np.ndarray, " T"]
    depth: Int64[np.ndarray, " T"]
    end: Int64[np.ndarray, " T"]
    node: Int64[np.ndarray, " P"]
    target: Int32[np.ndarray, " P"]
    sequence: Int64[np.ndarray, " P"]
    sequences: int

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Limits:
    """Limits of a tree. ``context``: most tokens of a prompt with its response. ``vocabulary``: token ids must be below
    it (0: unknown, unchecked). ``budget``: most tokens of a tree (0: unlimited). ``square``: a tree of T tokens costs
    T + square·T², and a group is cut into several trees where that is cheaper (0: never)."""

    context: int
    vocabulary: int = 0
    budget: int = 0
    square: float = 0.0


def build(group: Group, *, context: int, vocabulary: int = 0) -> Tree:
    """The tree of a group of (prompt, response) pairs of token ids, sequences in the group's order.

    Nodes are in depth-first order, children ordered by id; sequences with equal prefixes share those nodes. A
    sequence's last token is a target but not a node, unless another sequence continues after it. Raises UserError, with
    the sequence's number, for an empty prompt or response, an id that is negative or not below ``vocabulary`` (0:
    unknown, unchecked), and a sequence longer than ``context``, the number of positions that the model has.
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
    """The trees of many groups in one call, see ``build``; the GIL is released meanwhile.

    A group is one tree, or several trees of consecutive sequences where ``limits`` requires it; every ``unit``
    consecutive sequences stay in one tree. Raises UserError as ``build`` does, also for a unit that alone exceeds the
    budget and, with ``distinct``, for two equal sequences in a unit; messages name a sequence by ``name(group,
    sequence)``.
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
    """The trees of one forward pass as tensors, one after the other. ``rows`` are the nodes that predict a token, each
    once; ``row_of_target`` indexes ``rows``. ``longest``: tokens of the longest path, known without waiting for the
    device."""

    tokens: Int64[Tensor, " T"]
    depth: Int64[Tensor, " T"]
    end: Int64[Tensor, " T"]
    rows: Int64[Tensor, " R"]
    row_of_target: Int64[Tensor, " P"]
    target: Int64[Tensor, " P"]
    sequence: Int64[Tensor, " P"]
    sequences: int
    longest: int

    def __len__(self) -> int:
        return len(self.tokens)


def collate(trees: Sequence[Tree], *, device: str | torch.device = "cpu") -> Batch:
    """``trees`` as one batch, on ``device``. Sequences are in the order of the trees."""
    names = ("tokens", "depth", "end", "rows", "row_of_target", "target", "sequence")
    arrays = zip(names, native().collate(trees), strict=True)
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays}
    longest = max(int(tree.depth.max()) + 1 for tree in trees)
    return Batch(**tensors, sequences=sum(tree.sequences for tree in trees), longest=longest)
