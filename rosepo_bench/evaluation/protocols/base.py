"""The contract of protocols: what a ranker is asked, and what becomes of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Float64, Int, Int64, Shaped

from rosepo_bench.base.component import Component
from rosepo_bench.base.plugins import Kind
from rosepo_bench.data.types import Examples, Prompts, Queries
from rosepo_bench.evaluation.metrics.base import Predictions, ranks

Answers = dict[str, Shaped[np.ndarray, "..."]]


class Ranker:
    """A trained model as protocols see it. ``serves`` says what it can be asked for: ``scores``, ``best``, ``texts``.
    ``titles`` are those of the catalogue; ``listed``: the model's prompts list the candidates."""

    serves: ClassVar[frozenset[str]] = frozenset()
    titles: Sequence[str] = ()
    listed: bool = False

    def scores(self, queries: Queries, items: Int[np.ndarray, "n R"], rule: str) -> Float64[np.ndarray, "n R"]:
        """Scores of ``items`` after each prompt, higher is better. ``rule``: a language model's scores are the ``sum``
        or the ``mean`` of a title's token log-probs; other rankers have one score and ignore it."""
        raise NotImplementedError

    def best(
        self, queries: Queries, k: int, rule: str, exclude: Sequence[Int[np.ndarray, " _"]]
    ) -> tuple[Int64[np.ndarray, "n k"], Float64[np.ndarray, "n k"]]:
        """The ``k`` best items of the whole catalogue after each prompt, best first, and their scores by ``rule``.
        Equal ones stand by item number. ``exclude``: for each query, items to leave out."""
        raise NotImplementedError

    def texts(self, queries: Queries) -> list[str | None]:
        """What a language model writes after each prompt, the most likely token each time; None where it does not end
        within the context, or twice the longest title."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """What a record tells of the ranker, beside time and memory; asked after the scores."""
        return {}


class Protocol(Component):
    """An evaluation protocol. ``needs``: what it asks of a ranker; ``gives``: what metrics can be computed from."""

    kind: ClassVar[Kind] = Kind("protocol", "protocols", "rosepo_bench.evaluation.protocols")
    needs: ClassVar[frozenset[str]] = frozenset({"scores"})
    gives: ClassVar[frozenset[str]] = frozenset()
    rule: ClassVar[str] = "sum"
    """How language models score titles: for this protocol, for self-hard's pool and for early stopping."""

    def ask(self, ranker: Ranker, queries: Queries) -> Answers:
        """The ranker's answers, as named arrays with a row per query. It never sees a target."""
        raise NotImplementedError

    def join(self, answers: Mapping[str, Any], examples: Examples) -> Predictions:
        """The answers beside the targets, from which metrics are computed."""
        raise NotImplementedError

    def facts(self, size: int) -> dict[str, Any]:
        """What a record says of it; ``size`` candidates stand in each list."""
        return {}


def joined(prompts: Prompts, scores: Float[np.ndarray, "n size"], position: Int64[np.ndarray, " n"]) -> Predictions:
    """Predictions from ``scores`` of the candidates, in which the target has column ``position``. The first of equal
    scores is the top one, as in the ranks."""
    best = prompts.candidates[np.arange(len(prompts)), scores.argmax(axis=1)]
    return Predictions(
        users=prompts.user,
        rank=ranks(scores, position),
        top=best.astype(np.int32),
        scores=scores,
        candidates=prompts.candidates,
    )
