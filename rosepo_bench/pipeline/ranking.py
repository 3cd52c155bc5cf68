"""Rankers: the trained models as protocols and early stopping ask them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int

from rosepo_bench.data.types import Queries
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.prompts.prompter import Prompter
from rosepo_bench.engine.ranking.scoring import title_scores
from rosepo_bench.evaluation.protocols.base import Ranker


class TitleRanker(Ranker):
    """A language model, which scores titles. ``label`` is that of its progress."""

    serves: ClassVar[frozenset[str]] = frozenset({"scores"})

    def __init__(self, model: LanguageModel, prompter: Prompter, batch_tokens: int, label: str) -> None:
        self.model, self.prompter, self.batch_tokens, self.label = model, prompter, batch_tokens, label

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
