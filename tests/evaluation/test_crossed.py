"""The variance over seeds and users, against the textbook and its own coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.evaluation.crossed import crossed

RUNS = 5_000


def test_mean_squares_by_hand() -> None:
    """Two seeds, three users: seed means 2 and 4, user means 1, 3 and 5, rests -1/2 and +1/2 in the outer columns."""
    found = crossed(np.array([[-0.5, 2.0, 4.5], [2.5, 4.0, 5.5]]))
    of_seeds, of_users, of_rest = 3 * 2 * 1 / 1, 2 * (4 + 0 + 4) / 2, 4 * 0.25 / 2
    total = of_seeds + of_users - of_rest
    assert found.value == 3
    assert found.se == pytest.approx(np.sqrt(total / 6))
    assert found.df == pytest.approx(total**2 / (of_seeds**2 + of_users**2 / 2 + of_rest**2 / 2))
    t = stats.t(found.df)
    assert found.interval.high == pytest.approx(3 + t.ppf(0.975) * found.se)
    assert found.interval.low == pytest.approx(3 - t.ppf(0.975) * found.se)
    assert found.p_value == pytest.approx(2 * t.sf(3 / found.se))
    assert found.detectable() == pytest.approx((t.ppf(0.975) + t.ppf(0.8)) * found.se)
    assert (found.seeds, found.users, found.interval.n) == (2, 3, 3)


def test_equal_seeds_give_the_t_interval_over_users() -> None:
    values = generator(0, "users").normal(size=50)
    found, theirs = crossed([values] * 3), stats.ttest_1samp(values, 0)
    assert found.df == pytest.approx(49)
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(theirs.confidence_interval()))


def test_equal_users_give_the_t_interval_over_seeds() -> None:
    seeds = generator(0, "seeds").normal(size=5)
    found, theirs = crossed(np.tile(seeds[:, None], 40)), stats.ttest_1samp(seeds, 0)
    assert found.df == pytest.approx(4)
    assert found.p_value == pytest.approx(theirs.pvalue)


def test_nothing_varies() -> None:
    assert crossed(np.zeros((3, 9))).p_value == 1
    same = crossed(np.full((3, 9), 0.25))
    assert (same.interval.low, same.interval.value, same.interval.high) == (0.25, 0.25, 0.25)
    assert same.p_value == 0


def test_seeds_that_differ_less_than_chance_leave_the_users_alone() -> None:
    values = np.array([[1.0, -1.0] * 20, [-1.0, 1.0] * 20]) + generator(0, "users").normal(size=40)
    found, mean = crossed(values), values.mean(axis=0)
    assert found.df == pytest.approx(39)
    assert found.se == pytest.approx(np.std(mean, ddof=1) / np.sqrt(40))


@pytest.mark.parametrize("shape", [(1, 9), (9, 1)])
def test_too_few_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"a variance over both needs two of each"):
        crossed(np.zeros(shape))


def worlds(seeds: int, users: int, ratio: float, rest: float, *, hits: bool) -> np.ndarray:
    """[RUNS, seeds, users] of mean 0 in which the variance of the mean due to seeds is ``ratio`` times that due to
    users, with noise of variance ``rest``. ``hits``: differences of hits whose expectation is 0.1 of that."""
    draw = generator(seeds, "worlds", users, f"{ratio} {rest}")
    noise = 50 / seeds if hits else rest / seeds
    of_seed = draw.normal(size=(RUNS, seeds, 1)) * np.sqrt(ratio * seeds * (1 + noise) / users)
    total = of_seed + draw.normal(size=(RUNS, 1, users))
    if hits:
        chance = np.clip(0.5 + total / 20, 0, 1)
        return 1.0 * (draw.random((RUNS, seeds, users)) < chance) - (draw.random((RUNS, seeds, users)) < 0.5)
    return total + np.sqrt(rest) * draw.normal(size=(RUNS, seeds, users))


@pytest.mark.parametrize("ratio", [0, 1, 5])
@pytest.mark.parametrize(("seeds", "least", "most"), [(2, 0.87, 0.98), (3, 0.92, 0.98), (5, 0.93, 0.97)])
@pytest.mark.parametrize(("rest", "hits"), [(0.3, False), (2.0, False), (0.0, True)])
def test_the_interval_holds_the_truth_as_often_as_it_says(
    seeds: int, least: float, most: float, ratio: float, rest: float, hits: bool
) -> None:
    found = crossed(worlds(seeds, 100, ratio, rest, hits=hits))
    rejected = float(np.mean(np.asarray(found.p_value) < 0.05))
    assert 1 - most - 0.005 <= rejected <= 1 - least + 0.005  # the simulation's own error is .003


@pytest.mark.parametrize("ratio", [0, 1])
def test_a_difference_of_the_detectable_size_is_found_in_four_of_five_cases(ratio: float) -> None:
    values = worlds(5, 100, ratio, 0.3, hits=False)
    size = float(np.median(crossed(values).detectable()))
    found = float(np.mean(np.asarray(crossed(values + size).p_value) < 0.05))
    assert 0.74 < found < 0.86
