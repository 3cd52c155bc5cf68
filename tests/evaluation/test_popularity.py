"""Popularity and diversity metrics by hand and against other forms of their formulas."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.predictions import check
from rosepo_bench.base.seeds import generator
from rosepo_bench.evaluation.metrics import diversity, popularity
from rosepo_bench.evaluation.metrics.base import Predictions, measure, metrics

COUNTS = np.array([50, 30, 10, 5, 5, 0])
"""80 of 100 interactions are of items 0 and 1: the head."""


def predictions(items: list[list[int]], target: list[int] | None = None) -> Predictions:
    found = np.array(items)
    return Predictions(
        users=np.arange(len(found)),
        top=found[:, 0],
        items=found if found.shape[1] > 1 else None,
        target=np.array(target or [0] * len(found)),
        counts=COUNTS,
    )


def value(name: str, found: Predictions) -> float:
    told = measure(found, found.gives)[name]["value"]
    assert told is not None
    return told


ONE = predictions([[0], [0], [2], [5]], target=[1, 5, 2, 0])
TEN = predictions([[0, 1], [0, 2], [2, 3], [5, 0]], target=[1, 5, 2, 0])


@pytest.mark.parametrize(
    ("name", "one", "ten"),
    [
        ("arp", (50 + 50 + 10 + 0) / 4, (80 + 60 + 15 + 50) / 8),
        # below item 5 none, 3 and 4 one, 2 three, 1 four, 0 five; of equal ones, oneself included, half
        ("percentile", (5.5 + 5.5 + 3.5 + 0.5) / 6 / 4, (5.5 + 4.5 + 5.5 + 3.5 + 3.5 + 2 + 0.5 + 5.5) / 6 / 8),
        ("aplt", 2 / 4, (0 + 1 + 2 + 1) / 8),
        ("coverage", 3 / 6, 5 / 6),
        ("orratio", 1.0, (3 + 2 + 1) / 8),
        (
            "entropy",
            0.5 * math.log(2) + 2 * 0.25 * math.log(4),
            3 / 8 * math.log(8 / 3) + math.log(4) / 4 + 3 / 8 * math.log(8),
        ),
    ],
)  # fmt: skip
def test_by_hand(name: str, one: float, ten: float) -> None:
    assert value(f"{name}@1", ONE) == pytest.approx(one)
    assert value(f"{name}@10", TEN) == pytest.approx(ten)


def test_lift_is_against_the_target() -> None:
    weight = {item: math.log(1 + count) for item, count in enumerate(COUNTS.tolist())}
    pairs = [([0, 1], 1), ([0, 2], 5), ([2, 3], 2), ([5, 0], 0)]
    ten = [(weight[a] + weight[b]) / 2 - weight[target] for (a, b), target in pairs]
    assert value("lift@10", TEN) == pytest.approx(np.mean(ten))
    assert value("lift@1", ONE) == pytest.approx(np.mean([weight[a] - weight[target] for (a, _), target in pairs]))
    told = measure(TEN, TEN.gives)["lift@10"]
    half = 3.182446305284263 * np.std(ten, ddof=1) / 2  # t of 3 degrees of freedom
    assert (told["low"], told["high"]) == (pytest.approx(np.mean(ten) - half), pytest.approx(np.mean(ten) + half))


def test_gini_is_the_mean_difference_of_all_pairs() -> None:
    lists = generator(0, "lists").integers(0, 6, (30, 3))
    often = np.bincount(lists.ravel(), minlength=6)
    differences = np.abs(often[:, None] - often[None, :]).sum() / (2 * 6**2 * often.mean())
    assert diversity.gini(lists, COUNTS) == pytest.approx(differences)
    everything = np.arange(6)[None, :]
    assert diversity.gini(everything, COUNTS) == pytest.approx(0)
    assert diversity.gini(np.zeros((9, 1), dtype=int), COUNTS) == pytest.approx(5 / 6)


def test_the_head_is_the_fewest_items_with_most_interactions() -> None:
    assert popularity.tail(COUNTS).tolist() == [False, False, True, True, True, True]
    assert popularity.tail(np.array([1, 1, 1, 1, 1])).tolist() == [False, False, False, False, True]
    assert popularity.tail(np.array([0, 7])).tolist() == [True, False]


def test_uniform_recommendations_have_the_middle_percentile() -> None:
    assert popularity.percentile(np.arange(6)[None, :], COUNTS)[0] == pytest.approx(0.5)


def test_lists_of_ten_need_a_ranking_of_the_catalogue_and_share_a_table() -> None:
    assert {name for name in measure(ONE, ONE.gives) if name.endswith("@10")} == set()
    groups = {name: one.group for name, one in metrics().items()}
    assert {groups[f"{name}@{k}"] for name in ("arp", "gini", "lift") for k in (1, 10)} == {"popularity"}
    assert (groups["hr@10"], groups["valid"], groups["seen"], groups["correct"]) == (
        "accuracy",
        "harm",
        "harm",
        "accuracy",
    )


@pytest.mark.parametrize(
    ("name", "items", "refused"),
    [
        *(("top", -1, True), ("target", 6, True), ("items", -1, True), ("named", -2, True), ("named", 6, True)),
        *(("named", -1, False), ("top", 5, False)),
    ],
)
def test_predictions_name_items_of_the_catalogue(name: str, items: int, refused: bool) -> None:
    """A negative number would count from the catalogue's end."""
    arrays = {"users": np.arange(2), "counts": COUNTS, name: np.array([0, items])}
    with pytest.raises(UserError, match=f"{name} names an item outside") if refused else contextlib.nullcontext():
        check(arrays, "file", "delete it")
