"""Ranks and metrics against worked examples, a plain re-implementation, and laws that must hold."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.plugins import registry
from rosepo_bench.evaluation import statistics
from rosepo_bench.evaluation.metrics.base import Metric, Predictions, measure, metrics, ranking_metric, ranks
from rosepo_bench.evaluation.metrics.ranking import hit_ratio, ndcg

RANKS = arrays.arrays(np.int32, st.integers(1, 40), elements=st.integers(1, 20))


@st.composite
def lists(draw: st.DrawFn, unique: bool = False) -> tuple[np.ndarray, np.ndarray]:
    n, m = draw(st.integers(1, 8)), draw(st.integers(2, 20))
    if unique:
        rows = [draw(st.permutations(range(m))) for _ in range(n)]
    else:
        rows = [draw(st.lists(st.integers(0, 4), min_size=m, max_size=m)) for _ in range(n)]
    position = draw(st.lists(st.integers(0, m - 1), min_size=n, max_size=n))
    return np.array(rows, dtype=np.float32), np.array(position)


def test_worked_example() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5], [0.1, 0.9, 0.5], [-np.inf, 0.0, -1.0]], np.float32)
    rank = ranks(scores, np.array([1, 2, 0, 0]))
    assert rank.dtype == np.int32
    assert rank.tolist() == [1, 2, 3, 3]
    assert hit_ratio(rank, 2).tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(ndcg(rank, 3), [1, 1 / np.log2(3), 0.5, 0.5])
    np.testing.assert_allclose(ndcg(rank, 2), [1, 1 / np.log2(3), 0, 0])


@given(lists())
def test_rank_is_the_place_in_a_stable_sort(example: tuple[np.ndarray, np.ndarray]) -> None:
    scores, position = example
    order = np.argsort(-scores, axis=1, kind="stable")
    assert ranks(scores, position).tolist() == [
        row.tolist().index(p) + 1 for row, p in zip(order, position, strict=True)
    ]


@given(lists(unique=True), st.randoms())
def test_without_ties_the_order_of_candidates_is_irrelevant(
    example: tuple[np.ndarray, np.ndarray], random: np.random.Generator
) -> None:
    scores, position = example
    shuffle = list(range(scores.shape[1]))
    random.shuffle(shuffle)
    moved = np.array([shuffle.index(p) for p in position])
    assert ranks(scores[:, shuffle], moved).tolist() == ranks(scores, position).tolist()


@given(lists())
def test_only_the_order_of_scores_counts(example: tuple[np.ndarray, np.ndarray]) -> None:
    scores, position = example
    assert ranks(3 * scores - 7, position).tolist() == ranks(scores, position).tolist()


def test_ties_are_neutral_on_average() -> None:
    """A method without an opinion gets k/m, wherever the target stands: neither first nor last by rule."""
    m = 20
    rank = ranks(np.zeros((m, m), np.float32), np.arange(m))
    assert sorted(rank.tolist()) == list(range(1, m + 1))
    assert hit_ratio(rank, 1).mean() == 1 / m
    assert hit_ratio(rank, 5).mean() == 5 / m


@given(RANKS, st.integers(1, 19))
def test_metrics_are_bounded_and_grow_with_k(rank: np.ndarray, k: int) -> None:
    for metric in (hit_ratio, ndcg):
        value, more = metric(rank, k), metric(rank, k + 1)
        assert np.all((value >= 0) & (value <= 1))
        assert np.all(more >= value)
    assert np.all(ndcg(rank, k) <= hit_ratio(rank, k))
    assert np.array_equal(ndcg(rank, 1), hit_ratio(rank, 1))


@given(RANKS, st.integers(1, 20))
def test_a_better_rank_is_never_worth_less(rank: np.ndarray, k: int) -> None:
    better = np.maximum(rank - 1, 1)
    for metric in (hit_ratio, ndcg):
        assert np.all(metric(better, k) >= metric(rank, k))


def test_nan_is_refused_with_its_place() -> None:
    scores = np.zeros((4, 3), np.float32)
    scores[2, 1] = np.nan
    with pytest.raises(UserError, match=r"scores of 1 of 4 users hold NaN \(first: row 2\).*diverged"):
        ranks(scores, np.zeros(4, int))


@pytest.mark.parametrize(("scores", "position"), [((3,), (3,)), ((3, 2), (2,)), ((3, 2), (3, 1))])
def test_shapes_must_fit(scores: tuple[int, ...], position: tuple[int, ...]) -> None:
    unchecked = inspect.unwrap(ranks)  # outside tests nothing checks the signature: the function must refuse by itself
    with pytest.raises(ValueError, match="expected"):
        unchecked(np.zeros(scores), np.zeros(position, int))


@pytest.mark.parametrize("position", [-1, 3])
def test_position_must_be_a_column(position: int) -> None:
    with pytest.raises(AssertionError, match="column"):
        ranks(np.zeros((1, 3)), np.array([position]))


def test_registry_measures_everything() -> None:
    rank = np.array([1, 2, 6, 11])
    known = ["hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10"]
    assert [name for name in metrics() if name in known] == known
    table = measure(Predictions(np.arange(4), rank), {"rank"})
    assert [name for name in table if name in known] == known
    assert [table[name]["value"] for name in ("hr@1", "hr@5", "hr@10")] == [0.25, 0.5, 0.75]
    expected = (1 + 1 / np.log2(3) + 1 / np.log2(7)) / 4
    assert table["ndcg@10"]["value"] == pytest.approx(expected)
    for name in known:
        cell = table[name]
        assert list(cell) == ["value", "low", "high", "n"]
        assert 0 <= cell["low"] <= cell["value"] <= cell["high"] <= 1
        assert cell["n"] == 4
        assert metrics()[name].about


def theirs(function: Any, per: Any = "user", needs: Any = ("rank",)) -> Metric:
    return Metric("theirs", "", frozenset(needs), "low", function, per=per)


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Metrics of another package, for one test."""

    def declare(metric: Metric) -> None:
        monkeypatch.setitem(registry(Metric).found, metric.name, metric)

    return declare


def test_a_metric_is_computed_where_its_needs_are_given(declared: Any) -> None:
    predictions = Predictions(np.arange(3), np.array([1, 2, 3]), top=np.array([5, 5, 6]))
    assert predictions.gives == {"users", "rank", "top"}
    declared(theirs(lambda found: len(np.unique(found.top)), "corpus", ("top",)))
    assert measure(predictions, predictions.gives)["theirs"] == {"value": 2.0, "low": None, "high": None, "n": None}
    assert "theirs" not in measure(predictions, {"rank", "scores"})
    assert measure(predictions, {"scores"}) == {}


def test_predictions_of_a_file_hold_what_metrics_read() -> None:
    arrays = {"users": np.array(["a", "b"]), "rank": np.array([1, 2], np.int16), "tied": np.array([True, False])}
    found = Predictions.of(arrays)
    assert found.gives == {"users", "rank"}
    assert measure(found, found.gives)["hr@1"]["value"] == 0.5


def test_values_outside_the_unit_interval_have_students_interval(declared: Any) -> None:
    rank = np.array([1, 2, 6, 11])
    declared(theirs(lambda found: found.rank))
    expected = statistics.student(rank.astype(float)).as_dict()
    assert measure(Predictions(np.arange(4), rank), {"rank"})["theirs"] == expected
    assert expected["low"] < 0


@pytest.mark.parametrize(
    ("function", "per", "problem"),
    [
        (lambda found: np.zeros(3), "user", r"it returns shape \(3,\), want \(4,\) \(per user\)"),
        (lambda found: np.zeros(4), "corpus", r"it returns shape \(4,\), want \(\) \(per corpus\)"),
        (lambda found: 0.5, "user", r"it returns shape \(\)"),
        (lambda found: np.full(4, np.nan), "user", "it returns nan, want finite numbers"),
        (lambda found: np.inf, "corpus", "it returns inf"),
        (lambda found: None, "corpus", "it returns nan"),
        (lambda found: "many", "corpus", "ValueError: "),
        (lambda found: found.scores[0], "corpus", "TypeError: "),
    ],
)
def test_a_broken_metric_is_named(function: Any, per: str, problem: str) -> None:
    predictions = Predictions(np.arange(4), np.arange(1, 5))
    with pytest.raises(UserError, match=f"metric theirs: {problem}.*; fix it, or remove the package"):
        theirs(function, per)(predictions)


def test_training_is_watched_by_metrics_of_ranks(declared: Any) -> None:
    assert ranking_metric("ndcg@10").name == "ndcg@10"
    declared(theirs(lambda found: 0.0, "corpus"))
    for name, said in (("theirs", "want one of each user"), ("ndgc@10", "did you mean 'ndcg@10'")):
        with pytest.raises(UserError, match=said):
            ranking_metric(name)
