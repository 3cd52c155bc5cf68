"""Generate: what a language model writes when nothing keeps it to the catalogue."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int32

from rosepo_bench.data.types import Examples, Queries
from rosepo_bench.evaluation.metrics.base import Predictions
from rosepo_bench.evaluation.protocols.base import Answers, Protocol, Ranker

UNFINISHED = "\N{HORIZONTAL ELLIPSIS}"
"""Stands for a text that did not end."""


class Generate(Protocol):
    """Greedy free text. An output is valid if it names exactly one title: of the candidates where the prompt lists
    them, else of the catalogue. Validity is measured on the text as written: nothing is mapped to a similar title. Only
    where the prompt lists the candidates is it said whether the output is the target."""

    name = "generate"
    about = "greedy free text: whether it names an item, one of the history, and (candidates in the prompt) the target"
    needs: ClassVar[frozenset[str]] = frozenset({"texts"})
    gives: ClassVar[frozenset[str]] = frozenset({"text", "named", "valid", "seen", "correct"})

    def ask(self, ranker: Ranker, queries: Queries) -> Answers:
        texts = ranker.texts(queries)
        named = names(texts, ranker.titles)
        return {
            "text": np.array([UNFINISHED if text is None else text for text in texts], dtype=np.str_),
            "named": named,
            "seen": np.array([bool((own == item).any()) for own, item in zip(queries.histories, named, strict=True)]),
            "listed": np.full(len(named), ranker.listed),
        }

    def join(self, answers: Mapping[str, Any], examples: Examples) -> Predictions:
        named, listed = answers["named"], answers["listed"]
        among = (examples.candidates == named[:, None]).any(axis=1)
        return Predictions(
            users=examples.user,
            text=answers["text"],
            named=named,
            valid=np.where(listed, among, named >= 0),
            seen=answers["seen"],
            correct=named == examples.target if listed.all() else None,
        )

    def facts(self, size: int) -> dict[str, Any]:
        return {"name": "generate", "decoding": "greedy"}


def names(texts: Sequence[str | None], titles: Sequence[str]) -> Int32[np.ndarray, " n"]:
    """The item whose title each text is; -1: of none, or of several. Letter case, surrounding blanks and the number of
    blanks do not count; characters are compared in their compatibility form (NFKC)."""
    items: dict[str, int] = {}
    for item, title in enumerate(titles):
        key = _plain(title)
        items[key] = -1 if key in items else item
    return np.array([-1 if text is None else items.get(_plain(text), -1) for text in texts], dtype=np.int32)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
