"""What a sampler of other people returns wrongly is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny_world as tiny

from rosepo_bench.base.errors import UserError
from rosepo_bench.preference.samplers.base import Rejected, Sampler, checked
from rosepo_bench.preference.samplers.uniform import Uniform

STEPS = [(0, 2), (2, 3)]  # pasts 0 4 and 5 4 7; chosen 1 and 0


def with_column(name: str, change: Callable[[np.ndarray], np.ndarray]) -> type[Sampler]:
    """Uniform with one column of its draws changed."""

    class Wrong(Uniform):
        name = "wrong"

        def draw(self, *arguments: Any) -> Rejected:
            drawn = copy.copy(super().draw(*arguments))
            object.__setattr__(drawn, changed, change(getattr(drawn, changed).copy()))
            return drawn

    changed = name
    return Wrong


def put(row: int, place: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(column: np.ndarray) -> np.ndarray:
        column[row, place] = value
        return column

    return change


def check(sampler: Sampler) -> Rejected:
    prompts, chosen = tiny.asked(STEPS)
    return checked(sampler, tiny.view(), prompts, chosen, 3, 0)


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("items", lambda items: items[:, :2], r"items is int32 of shape \(2, 2\), not int32 of shape \(2, 3\)"),
        ("items", lambda items: items.astype(np.int64), "items is int64 of shape"),
        ("law", lambda law: law[:, 0], r"law is float64 of shape \(2,\)"),
        ("law", lambda law: law.astype(np.float32), "law is float32"),
        ("kind", lambda kind: np.arange(6).reshape(2, 3), "kind is int64"),
        ("mask", lambda mask: mask.astype(np.int8), "mask is int8"),
        ("items", put(1, 2, 0), "user 2, place 2: item 0 is the chosen item"),
        ("items", put(1, 1, 5), "user 2, place 1: item 5 was taken before"),
        ("items", put(0, 0, 9), "user 0, place 0: item 9 is not one of the catalogue's 9"),
        ("items", put(0, 2, -1), "user 0, place 2: item -1 is not one of the catalogue's 9; .* mask is False"),
        ("items", lambda items: items[:, [0, 0, 1]], r"user 0, place 1: item \d stands twice"),
        ("items", lambda items: items[:, [0, 1, 0]], r"user 0, place 2: item \d stands twice"),
        ("mask", put(1, 2, False), r"user 2, place 2: item \d stands at a place whose mask is False"),
        ("law", put(1, 1, np.nan), "user 2, place 1: item . has a law of NaN"),
        ("law", put(1, 1, np.inf), r"user 2, place 1: item . has a law of NaN or \+inf"),
    ],
)
def test_wrong_columns_are_refused(column: str, change: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    with pytest.raises(UserError, match=f"sampler wrong: {message}"):
        check(with_column(column, change)())


@pytest.mark.parametrize(
    ("place", "message"),
    [(0, "user 0, place 0: item -1 ends the list"), (1, r"user 0, place 2: item \d follows a place whose mask is")],
)
def test_masks_end_lists(place: int, message: str) -> None:
    class Gap(Uniform):
        name = "gap"

        def draw(self, *arguments: Any) -> Rejected:
            drawn = super().draw(*arguments)
            drawn.items[0, place], drawn.mask[0, place] = -1, False
            if place == 0:
                drawn.items[0], drawn.mask[0] = -1, False
            return drawn

    with pytest.raises(UserError, match=f"sampler gap: {message}"):
        check(Gap())


def test_what_is_right_passes() -> None:
    class Sure(Uniform):
        """Its choice is its own, with a law of -inf at one place."""

        name = "sure"

        def draw(self, *arguments: Any) -> Rejected:
            drawn = super().draw(*arguments)
            drawn.law[0, 1] = -np.inf
            return drawn

    assert check(Sure()).law[0, 1] == -np.inf
    assert (check(Uniform()).items == Uniform().draw(tiny.view(), *tiny.asked(STEPS), 3, 0).items).all()
    assert checked(Uniform(), tiny.view(), *tiny.asked(STEPS), 9, 0).mask.sum(axis=1).tolist() == [6, 5]
