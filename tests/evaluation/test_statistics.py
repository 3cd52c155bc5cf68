"""Intervals against scipy, published examples and their own coverage."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.evaluation import statistics as s


def ends(interval: s.Interval) -> tuple[float, float]:
    return interval.low, interval.high


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(case: tuple[int, int]) -> None:
    hits, n = case
    theirs = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    ours = s.wilson(hits, n)
    assert ends(ours) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.value == hits / n
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_wilson_of_the_small_movielens_split() -> None:
    interval = s.wilson(50, 95)
    assert (round(interval.low, 2), round(interval.high, 2)) == (0.43, 0.62)
    assert interval.n == 95


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="not a proportion"):
        s.wilson(hits, n)


def test_student_is_scipys() -> None:
    values = generator(0, "student").random(30)
    theirs = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    assert ends(s.student(values)) == pytest.approx(theirs, rel=1e-12)
    assert ends(s.average(values)) == pytest.approx(theirs, rel=1e-12)


def test_average_takes_wilson_for_hits_and_stays_within_bounds() -> None:
    assert s.average(np.array([1.0, 0.0, 0.0, 1.0])) == s.wilson(2, 4)
    assert s.average(np.zeros(10)).high > 0.2
    skewed = s.average(np.array([0.0, 0.0, 0.0, 0.5]))
    assert skewed.low == 0.0
    assert s.student(np.array([0.0, 0.0, 0.0, 0.5])).low < 0
    assert s.average(np.array([1.0, 1.0, 1.0, 0.5])).high == 1.0
    with pytest.raises(AssertionError, match=r"\[0, 1\]"):
        s.average(np.array([0.0, 1.5]))


def test_one_user_has_no_interval() -> None:
    with pytest.raises(UserError, match="at least two"):
        s.average(np.array([0.5]))


def test_paired_values_are_scipys() -> None:
    draw = generator(0, "paired")
    first, second = draw.random(40), draw.random(40)
    theirs = stats.ttest_rel(first, second).confidence_interval(0.95)
    interval = s.paired(first, second)
    assert ends(interval) == pytest.approx((theirs.low, theirs.high), rel=1e-10)
    assert interval.value == pytest.approx(first.mean() - second.mean())
    assert interval.n == 40


def test_paired_hits_worked_by_hand() -> None:
    """1 and 7 of 21 discordant: 2/23 - 8/23 = -0.2609, variance (10/23 - 0.2609²) / 23 = 0.01594."""
    first = np.array([1] * 1 + [1] * 1 + [0] * 7 + [0] * 12, float)
    second = np.array([1] * 1 + [0] * 1 + [1] * 7 + [0] * 12, float)
    interval = s.paired(first, second)
    assert interval.value == pytest.approx(-6 / 21)
    assert ends(interval) == pytest.approx((-0.508, -0.013), abs=1e-3)


def test_no_changed_user_still_has_a_width() -> None:
    hits = np.array([1.0, 0.0] * 50)
    interval = s.paired(hits, hits)
    assert interval.value == 0
    assert interval.low == pytest.approx(-interval.high)
    assert interval.high > 0.01


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_paired_is_antisymmetric_and_bounded(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs, float).T
    one, two = s.paired(first, second), s.paired(second, first)
    assert one.value == -two.value
    assert ends(one) == pytest.approx((-two.high, -two.low))
    assert -1 <= one.low <= one.value <= one.high <= 1


@pytest.mark.parametrize("share", [(0.02, 0.02), (0.2, 0.1), (0.0, 0.05)])
def test_paired_hits_cover_the_truth(share: tuple[float, float]) -> None:
    """About 95 % of 2,000 drawn samples must hold the true difference; 93 % allows for chance and small n."""
    up, down = share
    draw = generator(1, "coverage", str(share))
    inside = 0
    for _ in range(2000):
        kind = draw.random(200)
        first, second = (kind < up).astype(float), ((kind >= up) & (kind < up + down)).astype(float)
        interval = s.paired(first, second)
        inside += interval.low <= up - down <= interval.high
    assert 0.93 <= inside / 2000 <= 0.999


def test_different_users_are_refused() -> None:
    users = np.arange(5)
    assert s.same_users([users, users.copy()], ["sft", "dpo"]) is users
    with pytest.raises(UserError, match=r"sft and dpo were evaluated on different users \(5 and 4\)"):
        s.same_users([users, users[:4]], ["sft", "dpo"])
    with pytest.raises(UserError, match="sft and dpo"):
        s.same_users([users, users[::-1]], ["sft", "dpo"])
    with pytest.raises(AssertionError, match="same users"):
        inspect.unwrap(s.paired)(np.zeros(3), np.zeros(4))  # without the tests' check of the signature


def test_seeds_are_averaged_within_users() -> None:
    seeds = [np.array([1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0])]
    assert s.over_seeds(seeds).tolist() == [0.5, 0.0, 1.0]
    assert s.seed_spread(seeds) == pytest.approx(np.std([2 / 3, 1 / 3], ddof=1))
    assert s.seed_spread(seeds[:1]) is None


def test_detectable_difference_has_its_power() -> None:
    """A true difference of that size must be found (interval excludes 0) in about 80 % of samples."""
    draw = generator(2, "power")
    n, down = 400, 0.05
    smallest = s.detectable(s.paired(*_hits(draw.random(n), 0.12, down)))
    found = 0
    for _ in range(1000):
        found += s.paired(*_hits(draw.random(n), down + smallest, down)).low > 0
    assert 0.70 <= found / 1000 <= 0.90


def _hits(kind: np.ndarray, up: float, down: float) -> tuple[np.ndarray, np.ndarray]:
    return (kind < up).astype(float), ((kind >= up) & (kind < up + down)).astype(float)
