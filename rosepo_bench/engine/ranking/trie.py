"""The catalogue's titles as one trie of tokens, on which rankings of the whole catalogue work.

Nodes are numbered in depth-first order, as in the forest: node ``k`` is ``q`` or an ancestor of it where
``k <= q < end[k]``. Node 0 is the root: the prompt's last token, which predicts the titles' first tokens.

Shape legend: N nodes, I items, F given nodes, E children of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int, Int64

from rosepo_bench.base.errors import UserError


@dataclass(frozen=True)
class Trie:
    """For each node ``token`` (the root's is -1), ``depth`` (tokens of the title so far), ``end`` (the node after the
    subtree), ``parent`` (the root's is -1), ``longest`` (tokens of the longest title in the subtree) and ``run`` (the
    node after the chain that starts here, of only children that have children themselves).

    The children of a node n are ``child[child_start[n] : child_start[n + 1]]``; the items whose titles end at it are
    ``item[item_start[n] : item_start[n + 1]]``, in ascending order. ``leaf[i]`` is the node where item i's title ends
    and ``lengths[i]`` its number of tokens, end token included.
    """

    token: Int64[np.ndarray, " N"]
    depth: Int64[np.ndarray, " N"]
    end: Int64[np.ndarray, " N"]
    parent: Int64[np.ndarray, " N"]
    longest: Int64[np.ndarray, " N"]
    run: Int64[np.ndarray, " N"]
    child: Int64[np.ndarray, " N-1"]
    child_start: Int64[np.ndarray, " N+1"]
    item: Int64[np.ndarray, " I"]
    item_start: Int64[np.ndarray, " N+1"]
    leaf: Int64[np.ndarray, " I"]
    lengths: Int64[np.ndarray, " I"]

    def __len__(self) -> int:
        return len(self.token)

    @property
    def items(self) -> int:
        return len(self.leaf)

    @cached_property
    def has_children(self) -> Bool[np.ndarray, " N"]:
        """Whether a node has children."""
        return np.diff(self.child_start) > 0

    @cached_property
    def has_items(self) -> Bool[np.ndarray, " N"]:
        """Whether a title ends at a node."""
        return np.diff(self.item_start) > 0

    @cached_property
    def goes_on(self) -> Bool[np.ndarray, " N"]:
        """Whether a child of a node has children itself: it sees the node when it is read."""
        found = np.zeros(len(self), dtype=bool)
        found[self.parent[self.inner]] = True
        return found

    @property
    def inner(self) -> Int64[np.ndarray, " inner"]:
        """The nodes that a model has to read: those with children, except the root, which is the prompt's token."""
        return 1 + np.flatnonzero(self.has_children[1:])

    def children(self, nodes: Int64[np.ndarray, " F"]) -> tuple[Int64[np.ndarray, " E"], Int64[np.ndarray, " E"]]:
        """The children of ``nodes``, node by node, and for each child the index of its parent in ``nodes``."""
        counts = self.child_start[nodes + 1] - self.child_start[nodes]
        place = np.repeat(np.arange(len(nodes)), counts)
        first = np.cumsum(counts) - counts
        return self.child[np.arange(len(place)) + (self.child_start[nodes] - first)[place]], place

    def ended(self, node: int) -> Int64[np.ndarray, " ended"]:
        """The items whose titles end at ``node``."""
        return self.item[self.item_start[node] : self.item_start[node + 1]]


def build(titles: Sequence[Int[np.ndarray, " _"]]) -> Trie:
    """The trie of ``titles``, each its token ids with the end token; items with equal titles share a node.

    UserError for no title, an empty one, or a negative id.
    """
    lengths = np.array([len(title) for title in titles], dtype=np.int64)
    if not len(titles) or not lengths.all() or min(int(title.min()) for title in titles) < 0:
        raise UserError("a catalogue needs titles of at least one token each, with ids of 0 or more")
    # As big-endian bytes, titles sort like their ids.
    order = np.array(sorted(range(len(titles)), key=lambda i: titles[i].astype(">u4").tobytes()))
    padded = np.full((len(titles), int(lengths.max())), -1, dtype=np.int64)
    for place, i in enumerate(order):
        padded[place, : lengths[i]] = titles[i]
    same = (padded[1:] == padded[:-1]) & (padded[1:] >= 0)
    shared = np.concatenate([[0], same.cumprod(axis=1).sum(axis=1)])
    # In sorted order each title adds nodes only after the prefix that it shares with the title before: nodes are made
    # in depth-first order, and the last node made is where the title ends.
    fresh = lengths[order] - shared
    stops = 1 + np.cumsum(fresh)
    owner = np.repeat(np.arange(len(titles)), fresh)
    depth = np.concatenate([[0], np.arange(1, len(owner) + 1) - (stops - fresh)[owner] + shared[owner] + 1])
    token = np.concatenate([[-1], padded[owner, depth[1:] - 1]])
    leaf = np.empty(len(titles), dtype=np.int64)
    leaf[order] = stops - 1
    return _linked(token, depth, leaf, lengths)


def _linked(
    token: Int64[np.ndarray, " N"],
    depth: Int64[np.ndarray, " N"],
    leaf: Int64[np.ndarray, " I"],
    lengths: Int64[np.ndarray, " I"],
) -> Trie:
    """The trie of nodes given in depth-first order."""
    nodes = len(token)
    end, parent, longest = np.full(nodes, nodes), np.full(nodes, -1), depth.copy()
    for d in range(int(depth.max()), 0, -1):
        level, above = np.flatnonzero(depth == d), np.flatnonzero(depth == d - 1)
        bounds = np.append(np.flatnonzero(depth <= d), nodes)
        end[level] = bounds[np.searchsorted(bounds, level, side="right")]
        parent[level] = above[np.searchsorted(above, level) - 1]
        np.maximum.at(longest, parent[level], longest[level])
    children = np.bincount(parent[1:], minlength=nodes)
    ending = np.bincount(leaf, minlength=nodes)
    # An only child follows its parent directly, so that chains are slices; these are the last nodes of chains.
    last = np.flatnonzero((children != 1) | (np.append(children[1:], 0) == 0))
    return Trie(
        token=token,
        depth=depth,
        end=end,
        parent=parent,
        longest=longest,
        run=1 + last[np.searchsorted(last, np.arange(nodes))],
        child=1 + np.argsort(parent[1:], kind="stable"),
        child_start=np.concatenate([[0], np.cumsum(children)]),
        item=np.argsort(leaf, kind="stable"),
        item_start=np.concatenate([[0], np.cumsum(ending)]),
        leaf=leaf,
        lengths=lengths,
    )
