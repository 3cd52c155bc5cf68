"""Which steps become pairs."""

from __future__ import annotations

import numpy as np
import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Split
from rosepo_bench.preference.pairs import choose_steps


@pytest.fixture
def split() -> Split:
    """Ten users with 0 to 9 training steps."""
    end = np.arange(10)
    return Split("leave_one_out", end, end, end + 1)


def test_last_steps_of_each_user(split: Split) -> None:
    user, step = choose_steps(split, pairs=1000, steps_per_user=3, seed=0)
    for number in range(10):
        assert step[user == number].tolist() == list(range(max(1, number - 3), number))
    assert user.dtype == step.dtype == np.int64


def test_number_of_pairs_and_shortest_history(split: Split) -> None:
    user, step = choose_steps(split, pairs=7, steps_per_user=3, seed=0)
    assert len(user) == 7
    assert step.min() >= 1
    assert np.count_nonzero(np.diff(user)) == len(set(user.tolist())) - 1, "a user's steps stand together"
    last = user[-1]
    assert step[user == last][-1] == split.train_end[last] - 1, "the last user gives his last steps"
    short = Split("leave_one_out", np.array([0, 1]), np.array([0, 1]), np.array([1, 2]))
    with pytest.raises(UserError, match="no user has a training step"):
        choose_steps(short, pairs=7, steps_per_user=3, seed=0)


def test_users_are_drawn(split: Split) -> None:
    draws = [tuple(choose_steps(split, pairs=6, steps_per_user=3, seed=seed)[0].tolist()) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
