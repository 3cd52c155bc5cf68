"""Protocols by hand: what is asked, and what becomes of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Examples, Queries
from rosepo_bench.evaluation.metrics.base import measure
from rosepo_bench.evaluation.protocols.base import Ranker
from rosepo_bench.evaluation.protocols.catalogue import CatalogueMean, CatalogueSum
from rosepo_bench.evaluation.protocols.generate import UNFINISHED, Generate, names

TITLES = ("Alien (1979)", "Brazil", "Café Noir", "STAR WARS", "Star Wars", *(f"Item {n}" for n in range(5, 16)))
HISTORIES = ([0, 1], [2], [3, 4, 5], [6])
CANDIDATES = [[1, 2, 7], [1, 2, 7], [0, 1, 2], [9, 1, 8]]
TARGETS = [2, 1, 0, 9]


class Written(Ranker):
    """Answers with given texts and items, and remembers what it was asked."""

    serves: ClassVar[frozenset[str]] = frozenset({"best", "texts"})
    titles = TITLES

    def __init__(self, texts: Sequence[str | None] = (), items: Any = (), listed: bool = False) -> None:
        self.written, self.items, self.listed = list(texts), np.array(items), listed
        self.asked: dict[str, Any] = {}

    def texts(self, queries: Queries) -> list[str | None]:
        return self.written

    def best(self, queries: Queries, k: int, rule: str, exclude: Any) -> Any:
        self.asked = {"k": k, "rule": rule, "exclude": [own.tolist() for own in exclude]}
        return self.items, -np.arange(self.items.size, dtype=float).reshape(self.items.shape)


def queries() -> Queries:
    histories = tuple(np.array(own, dtype=np.int32) for own in HISTORIES)
    steps = np.array([len(own) for own in HISTORIES])
    return Queries(np.arange(4), steps, np.zeros(4, dtype=np.int64), np.array(CANDIDATES, np.int32), histories)


def examples() -> Examples:
    asked, targets = queries(), np.array(TARGETS)
    position = np.array([row.index(target) for row, target in zip(CANDIDATES, TARGETS, strict=True)])
    return Examples(asked.user, asked.step, asked.start, asked.candidates, target=targets, position=position)


def test_a_text_names_the_one_item_whose_title_it_is() -> None:
    texts = ["Brazil", "  brazil ", "Cafe\u0301  noir", "Star Wars", "Alien", "Alien (1979) 2", "", None]
    assert names(texts, TITLES).tolist() == [1, 1, 2, -1, -1, -1, -1, -1]  # two titles differ in case alone


@pytest.mark.parametrize("listed", [False, True])
def test_outputs_are_judged_as_they_are_written(listed: bool) -> None:
    """An item of the history; a candidate; the target, which ends; and text that does not end."""
    ranker = Written(["Brazil", "Café Noir", "alien (1979)", None], listed=listed)
    protocol = Generate()
    found = protocol.join(protocol.ask(ranker, queries()), examples())
    assert found.text is not None
    assert found.named is not None
    assert found.text.tolist() == ["Brazil", "Café Noir", "alien (1979)", UNFINISHED]
    assert found.named.tolist() == [1, 2, 0, -1]
    measured = {name: told["value"] for name, told in measure(found, protocol.gives & found.gives).items()}
    expected = {"valid": 0.75, "out-of-catalogue": 0.25, "seen": 0.5}  # users 0 and 1 have met what is named
    assert measured == expected | ({"correct": 0.25} if listed else {})


def test_with_listed_candidates_other_titles_are_not_valid() -> None:
    protocol = Generate()
    found = protocol.join(
        protocol.ask(Written(["Item 15", "Brazil", "Item 9", "x"], listed=True), queries()), examples()
    )
    assert found.valid is not None
    assert found.correct is not None
    assert found.valid.tolist() == [False, True, False, False]
    assert found.correct.tolist() == [False, True, False, False]


@pytest.mark.parametrize("protocol", [CatalogueSum(), CatalogueMean()])
def test_the_targets_place_in_the_catalogue(protocol: CatalogueSum) -> None:
    items = [[2, *range(5, 14)], [0, *range(5, 13), 1], [1, *range(6, 15)], [0, *range(1, 6), *range(7, 11)]]
    ranker = Written(items=items)
    found = protocol.join(protocol.ask(ranker, queries()), examples())
    assert ranker.asked == {"k": 10, "rule": protocol.rule, "exclude": [list(own) for own in HISTORIES]}
    assert found.rank is not None
    assert found.top is not None
    assert found.rank.tolist() == [1, 10, 11, 9]
    assert found.top.tolist() == [2, 0, 1, 0]
    measured = measure(found, protocol.gives & found.gives)
    assert measured["hr@10"]["value"] == 0.75
    assert measured["hr@1"]["value"] == 0.25
    assert protocol.facts(20)["score"] == protocol.rule


def test_a_catalogue_that_is_too_small_is_refused() -> None:
    ranker = Written()
    ranker.titles = TITLES[:12]  # type: ignore[misc]
    with pytest.raises(UserError, match="catalogue-sum: 9 items are left beside the longest history, want 10"):
        CatalogueSum().ask(ranker, queries())
