"""Tests of differences against scipy, by hand, and by how often they reject."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from rosepo_bench.base.seeds import generator
from rosepo_bench.evaluation.significance import effect_size, holm, mid_p, sign_flip, within_seed


@pytest.mark.parametrize(("up", "down"), [(0, 0), (1, 0), (5, 5), (9, 2), (2, 9), (100, 140)])
def test_mid_p_is_the_binomial_test_less_half_the_observed_point(up: int, down: int) -> None:
    n = up + down
    exact = stats.binomtest(up, n, 0.5).pvalue if n else 1.0
    point = float(stats.binom.pmf(up, n, 0.5))
    assert mid_p(up, down) == pytest.approx(exact - point if up != down else 1.0)


def test_mid_p_of_a_published_example() -> None:
    """Fagerland, Lydersen and Laake 2013, table 1: 1 and 7 discordant pairs of airway responsiveness."""
    assert mid_p(1, 7) == pytest.approx(0.039, abs=5e-4)


def test_sign_flips_of_few_users_by_enumeration() -> None:
    difference = np.array([0.9, 0.4, -0.1, 0.3, 0.0, 0.7, 0.2])
    sums = [abs(float(np.dot(signs, difference))) for signs in product((-1, 1), repeat=len(difference))]
    exact = np.mean([one >= difference.sum() - 1e-9 for one in sums])
    assert sign_flip(difference, draws=40_000) == pytest.approx(exact, abs=0.005)


def test_sign_flips_of_many_users_are_near_the_t_test() -> None:
    difference = generator(0, "differences").normal(0.06, 1, 943)
    assert sign_flip(difference) == pytest.approx(stats.ttest_1samp(difference, 0).pvalue, abs=0.01)


def test_a_p_value_is_the_same_again_and_never_zero() -> None:
    difference = generator(1, "differences").normal(1, 0.1, 30)
    assert sign_flip(difference) == sign_flip(difference) == 1 / 10_000
    assert sign_flip(np.zeros(8)) == 1


def test_hits_are_compared_by_pairs_and_other_metrics_by_flips() -> None:
    hits = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 50)
    assert within_seed(hits) == mid_p(9, 2)
    assert within_seed(hits / 2) == sign_flip(hits / 2)


@pytest.mark.parametrize("kind", ["hits", "ndcg"])
def test_of_true_nulls_about_one_in_twenty_is_rejected(kind: str) -> None:
    draw, rejected, runs = generator(2, "nulls", kind), 0, 1_000
    for _ in range(runs):
        if kind == "hits":
            difference = draw.choice([-1.0, 0.0, 1.0], 300, p=[0.1, 0.8, 0.1])
            rejected += within_seed(difference) < 0.05
        else:
            difference = draw.normal(size=100) * draw.exponential(size=100)
            rejected += sign_flip(difference, draws=499) < 0.05
    assert 0.03 <= rejected / runs <= 0.07


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_effect_size() -> None:
    difference = np.array([1.0, 0.0, 0.0, -1.0, 1.0])
    assert effect_size(difference) == pytest.approx(0.2 / np.std(difference, ddof=1))
    assert effect_size(np.full(4, 0.5)) is None
