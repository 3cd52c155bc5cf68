"""Catalogue: the target among all items but those of the user's history, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Examples, Queries
from rosepo_bench.evaluation.metrics.base import Predictions
from rosepo_bench.evaluation.protocols.base import Answers, Protocol, Ranker

K = 10


class CatalogueSum(Protocol):
    """The whole catalogue is ranked without sampling, and the first ten are kept. Items of the history are left out: no
    target is among them. Language models rank by the sum of a title's token log-probs."""

    name = "catalogue-sum"
    about = "rank the whole catalogue but the history; language models by the sum of a title's token log-probs"
    needs: ClassVar[frozenset[str]] = frozenset({"best"})
    gives: ClassVar[frozenset[str]] = frozenset({"rank", "top", "items"})

    def ask(self, ranker: Ranker, queries: Queries) -> Answers:
        shortest = len(ranker.titles) - max(len(history) for history in queries.histories)
        if shortest < K:
            raise UserError(
                f"protocol {self.name}: {shortest} items are left beside the longest history, want {K}; use another "
                "protocol for so small a catalogue"
            )
        items, scores = ranker.best(queries, K, self.rule, queries.histories)
        return {"items": items.astype(np.int32), "scores": scores}

    def join(self, answers: Mapping[str, Any], examples: Examples) -> Predictions:
        items = answers["items"]
        found = items == examples.target[:, None]
        rank = np.where(found.any(axis=1), 1 + found.argmax(axis=1), 1 + K).astype(np.int32)
        return Predictions(users=examples.user, rank=rank, top=items[:, 0], items=items)

    def facts(self, size: int) -> dict[str, Any]:
        return {"name": "catalogue", "k": K, "score": self.rule, "history": "left out"}


class CatalogueMean(CatalogueSum):
    """Language models rank by the mean of a title's token log-probs."""

    name = "catalogue-mean"
    about = "rank the whole catalogue but the history; language models by the mean of a title's token log-probs"
    rule: ClassVar[str] = "mean"
