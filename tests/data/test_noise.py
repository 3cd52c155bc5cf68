"""Noise: which interactions it replaces, and by what."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.noise import Law, corrupt, replaced
from rosepo_bench.data.sequences import split as split_of
from rosepo_bench.data.types import Dataset, Source, Split

ITEMS, USERS, LENGTH = 40, 400, 12
LAWS: tuple[Law, ...] = ("uniform", "popularity")


def made(items: int = ITEMS) -> tuple[Dataset, Split]:
    """Low items are the popular ones; item ``items - 1`` is a test target alone."""
    draw, weights = np.random.default_rng(0), 1 / np.arange(1, items)
    histories = [draw.choice(items - 1, LENGTH, replace=False, p=weights / weights.sum()) for _ in range(USERS)]
    sequences = tuple(np.append(own[:-1], own[-1] if user else items - 1).astype(np.int32)
                      for user, own in enumerate(histories))  # fmt: skip
    titles = tuple(f"Title {n}" for n in range(items))
    dataset = Dataset("made", Source("made", "real"), titles, ((),) * items, sequences,
                      (np.arange(LENGTH),) * USERS, {}, "clean", tuple(f"u{n}" for n in range(USERS)))  # fmt: skip
    return dataset, split_of(dataset, "leave_one_out")


@pytest.mark.parametrize("law", LAWS)
def test_training_and_validation_change_at_the_rate_and_the_test_target_never(law: Law) -> None:
    clean, split = made()
    noisy = corrupt(clean, split, rate=0.3, law=law, seed=1)
    changed = np.stack(noisy.sequences) != np.stack(clean.sequences)
    assert not changed[:, -1].any()
    rates = changed[:, :-1].mean(axis=0)  # of each position, the validation target's last
    assert abs(rates - 0.3).max() < 4 * np.sqrt(0.3 * 0.7 / USERS)
    assert replaced(clean, noisy) == changed.sum()
    assert noisy.times == clean.times
    assert noisy.digest != clean.digest


@pytest.mark.parametrize("law", LAWS)
def test_no_user_gets_an_item_of_their_own_history_or_one_twice(law: Law) -> None:
    clean, split = made()
    for own, new in zip(clean.sequences, corrupt(clean, split, rate=0.6, law=law, seed=2).sequences, strict=True):
        assert len(set(new.tolist())) == LENGTH
        assert not set(new[new != own].tolist()) & set(own.tolist())


@pytest.mark.parametrize("law", LAWS)
def test_the_law_of_the_draw(law: Law) -> None:
    """Users with one replaced item: each draws from the items that they have not met, by the law's weights."""
    clean, split = made()
    counts = Counter(item for own in clean.sequences for item in own[:-2].tolist())
    weights = np.array([counts[item] if law == "popularity" else 1 for item in range(ITEMS)], dtype=np.float64)
    drawn, expected = np.zeros(ITEMS), np.zeros(ITEMS)
    for seed in range(60):
        for own, new in zip(clean.sequences, corrupt(clean, split, rate=0.02, law=law, seed=seed).sequences,
                            strict=True):  # fmt: skip
            if (new != own).sum() == 1:
                drawn[new[new != own]] += 1
                free = np.where(np.isin(np.arange(ITEMS), own), 0, weights)
                expected += free / free.sum()
    assert drawn.sum() > 2000
    assert (abs(drawn - expected) < 4.5 * np.sqrt(np.maximum(expected, 1))).all()
    assert (drawn[ITEMS - 1] > 0) == (law == "uniform")  # nobody has it in training


@pytest.mark.parametrize("law", LAWS)
def test_a_higher_rate_replaces_the_same_and_more(law: Law) -> None:
    clean, split = made()
    low, high = (corrupt(clean, split, rate=rate, law=law, seed=3) for rate in (0.2, 0.5))
    more = 0
    for own, one, other in zip(clean.sequences, low.sequences, high.sequences, strict=True):
        assert (other[one != own] == one[one != own]).all()
        more += int((other != own).sum() - (one != own).sum())
    assert more > 0


def test_no_rate_changes_nothing_and_seeds_differ() -> None:
    clean, split = made()
    zero, one, two = (corrupt(clean, split, rate=rate, law="uniform", seed=seed)
                      for rate, seed in ((0.0, 1), (0.3, 1), (0.3, 2)))  # fmt: skip
    assert replaced(clean, zero) == 0
    assert replaced(one, two) > 0
    assert replaced(one, corrupt(clean, split, rate=0.3, law="uniform", seed=1)) == 0


def test_events_after_the_test_target_stay_and_users_without_one_change_throughout() -> None:
    clean, split = made()
    test = split.test.copy()
    test[0], test[1] = 4, -1
    noisy = corrupt(clean, replace(split, test=test), rate=0.9, law="uniform", seed=4)
    assert (noisy.sequences[0][4:] == clean.sequences[0][4:]).all()
    assert (noisy.sequences[0][:4] != clean.sequences[0][:4]).any()
    assert (noisy.sequences[1] != clean.sequences[1]).sum() > LENGTH / 2


def test_a_user_who_has_met_nearly_everything_is_named() -> None:
    clean, split = made(items=LENGTH + 2)
    with pytest.raises(UserError, match=r"made: noise of law 'uniform' finds too few items that user u\d+ has not met"):
        corrupt(clean, split, rate=0.9, law="uniform", seed=5)
