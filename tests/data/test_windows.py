"""Where prompts begin: by hand, and independent of which other prompts are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from rosepo_bench.data.types import Split
from rosepo_bench.data.windows import starts

ENDS = np.array([51, 3, 1])


def split() -> Split:
    return Split("leave_one_out", ENDS, ENDS, ENDS + 1)


def found(steps: list[tuple[int, int]], history: int, anchor: int) -> list[int]:
    user, step = np.array(steps).T
    return starts(split(), user, step, history=history, anchor=anchor).tolist()


@pytest.mark.parametrize("anchor", [1, 4, 10])
def test_histories_begin_anew_every_anchor_steps(anchor: int) -> None:
    step = np.array([1, 3, 40, 41, 44, 45, 46, 47, 48, 49, 50])
    begun = np.array(found([(0, s) for s in step.tolist()], 10, anchor))
    length = step - begun
    assert length[-1] == 10, "the last training step has the whole history"
    assert length[:2].tolist() == [1, 3]
    assert ((length[2:] > 10 - anchor) & (length[2:] <= 10)).all()
    assert len(set(begun[2:].tolist())) == {1: 9, 4: 3, 10: 2}[anchor]


def test_a_prompt_does_not_depend_on_its_neighbours() -> None:
    """Each step alone, and among others, begins at the same place."""
    every = [(0, step) for step in range(1, 51)] + [(1, 1), (1, 2)]
    together = found(every, 10, 5)
    assert [found([one], 10, 5)[0] for one in every] == together
    shuffled = np.random.default_rng(0).permutation(len(every))
    assert found([every[row] for row in shuffled], 10, 5) == [together[row] for row in shuffled]


def test_held_out_prompts_have_the_whole_history() -> None:
    assert found([(0, 51), (0, 52), (1, 3), (1, 4), (2, 1)], 10, 5) == [41, 42, 0, 0, 0]


def test_steps_of_a_user_share_their_start() -> None:
    assert found([(1, 1), (1, 2)], 3, 3) == [0, 0]
    assert found([(0, 48), (0, 49), (0, 50)], 3, 3) == [47, 47, 47]


def by_the_latest_drawn(user: np.ndarray, step: np.ndarray, history: int, anchor: int) -> np.ndarray:
    """The rule of earlier versions: counted back from the latest step that was drawn."""
    latest = np.array([step[user == one].max() for one in user])
    return np.maximum(0, latest - (latest - step) // anchor * anchor - history)


@pytest.mark.parametrize("anchor", [1, 3, 7])
@pytest.mark.parametrize("drawn", [1, 5, 40])
def test_the_last_training_steps_begin_where_they_always_did(drawn: int, anchor: int) -> None:
    """Pairs are drawn from the end: the latest one is the last training step."""
    ends = np.array([51, 3, 17])
    step = np.concatenate([np.arange(max(0, end - drawn), end) for end in ends])
    user = np.repeat(np.arange(3), np.minimum(ends, drawn))
    found = starts(Split("leave_one_out", ends, ends, ends + 1), user, step, history=7, anchor=anchor)
    assert found.tolist() == by_the_latest_drawn(user, step, 7, anchor).tolist()
    without = step < ends[user] - 1  # of other draws it was another
    if drawn == 40 and anchor == 3:
        other = by_the_latest_drawn(user[without], step[without], 7, anchor)
        assert found[without].tolist() != other.tolist()


def test_users_are_told_apart_and_users_without_a_held_out_step_are_taken() -> None:
    ends = np.array([9, 5])
    told = Split("temporal", ends, np.array([-1, 5]), np.array([9, -1]))
    user, step = np.array([1, 0, 0, 1]), np.array([4, 8, 9, 5])
    assert starts(told, user, step, history=3, anchor=2).tolist() == [1, 5, 6, 2]
