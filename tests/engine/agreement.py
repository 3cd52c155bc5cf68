"""Best-first search held against the full ranking: are they the same, how much was read, and how long did each take?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.ranking.catalogue import catalogue_scores
from rosepo_bench.engine.ranking.search import rank_best_first
from rosepo_bench.engine.ranking.trie import Trie

# Scores this near are a tie: both sides round in single precision, in another order.
TIE = 1e-5
# Prompts of a round of the comparison, which takes turns so that both sides meet the same machine.
ROUND = 48


@dataclass(frozen=True)
class Agreement:
    """Of n prompts: ``gap`` ``[n]`` is the largest difference between the scores of the two rankings at the same
    place, and between best-first's score of an item and the full one; ``same_items`` bool ``[n]``: item by item equal.
    ``share`` ``[n]`` of the trie was read by best-first; ``seconds`` of both ``[rounds, 2]``, best-first's first."""

    gap: Float64[np.ndarray, " n"]
    same_items: Bool[np.ndarray, " n"]
    share: Float64[np.ndarray, " n"]
    seconds: Float64[np.ndarray, "rounds 2"]

    @property
    def equal(self) -> Bool[np.ndarray, " n"]:
        """The rankings are equal, apart from ties within ``TIE``."""
        return self.gap < TIE


def turns(
    prompts: Sequence[Int[np.ndarray, " _"]], label: str
) -> Iterator[tuple[Int64[np.ndarray, " rows"], list[Int[np.ndarray, " _"]], str]]:
    """The prompts in rounds of at most ``ROUND``: their rows, themselves, and the round's label."""
    rounds = -(-len(prompts) // ROUND)
    for turn in range(rounds):
        rows = np.arange(turn, len(prompts), rounds)
        yield rows, [prompts[row] for row in rows.tolist()], f"{label} {turn + 1}/{rounds}"


def compare(
    model: LanguageModel,
    trie: Trie,
    prompts: Sequence[Int[np.ndarray, " _"]],
    *,
    k: int,
    score: str,
    batch_tokens: int,
    label: str,
) -> Agreement:
    """Ranks the best ``k`` titles under every prompt both ways, in rounds of some prompts each."""
    gap, same, share = np.empty(len(prompts)), np.empty(len(prompts), dtype=bool), np.empty(len(prompts))
    seconds = []
    for rows, part, turn_label in turns(prompts, label):
        began = time.perf_counter()
        found = rank_best_first(model, trie, part, k=k, score=score, batch_tokens=batch_tokens, label=turn_label)
        between = time.perf_counter()
        scores = catalogue_scores(model, trie, part, score=score, batch_tokens=batch_tokens, label=turn_label)
        seconds.append((between - began, time.perf_counter() - between))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        true = np.take_along_axis(scores, found.items, axis=1)
        wanted = np.take_along_axis(scores, best, axis=1)
        gap[rows] = np.maximum(abs(true - wanted), abs(true - found.scores)).max(axis=1)
        same[rows] = (found.items == best).all(axis=1)
        share[rows] = found.share
    return Agreement(gap, same, share, np.array(seconds))
