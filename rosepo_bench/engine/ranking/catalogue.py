"""The whole catalogue scored exactly: every title under every prompt.

The title trie (``trie.py``) is read in pieces over the prompts' cached keys and values, many prompts at once. A title's
score is the sum or mean of its tokens' log-probs over the whole vocabulary, end token included.

Shape legend: n prompts, B prompts of a batch, N nodes of the trie, I items, F nodes just read, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from rosepo_bench.base import progress
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.ranking.prefix import prompt_batches, token_logps
from rosepo_bench.engine.ranking.result import Ranking
from rosepo_bench.engine.ranking.trie import Trie
from rosepo_bench.engine.ranking.trie_reader import TrieReader, check, is_mean, left_out

# Nodes of the trie read at a time under a prompt. Larger pieces: attention grows with the square. Smaller pieces: the
# ancestors of each piece's first node are read again more often.
PIECE = 128


def catalogue_scores(
    model: LanguageModel,
    trie: Trie,
    prompts: Sequence[Int[np.ndarray, " _"]],
    *,
    score: str,
    batch_tokens: int,
    label: str,
) -> Float64[np.ndarray, "n I"]:
    """Scores of all titles under each prompt: the `sum` or the `mean` of the tokens' log-probs.

    Without gradient; memory holds a float64 per prompt of a batch and node of the trie. UserError, before any work, for
    a prompt that leaves no room for the longest title.
    """
    result = np.full((len(prompts), trie.items), np.nan)
    for rows, scores in _scored(model, trie, prompts, score, batch_tokens, label):
        result[rows] = scores
    return result


def rank_all(
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
    """The best ``k`` titles under each prompt, by scoring all. ``exclude``: for each prompt, items to leave out.

    UserError where fewer than ``k`` remain, otherwise as ``catalogue_scores``.
    """
    excluded = left_out(trie, prompts, k, exclude)
    items, values = np.empty((len(prompts), k), dtype=np.int64), np.empty((len(prompts), k))
    for rows, scores in _scored(model, trie, prompts, score, batch_tokens, label):
        for row, found in zip(rows, scores, strict=True):
            found[list(excluded[row])] = -np.inf
            items[row] = np.argsort(-found, kind="stable")[:k]
            values[row] = found[items[row]]
    readable = len(trie.inner)
    return Ranking(items, values, np.full(len(prompts), readable), readable)


def _scored(
    model: LanguageModel,
    trie: Trie,
    prompts: Sequence[Int[np.ndarray, " _"]],
    score: str,
    batch_tokens: int,
    label: str,
) -> Iterator[tuple[list[int], Float64[np.ndarray, "B I"]]]:
    """For each batch: the rows of its prompts, and the scores of all titles under them."""
    check(model, trie, prompts)
    lengths = trie.lengths if is_mean(score) else 1
    done = 0
    for rows in prompt_batches(prompts, PIECE, batch_tokens):
        logps = _node_logps(model, trie, [prompts[row] for row in rows])
        for depth in range(2, int(trie.longest[0]) + 1):
            level = np.flatnonzero(trie.depth == depth)
            logps[:, level] += logps[:, trie.parent[level]]
        yield rows, logps[:, trie.leaf] / lengths
        done += len(rows)
        progress.advance(label, done, len(prompts))


@torch.no_grad()
def _node_logps(
    model: LanguageModel, trie: Trie, prompts: Sequence[Int[np.ndarray, " _"]]
) -> Float64[np.ndarray, "B N"]:
    """The log-prob of each node's token after its parent; the root's is 0."""
    reader, found = TrieReader(model, trie, prompts), np.zeros((len(prompts), len(trie)))
    _fill(model, trie, found, np.zeros(1, dtype=np.int64), reader.prompts.hidden[:, None])
    inner = trie.inner
    for start in range(0, len(inner), PIECE):
        fresh = inner[start : start + PIECE]
        nodes = np.concatenate([_ancestors(trie, int(fresh[0])), fresh])
        whole = np.tile(nodes, (len(prompts), 1))
        states = reader.extend(whole, keep=np.zeros_like(whole, dtype=bool))
        _fill(model, trie, found, fresh, states[:, len(nodes) - len(fresh) :])
    return found


def _fill(
    model: LanguageModel,
    trie: Trie,
    found: Float64[np.ndarray, "B N"],
    nodes: Int64[np.ndarray, " F"],
    states: Float[Tensor, "B F d"],
) -> None:
    """Writes into ``found`` the log-probs of the children of ``nodes``, which have these ``states``."""
    children, parent = trie.children(nodes)
    batch = len(found)
    rows = (np.arange(batch)[:, None] * len(nodes) + parent).ravel()
    logps = token_logps(model, states.flatten(0, 1), rows, np.tile(trie.token[children], batch))
    found[:, children] = logps.reshape(batch, -1)


def _ancestors(trie: Trie, node: int) -> Int64[np.ndarray, " A"]:
    """The ancestors of a node without the root, from the top."""
    found = []
    while (node := int(trie.parent[node])) > 0:
        found.append(node)
    return np.array(found[::-1], dtype=np.int64)
