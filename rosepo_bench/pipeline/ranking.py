"""Rankers: the trained models as protocols and early stopping ask them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int, Int64

from rosepo_bench.data.types import Queries
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.prompts.examples import example_prompts
from rosepo_bench.engine.prompts.prompter import Prompter
from rosepo_bench.engine.ranking.generation import generate
from rosepo_bench.engine.ranking.scoring import title_scores
from rosepo_bench.engine.ranking.search import rank_best_first
from rosepo_bench.engine.ranking.trie import build
from rosepo_bench.evaluation.protocols.base import Ranker


class TitleRanker(Ranker):
    """A language model, which scores and writes titles. ``label`` is that of its progress."""

    serves: ClassVar[frozenset[str]] = frozenset({"scores", "best", "texts"})

    def __init__(self, model: LanguageModel, prompter: Prompter, batch_tokens: int, label: str) -> None:
        self.model, self.prompter, self.batch_tokens, self.label = model, prompter, batch_tokens, label
        self.titles, self.listed = prompter.names, prompter.with_candidates

    def scores(self, queries: Queries, items: Int[np.ndarray, "n R"], rule: str) -> Float64[np.ndarray, "n R"]:
        return title_scores(
            self.model,
            self.prompter,
            longest(queries),
            queries,
            items,
            score=rule,
            batch_tokens=self.batch_tokens,
            label=self.label,
        )

    def best(
        self, queries: Queries, k: int, rule: str, exclude: Sequence[Int[np.ndarray, " _"]]
    ) -> tuple[Int64[np.ndarray, "n k"], Float64[np.ndarray, "n k"]]:
        """By best-first search of the titles' trie, which is exact."""
        found = rank_best_first(
            self.model,
            build(self.prompter.titles),
            self._prompts(queries),
            k=k,
            score=rule,
            batch_tokens=self.batch_tokens,
            label=self.label,
            exclude=exclude,
        )
        return found.items, found.scores

    def texts(self, queries: Queries) -> list[str | None]:
        prompts, longest_title = self._prompts(queries), max(map(len, self.prompter.titles))
        room = self.model.context - max(map(len, prompts))
        found = generate(
            self.model,
            self.prompter,
            prompts,
            limit=min(2 * longest_title, room),
            batch_tokens=self.batch_tokens,
            label=self.label,
        )
        return [one.title(self.model) for one in found]

    def _prompts(self, queries: Queries) -> list[Int[np.ndarray, " _"]]:
        return list(example_prompts(self.prompter, longest(queries), queries))

    def facts(self) -> dict[str, Any]:
        """``self_check``: how far the first pass's log-probs over the forest were from those of the model's own
        forward, and how far rounding explains."""
        found = self.model.self_check
        return {"self_check": asdict(found)} if found else {}


def longest(queries: Queries) -> dict[int, Int[np.ndarray, " _"]]:
    """The longest history of each user, of which the others are beginnings."""
    found: dict[int, Int[np.ndarray, " _"]] = {}
    for user, history in zip(queries.user.tolist(), queries.histories, strict=True):
        if len(history) >= len(found.get(user, ())):
            found[user] = history
    return found
