"""Reads nodes of the title trie under a batch of prompts; and the checks of arguments that all rankings share.

Shape legend: B prompts, F nodes to read, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.ranking.prefix import CachedPrompts, check_prompts
from rosepo_bench.engine.ranking.trie import Trie


def left_out(
    trie: Trie, prompts: Sequence[Int[np.ndarray, " _"]], k: int, exclude: Sequence[Int[np.ndarray, " _"]] | None
) -> list[frozenset[int]]:
    """The items that each prompt's ranking leaves out. UserError for an unknown item, and where fewer than ``k``
    remain."""
    if exclude is None:
        exclude = [np.zeros(0, dtype=np.int64)] * len(prompts)
    if len(exclude) != len(prompts):
        raise UserError(f"exclude has {len(exclude)} lists for {len(prompts)} prompts; give one list per prompt")
    found = [frozenset(np.asarray(items).tolist()) for items in exclude]
    unknown = sorted(item for items in found for item in items if not 0 <= item < trie.items)
    if unknown:
        raise UserError(f"exclude names item {unknown[0]}; the catalogue has items 0 to {trie.items - 1}")
    rest = trie.items - max(map(len, found), default=0)
    if not 1 <= k <= rest:
        raise UserError(f"k = {k} items are to be ranked of {trie.items}, of which a prompt leaves out up to "
                        f"{trie.items - rest}; k must lie in [1, {rest}]")  # fmt: skip
    return found


def check(model: LanguageModel, trie: Trie, prompts: Sequence[Int[np.ndarray, " _"]]) -> None:
    """Raises UserError, before any work, for titles outside the model's vocabulary and prompts with no room for the
    longest title."""
    known = model.network.get_input_embeddings().weight.shape[0]
    if trie.token.max() >= known:
        raise UserError(f"the titles have ids of up to {trie.token.max()}, the model's vocabulary has {known}; encode "
                        "them with the model's own tokenizer")  # fmt: skip
    check_prompts(model, prompts, int(trie.longest[0]))


def is_mean(score: str) -> bool:
    """Whether a title's score is the mean of its tokens' log-probs. UserError for other values than `sum`, `mean`."""
    if score not in ("sum", "mean"):
        raise UserError(f"score = {score!r}: expected 'sum' or 'mean'")
    return score == "mean"


class TrieReader:
    """A batch of prompts and the nodes of the trie read under them. A node sees its prompt and its ancestors, which
    must be read before it or with it."""

    def __init__(self, model: LanguageModel, trie: Trie, prompts: Sequence[Int[np.ndarray, " _"]]) -> None:
        self.prompts, self.device, self.padding = CachedPrompts(model, prompts), model.device, len(trie)
        # One more node stands for padding: it has no ancestors and no descendants.
        self.token, self.depth, self.end = (
            torch.from_numpy(np.append(array, last)).to(model.device)
            for array, last in ((trie.token, 0), (trie.depth, 1), (trie.end, len(trie) + 1))
        )
        self.read = torch.empty(len(prompts), 0, dtype=torch.int64, device=model.device)

    def extend(self, nodes: Int64[np.ndarray, "B F"], keep: Bool[np.ndarray, "B F"]) -> Float[Tensor, "B F d"]:
        """The hidden states of ``nodes``, padded with ``len(trie)``. Nodes with ``keep`` stay in the cache for their
        descendants; the others are dropped, as they would only make attention longer."""
        query = torch.from_numpy(nodes).to(self.device)
        key = torch.cat([self.read, query], dim=1)[:, None]
        sees = (key <= query[:, :, None]) & (query[:, :, None] < self.end[key])
        # Kept nodes first, in their order; rows that keep fewer are padded.
        places = np.argsort(~keep, axis=1, kind="stable")[:, : int(keep.sum(axis=1).max())]
        kept = np.where(
            np.take_along_axis(keep, places, axis=1), np.take_along_axis(nodes, places, axis=1), self.padding
        )
        self.read = torch.cat([self.read, torch.from_numpy(kept).to(self.device)], dim=1)
        chosen = torch.from_numpy(places).to(self.device)
        return self.prompts.extend(self.token[query], self.depth[query] - 1, sees, keep=chosen)

    def select(self, rows: Int64[np.ndarray, " kept"]) -> None:
        """Keeps only the prompts at ``rows``."""
        chosen = torch.from_numpy(rows).to(self.device)
        self.read = self.read[chosen]
        self.prompts.select(chosen)
