"""Beam search of the title trie: approximate, with bounded work."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.ranking.result import Ranking
from rosepo_bench.engine.ranking.search import TitleSearch, ranked
from rosepo_bench.engine.ranking.trie import Trie


class Beam(TitleSearch):
    """Of the prefixes of one length it keeps the ``width`` most likely; the others are dropped with all titles below
    them. A prefix that can no longer reach the best ``k`` titles found so far takes no place in the beam."""

    def __init__(self, trie: Trie, k: int, score: str, excluded: frozenset[int], width: int) -> None:
        super().__init__(trie, k, score, excluded)
        self.width = width
        self.level: list[tuple[float, int]] = []

    def open(self, bound: float, node: int) -> None:
        if bound >= self.threshold:
            self.level.append((self.sums[node], -node))

    def next(self) -> tuple[Int64[np.ndarray, " F"], Bool[np.ndarray, " F"]]:
        kept, self.level = heapq.nlargest(self.width, self.level), []
        nodes = np.array([-node for _, node in kept], dtype=np.int64)
        return nodes, self.trie.goes_on[nodes]


def rank_beam_approximate(
    model: LanguageModel,
    trie: Trie,
    prompts: Sequence[Int[np.ndarray, " _"]],
    *,
    k: int,
    width: int,
    score: str,
    batch_tokens: int,
    label: str,
    exclude: Sequence[Int[np.ndarray, " _"]] | None = None,
) -> Ranking:
    """The best ``k`` titles that a beam of ``width`` prefixes finds. APPROXIMATE: other titles may score higher.

    A title's score is that of ``catalogue.rank_all``, but the best titles may be missed; prefixes of one length compete
    by their summed log-probs. With ``exclude`` fewer than ``k`` may be found: the rest is -1 with score -inf. UserError
    for a beam narrower than ``k`` or wider than the catalogue, otherwise as ``rank_all``.
    """
    if not k <= width <= trie.items:
        raise UserError(
            f"a beam of {width} prefixes for the best {k} of {trie.items} titles: its width must lie in "
            f"[{k}, {trie.items}]; wider than the catalogue use the exact ranking, rank_all"
        )

    def begin(excluded: frozenset[int]) -> TitleSearch:
        return Beam(trie, k, score, excluded, width)

    return ranked(model, trie, prompts, begin, k=k, room=width, batch_tokens=batch_tokens, label=label,
                  exclude=exclude)  # fmt: skip
