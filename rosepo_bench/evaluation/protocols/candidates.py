"""Candidates: the target among the others of its frozen list, ranked by score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rosepo_bench.data.types import Examples, Queries
from rosepo_bench.evaluation.metrics.base import Predictions
from rosepo_bench.evaluation.protocols.base import Answers, Protocol, Ranker, joined


class CandidatesSum(Protocol):
    """Language models rank by the sum of a title's token log-probs, the likelihood of the whole title."""

    name = "candidates-sum"
    about = "rank the frozen candidates; language models by the sum of a title's token log-probs"
    gives: ClassVar[frozenset[str]] = frozenset({"rank", "top", "scores"})

    def ask(self, ranker: Ranker, queries: Queries) -> Answers:
        return {"scores": ranker.scores(queries, queries.candidates, self.rule)}

    def join(self, answers: Mapping[str, Any], examples: Examples) -> Predictions:
        return joined(examples, answers["scores"], examples.position)

    def facts(self, size: int) -> dict[str, Any]:
        return {"name": "candidates", "size": size, "score": self.rule}


class CandidatesMean(CandidatesSum):
    """Language models rank by the mean of a title's token log-probs, so that long titles are not at a loss."""

    name = "candidates-mean"
    about = "rank the frozen candidates; language models by the mean of a title's token log-probs"
    rule: ClassVar[str] = "mean"
