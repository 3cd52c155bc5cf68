"""Smoothings: the formula with its cap, controls with the same values on other pairs, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.plugins import registry
from rosepo_bench.preference.smoothings.base import JudgedPairs, Smoothing, checked
from rosepo_bench.preference.smoothings.fixed import Constant, Zero
from rosepo_bench.preference.smoothings.predicted import Predicted, Reversed, Shuffled


def pairs(n: int = 200, k: int = 3) -> JudgedPairs:
    draw = np.random.default_rng(0)
    mask = np.ones((n, k), dtype=bool)
    mask[::4, 2] = False
    kind = np.where(draw.random((n, k)) < 0.4, "semantic", "self_hard")
    delta, law = draw.normal(-1, 2, (n, k)), draw.normal(0, 0.5, (n, k))
    return JudgedPairs(kind, mask, delta, law, np.where(kind == "semantic", 0.5, 2.0))


def test_predicted_is_the_formula_with_its_cap() -> None:
    given = pairs()
    plain = 1 / (1 + np.exp(-(given.delta / given.tau + given.law)))
    found = checked(Predicted(cap=0.3), given, seed=0)
    np.testing.assert_allclose(found, np.where(given.mask, np.minimum(plain, 0.3), 0))
    assert 0.1 < (found[given.mask] == 0.3).mean() < 0.9


def test_fixed_ones() -> None:
    given = pairs()
    assert (checked(Zero(), given, 0) == 0).all()
    np.testing.assert_array_equal(checked(Constant(value=0.2), given, 0), np.where(given.mask, 0.2, 0))
    assert (Zero().largest, Constant(value=0.2).largest, Predicted(cap=0.3).largest) == (0, 0.2, 0.3)


@pytest.mark.parametrize("control", [Shuffled(), Reversed()])
def test_controls_have_the_same_values_of_each_kind_on_other_pairs(control: Any) -> None:
    given = pairs()
    plain, found = checked(Predicted(), given, 0), checked(control, given, 0)
    for kind in ("semantic", "self_hard"):
        of_kind = given.mask & (given.kind == kind)
        np.testing.assert_allclose(np.sort(found[of_kind]), np.sort(plain[of_kind]))
        correlation = np.corrcoef(np.argsort(np.argsort(found[of_kind])), np.argsort(np.argsort(plain[of_kind])))[0, 1]
        assert correlation < -0.7 if isinstance(control, Reversed) else abs(correlation) < 0.25
    assert (found[~given.mask] == 0).all()


def test_a_shuffle_is_its_seeds() -> None:
    given = pairs()
    one, two, other = (checked(Shuffled(), given, seed) for seed in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()


class Wrong(Smoothing):
    """Gives what it is told."""

    def __init__(self, found: np.ndarray) -> None:
        object.__setattr__(self, "found", found)

    def epsilon(self, pairs: JudgedPairs, seed: int) -> np.ndarray:
        return self.found  # type: ignore[no-any-return, attr-defined]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (np.zeros(4), r"ε of shape \(4,\), want \(200, 3\)"),
        (np.full((200, 3), 0.6), r"ε of pair 0, rejected item 0 is 0.6; want 0 to 0.5"),
        (np.full((200, 3), np.nan), "is nan; want 0 to 0.5"),
    ],
)
def test_what_a_smoothing_gets_wrong_is_said(found: np.ndarray, said: str) -> None:
    with pytest.raises(UserError, match=said):
        checked(Wrong(found), pairs(), 0)


def test_all_are_listed() -> None:
    assert {"zero", "constant", "predicted", "shuffled", "reversed"} <= registry(Smoothing).found.keys()
