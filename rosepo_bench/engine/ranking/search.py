"""The exact best K titles of the catalogue without reading most of it: best-first search of the title trie.

A prefix's summed log-prob is an upper bound of the sums of all titles below it; divided by the number of tokens of the
longest of them, it is an upper bound of their means (log-probs are never positive). Nodes are read in the order of that
bound until K titles beat all bounds that are left.

Shape legend: B prompts, F nodes read in a round, E children of them, d width.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, Shaped
from torch import Tensor

from rosepo_bench.base import progress
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.ranking.prefix import prompt_batches, token_logps
from rosepo_bench.engine.ranking.result import Ranking
from rosepo_bench.engine.ranking.trie import Trie
from rosepo_bench.engine.ranking.trie_reader import TrieReader, check, is_mean, left_out

# Least and most nodes read in a round for each prompt: fewer nodes mean less needless reading, more mean fewer rounds.
# A long search reads a fixed share (1/4) of what it has read so far.
STEP, MOST = 24, 128
# A chain of only children is read together with its first node: most titles soon share their prefix with no other, and
# a model that knows them gives the rest of such a title a probability near 1. After PATIENCE[0] + PATIENCE[1]·k nodes
# the model evidently does not, and the search reads chains by PIECE nodes.
PATIENCE, PIECE = (64, 24), 2


class TitleSearch(ABC):
    """One prompt's search: the summed log-probs of the nodes so far, and the best ``k`` titles among them."""

    def __init__(self, trie: Trie, k: int, score: str, excluded: frozenset[int]) -> None:
        self.trie, self.k, self.mean, self.excluded = trie, k, is_mean(score), excluded
        self.sums = {0: 0.0}
        self.best: list[tuple[float, int]] = []  # a heap of scores and negated items: the worst is on top
        self.visited = 0

    @property
    def threshold(self) -> float:
        """What a title must reach to be among the best ``k``."""
        return self.best[0][0] if len(self.best) == self.k else -np.inf

    def expand(
        self, nodes: Int64[np.ndarray, " F"], children: Int64[np.ndarray, " E"], logps: Float64[np.ndarray, " E"]
    ) -> None:
        """Takes the log-probs of the ``children`` of ``nodes``; in ``nodes`` parents come before children."""
        trie, inside = self.trie, set(nodes.tolist())
        self.visited += len(nodes) - (0 in inside)  # the root is the prompt's own last token
        longest = trie.longest[children] if self.mean else np.ones_like(children)
        facts = (children, trie.parent[children], longest, trie.has_children[children], trie.has_items[children], logps)
        for child, parent, tokens, inner, ends, logp in zip(*(fact.tolist() for fact in facts), strict=True):
            total = self.sums[parent] + logp
            if ends:
                self._offer(child, total)
            if inner:
                self.sums[child] = total
                if child not in inside:
                    self.open(total / tokens, child)

    @abstractmethod
    def open(self, bound: float, node: int) -> None:
        """Takes a node that may be read later; no title below it scores more than ``bound``."""

    @abstractmethod
    def next(self) -> tuple[Int64[np.ndarray, " F"], Bool[np.ndarray, " F"]]:
        """The nodes to read now (none: the search is over), and whether descendants of each may be read later."""

    def _offer(self, node: int, total: float) -> None:
        for item in self.trie.ended(node).tolist():
            if item not in self.excluded:
                entry = (total / int(self.trie.lengths[item]) if self.mean else total, -item)
                push = heapq.heappush if len(self.best) < self.k else heapq.heappushpop
                push(self.best, entry)


class BestFirst(TitleSearch):
    """Reads the node with the highest bound first, and ends when no bound reaches the ``k``-th best title."""

    def __init__(self, trie: Trie, k: int, score: str, excluded: frozenset[int]) -> None:
        super().__init__(trie, k, score, excluded)
        self.frontier: list[tuple[float, int]] = []

    def open(self, bound: float, node: int) -> None:
        heapq.heappush(self.frontier, (-bound, node))

    def next(self) -> tuple[Int64[np.ndarray, " F"], Bool[np.ndarray, " F"]]:
        nodes: list[int] = []
        stays: list[bool] = []
        step, patience = min(max(STEP, self.visited // 4), MOST), PATIENCE[0] + PATIENCE[1] * self.k
        while self.frontier and len(nodes) < step and -self.frontier[0][0] >= self.threshold:
            _, node = heapq.heappop(self.frontier)
            stop = int(self.trie.run[node])
            if self.visited > patience:
                stop = min(stop, node + PIECE)
            nodes.extend(range(node, stop))
            # All nodes below a chain are below its last node.
            stays.extend([bool(self.trie.goes_on[stop - 1])] * (stop - node))
        return np.array(nodes, dtype=np.int64), np.array(stays, dtype=bool)


def rank_best_first(
    model: LanguageModel,
    trie: Trie,
    prompts: Sequence[Int[np.ndarray, " _"]],
    *,
    k: int,
    score: str,
    batch_tokens: int,
    label: str,
    exclude: Sequence[Int[np.ndarray, " _"]] | None = None,
) -> Ranking:
    """The ranking of ``catalogue.rank_all``, except for the order of scores that are equal within rounding. Arguments
    and errors as there."""

    def begin(excluded: frozenset[int]) -> TitleSearch:
        return BestFirst(trie, k, score, excluded)

    return ranked(model, trie, prompts, begin, k=k, room=MOST, batch_tokens=batch_tokens, label=label,
                  exclude=exclude)  # fmt: skip


def ranked(
    model: LanguageModel,
    trie: Trie,
    prompts: Sequence[Int[np.ndarray, " _"]],
    begin: Callable[[frozenset[int]], TitleSearch],
    *,
    k: int,
    room: int,
    batch_tokens: int,
    label: str,
    exclude: Sequence[Int[np.ndarray, " _"]] | None,
) -> Ranking:
    """The ranking by the search that ``begin`` makes for each prompt from its excluded items; ``room``: about the most
    nodes that a round reads for a prompt."""
    excluded = left_out(trie, prompts, k, exclude)
    check(model, trie, prompts)
    items, scores = np.full((len(prompts), k), -1), np.full((len(prompts), k), -np.inf)
    visited, done = np.zeros(len(prompts), dtype=np.int64), 0
    for rows in prompt_batches(prompts, room, batch_tokens):
        searches = [begin(excluded[row]) for row in rows]
        _run(model, trie, [prompts[row] for row in rows], searches)
        for row, search in zip(rows, searches, strict=True):
            for place, (value, item) in enumerate(sorted(search.best, reverse=True)):
                items[row, place], scores[row, place] = -item, value
            visited[row] = search.visited
        done += len(rows)
        progress.advance(label, done, len(prompts))
    return Ranking(items, scores, visited, len(trie.inner))


@torch.no_grad()
def _run(
    model: LanguageModel, trie: Trie, prompts: Sequence[Int[np.ndarray, " _"]], searches: list[TitleSearch]
) -> None:
    """Runs the searches of a batch to their end, with one model call per round for all that are still open."""
    reader = TrieReader(model, trie, prompts)
    states, wanted = reader.prompts.hidden[:, None], [np.zeros(1, dtype=np.int64)] * len(searches)
    while searches:
        _expand(model, trie, searches, wanted, states)
        coming = [search.next() for search in searches]
        still = np.flatnonzero([len(nodes) for nodes, _ in coming])
        if len(still) < len(searches):
            searches, coming = [searches[row] for row in still], [coming[row] for row in still]
            reader.select(still)
        if searches:
            wanted, stays = [nodes for nodes, _ in coming], [stay for _, stay in coming]
            states = reader.extend(_padded(wanted, len(trie)), _padded(stays, False))


def _expand(
    model: LanguageModel,
    trie: Trie,
    searches: list[TitleSearch],
    wanted: list[Int64[np.ndarray, " _"]],
    states: Float[Tensor, "B F d"],
) -> None:
    """Gives each search the log-probs of the children of the nodes that it ``wanted``; ``states`` are in their
    order."""
    rows = np.repeat(np.arange(len(wanted)), [len(nodes) for nodes in wanted])
    place = np.concatenate([np.arange(len(nodes)) for nodes in wanted])
    hidden = states[torch.from_numpy(rows).to(states.device), torch.from_numpy(place).to(states.device)]
    children, parent = trie.children(np.concatenate(wanted))
    logps = token_logps(model, hidden, parent, trie.token[children])
    cuts = np.searchsorted(rows[parent], np.arange(1, len(wanted)))
    parts = zip(searches, wanted, np.split(children, cuts), np.split(logps, cuts), strict=True)
    for search, nodes, found, values in parts:
        search.expand(nodes, found, values)


def _padded(parts: Sequence[Shaped[np.ndarray, " _"]], fill: int) -> Shaped[np.ndarray, "B F"]:
    padded = np.full((len(parts), max(map(len, parts))), fill)
    for row, part in enumerate(parts):
        padded[row, : len(part)] = part
    return padded
