"""Candidate lists: what may be in them, what they must not give away, and that they stay as frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.store import read_npz, write_npz
from rosepo_bench.data import candidates, sequences
from rosepo_bench.data.types import Dataset, Examples, Source, Split

SIZE = 20


def make(users: int = 2000, items: int = 300, seed: int = 0, name: str = "tiny") -> Dataset:
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, items + 1)
    histories = tuple(
        rng.choice(items, rng.integers(3, 12), replace=False, p=popularity / popularity.sum()).astype(np.int32)
        for _ in range(users)
    )
    return Dataset(
        name=name,
        source=Source(name, "real"),
        titles=tuple(f"t{index}" for index in range(items)),
        genres=((),) * items,
        sequences=histories,
        times=tuple(np.arange(len(own), dtype=np.int64) for own in histories),
    )


DATA = make()
SPLIT = sequences.split(DATA, "leave_one_out")


def check_lists(dataset: Dataset, examples: Examples, size: int = SIZE) -> None:
    assert examples.candidates.shape == (len(examples), size)
    for row in range(len(examples)):
        user, step = int(examples.user[row]), int(examples.step[row])
        listed = examples.candidates[row].tolist()
        assert listed[int(examples.position[row])] == examples.target[row] == dataset.sequences[user][step]
        assert len(set(listed)) == size
        assert set(listed) & set(dataset.sequences[user][: step + 1].tolist()) == {int(examples.target[row])}


@pytest.mark.parametrize("part", ["validation", "test"])
def test_lists_hold_the_target_once_and_nothing_that_the_user_knows(part: candidates.Part) -> None:
    examples = candidates.draw(DATA, SPLIT, part, seed=0)
    assert examples.user.tolist() == list(range(DATA.users))
    assert (examples.step == (SPLIT.validation if part == "validation" else SPLIT.test)).all()
    check_lists(DATA, examples)


def test_training_lists_follow_the_steps_that_are_asked_for() -> None:
    steps = [list(range(max(1, end - 2), end)) if user % 2 else [] for user, end in enumerate(SPLIT.train_end)]
    examples = candidates.draw(DATA, SPLIT, "train", seed=0, steps=steps)
    pairs = list(zip(examples.user.tolist(), examples.step.tolist(), strict=True))
    assert pairs == [(user, step) for user, own in enumerate(steps) for step in own]
    assert len(pairs) > 1000
    check_lists(DATA, examples)


def test_each_training_step_has_a_stream_of_its_own_whichever_others_are_asked_for() -> None:
    ends = SPLIT.train_end.tolist()
    both = candidates.draw(DATA, SPLIT, "train", seed=0, steps=[[1, 2] if end > 2 else [] for end in ends])
    second = candidates.draw(DATA, SPLIT, "train", seed=0, steps=[[2] if end > 2 else [] for end in ends])
    assert len(second) > 500
    at_one, at_two = both.take(both.step == 1), both.take(both.step == 2)
    assert (at_two.candidates == second.candidates).all()
    assert np.mean(at_one.position == at_two.position) < 0.1
    assert np.mean(at_one.candidates == at_two.candidates) < 0.1


def test_future_items_are_as_likely_among_the_negatives_as_any_other() -> None:
    steps = [[1] if end > 1 else [] for end in SPLIT.train_end]
    examples = candidates.draw(DATA, SPLIT, "train", seed=0, steps=steps)
    future, expected = 0, 0.0
    for user, listed in zip(examples.user.tolist(), examples.candidates, strict=True):
        later = DATA.sequences[user][2:]
        future += len(np.intersect1d(listed, later))
        expected += len(later) * (SIZE - 1) / (DATA.items - 2)
    assert abs(future - expected) < 4 * expected**0.5


def test_negatives_are_uniform_over_what_the_user_does_not_know() -> None:
    examples = candidates.draw(DATA, SPLIT, "test", seed=0)
    seen = np.zeros(DATA.items)
    expected = np.zeros(DATA.items)
    for user, step, listed, target in zip(
        examples.user, examples.step, examples.candidates, examples.target, strict=True
    ):
        fresh = np.ones(DATA.items, dtype=bool)
        fresh[DATA.sequences[user][: step + 1]] = False
        expected[fresh] += (SIZE - 1) / fresh.sum()
        seen[listed] += 1
        seen[target] -= 1
    assert stats.chisquare(seen, expected).pvalue > 1e-3


def test_the_position_of_the_target_is_uniform_and_says_nothing_about_it() -> None:
    examples = candidates.draw(DATA, SPLIT, "test", seed=0)
    assert stats.chisquare(np.bincount(examples.position, minlength=SIZE)).pvalue > 1e-3
    popular = examples.target < 5
    table = np.stack([np.bincount(examples.position[group], minlength=SIZE) for group in (popular, ~popular)])
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_position_and_stream_do_not_depend_on_the_target() -> None:
    other = tuple(np.append(own[:-1], np.int32(299 if own[-1] != 299 else 298)) for own in DATA.sequences)
    first = candidates.draw(DATA, SPLIT, "test", seed=0)
    second = candidates.draw(replace(DATA, sequences=other), SPLIT, "test", seed=0)
    assert (first.target != second.target).all()
    assert (first.position == second.position).all()
    # another target shifts the pool by one place at most
    assert np.mean(np.abs(first.candidates - second.candidates) <= 1) > 0.9


def test_users_with_the_same_target_share_negatives_by_chance_only() -> None:
    examples = candidates.draw(DATA, SPLIT, "test", seed=0)
    validation = candidates.draw(DATA, SPLIT, "validation", seed=0)
    overlap, expected, pairs = 0, 0.0, 0
    for target in range(10):
        mine, theirs = (part.candidates[part.target == target] for part in (examples, validation))
        for one in mine:
            for two in theirs:
                overlap += len(np.intersect1d(one, two)) - 1
                expected += (SIZE - 1) ** 2 / DATA.items
                pairs += 1
    assert pairs > 1000
    assert overlap / expected == pytest.approx(1, abs=0.1)


def lookup_hit_ratio(train: Examples, test: Examples) -> float:
    """HR@1 of an attack that knows no history: of another part's lists it learns how often an item was the
    answer among the times it was listed, and names the candidate with the largest share."""
    answers = np.bincount(train.target, minlength=DATA.items)
    listed = np.bincount(train.candidates.ravel(), minlength=DATA.items)
    score = answers / np.maximum(listed, 1)
    return float(np.mean(score[test.candidates].argmax(axis=1) == test.position))


def test_without_histories_a_uniform_world_gives_nothing_away() -> None:
    rng = np.random.default_rng(1)
    flat = tuple(rng.choice(DATA.items, 5, replace=False).astype(np.int32) for _ in range(DATA.users))
    world = replace(DATA, sequences=flat, times=tuple(np.arange(5) for _ in flat))
    split = sequences.split(world, "leave_one_out")
    validation, test = (candidates.draw(world, split, part, seed=0) for part in ("validation", "test"))
    assert lookup_hit_ratio(validation, test) < 1 / SIZE + 4 * (0.05 * 0.95 / DATA.users) ** 0.5


def test_lists_are_the_same_again_and_others_for_another_seed_part_name_or_split() -> None:
    first = candidates.draw(DATA, SPLIT, "test", seed=0)
    assert candidates.content_hash(candidates.draw(DATA, SPLIT, "test", seed=0)) == candidates.content_hash(first)
    same_targets = replace(SPLIT, validation=SPLIT.test)
    others = [
        candidates.draw(DATA, SPLIT, "test", seed=1),
        candidates.draw(DATA, same_targets, "validation", seed=0),
        candidates.draw(replace(DATA, name="other"), SPLIT, "test", seed=0),
        candidates.draw(DATA, replace(SPLIT, kind="temporal"), "test", seed=0),
    ]
    for other in others:
        assert (other.target == first.target).all()
        assert np.mean(other.position == first.position) < 0.1
        assert np.mean(other.candidates == first.candidates) < 0.1


def test_a_user_keeps_the_list_whoever_else_is_there() -> None:
    few = replace(DATA, sequences=DATA.sequences[:10], times=DATA.times[:10])
    alone = candidates.draw(few, sequences.split(few, "leave_one_out"), "test", seed=0)
    assert (alone.candidates == candidates.draw(DATA, SPLIT, "test", seed=0).candidates[:10]).all()


def test_a_subset_is_frozen_nested_and_the_same_for_both_parts() -> None:
    whole = candidates.draw(DATA, SPLIT, "test", seed=0)
    fifty = candidates.draw(DATA, SPLIT, "test", seed=0, users=50)
    hundred = candidates.draw(DATA, SPLIT, "test", seed=0, users=100)
    assert len(fifty) == 50
    assert set(fifty.user) < set(hundred.user)
    assert (fifty.candidates == whole.candidates[fifty.user]).all()
    assert (np.diff(fifty.user) > 0).all()
    assert fifty.user.mean() > 500, "a random subset, not the first users"
    assert (candidates.draw(DATA, SPLIT, "validation", seed=0, users=50).user == fifty.user).all()
    assert set(candidates.draw(DATA, SPLIT, "test", seed=1, users=50).user) != set(fifty.user)
    assert len(candidates.draw(DATA, SPLIT, "test", seed=0, users=10**6)) == DATA.users


def test_users_without_a_target_have_no_list() -> None:
    test = np.where(np.arange(DATA.users) % 3 == 0, SPLIT.test, -1)
    split = Split("temporal", SPLIT.train_end, SPLIT.validation, test)
    assert (candidates.draw(DATA, split, "test", seed=0).user % 3 == 0).all()
    subset = candidates.draw(DATA, split, "test", seed=0, users=40)
    assert len(subset) == 40
    assert (subset.user % 3 == 0).all()


def of_lengths(lengths: list[int], items: int = 30) -> Dataset:
    """Users who have met the first ``lengths`` of the items."""
    histories = tuple(np.arange(length, dtype=np.int32) for length in lengths)
    titles = tuple(f"t{index}" for index in range(items))
    names = tuple(f"reader-{user}" for user in range(len(lengths)))
    return replace(DATA, titles=titles, sequences=histories, times=histories_times(histories), user_ids=names)


def histories_times(histories: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.arange(len(own), dtype=np.int64) for own in histories)


def test_who_has_met_too_many_items_for_a_list_is_left_out() -> None:
    """Of 30 items 11 may have been met, the target included: 19 others are left."""
    dataset = of_lengths([11, 12, 5, 30, 11])
    split = sequences.split(dataset, "leave_one_out")
    test = candidates.draw(dataset, split, "test", seed=0)
    assert test.user.tolist() == [0, 2, 4]
    check_lists(dataset, test)
    assert candidates.draw(dataset, split, "validation", seed=0).user.tolist() == [0, 1, 2, 4]  # one item fewer
    steps = [[*range(1, end)] for end in split.train_end]
    train = candidates.draw(dataset, split, "train", seed=0, steps=steps)
    assert train.user.tolist() == [*[0] * 8, *[1] * 9, *[2] * 2, *[3] * 10, *[4] * 8]
    assert train.step[train.user == 3].tolist() == [*range(1, 11)]
    check_lists(dataset, train)
    for users in (1, 2, 3):
        assert len(candidates.draw(dataset, split, "test", seed=0, users=users)) == users, "a subset of the others"


def test_the_others_keep_their_lists() -> None:
    with_one = replace(DATA, sequences=(*DATA.sequences, np.arange(300, dtype=np.int32)))
    with_one = replace(with_one, times=histories_times(with_one.sequences))
    found = candidates.draw(with_one, sequences.split(with_one, "leave_one_out"), "test", seed=0)
    assert candidates.content_hash(found) == candidates.content_hash(candidates.draw(DATA, SPLIT, "test", seed=0))


def test_too_few_items_for_most_users_are_refused_with_the_size_that_would_do() -> None:
    dataset = replace(of_lengths([12, 13, 5, 20, 14]), label="mine")
    split = sequences.split(dataset, "leave_one_out")
    with pytest.raises(
        UserError,
        match=r"^mine \(tiny\): 4 of 5 users with a target, such as user reader-0, have met so many of the 30 items "
        r"that fewer than 19 are left to fill a list of 20: set `candidates` to at most 18$",
    ):
        candidates.draw(dataset, split, "test", seed=0)
    with pytest.raises(UserError, match="at most 18"):
        candidates.draw(dataset, split, "test", seed=0, size=19)
    assert candidates.draw(dataset, split, "test", seed=0, size=18).user.tolist() == [0, 1, 2]
    half = of_lengths([12, 5])
    assert candidates.draw(half, sequences.split(half, "leave_one_out"), "test", seed=0).user.tolist() == [1]
    everything = of_lengths([30, 30, 30])
    with pytest.raises(UserError, match="the data set has too few items"):
        candidates.draw(everything, sequences.split(everything, "leave_one_out"), "test", seed=0)


def test_errors_name_users_by_their_ids() -> None:
    dataset = of_lengths([9, 9])
    with pytest.raises(UserError, match="user reader-1 has no training target with a history at step 7"):
        candidates.draw(dataset, sequences.split(dataset, "leave_one_out"), "train", seed=0, steps=[[1], [7]])


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        ("test", {"size": 1}, "at least 2"),
        ("train", {}, "give `steps`"),
        ("train", {"steps": [[]], "users": 3}, "leave `users` at 0"),
        ("test", {"steps": [[]]}, "give no `steps`"),
        ("train", {"steps": [[1]]}, "1 lists of steps for 2000 users"),
        ("train", {"steps": [[0]] + [[]] * 1999}, "user 0 has no training target with a history at step 0"),
        ("train", {"steps": [[]] * 1999 + [[11]]}, "user 1999 has no training target .* at step 11"),
    ],
)
def test_what_cannot_be_drawn_is_refused(part: candidates.Part, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        candidates.draw(DATA, SPLIT, part, seed=0, **options)  # type: ignore[arg-type]


def test_frozen_lists_come_back_as_they_were(tmp_path: Path) -> None:
    examples = candidates.draw(DATA, SPLIT, "test", seed=0)
    written = candidates.freeze(tmp_path / "test.npz", examples)
    again = candidates.thaw(tmp_path / "test.npz")
    assert written == candidates.content_hash(again) == candidates.content_hash(examples)
    assert again.candidates.dtype == np.int32
    assert candidates.freeze(tmp_path / "again.npz", again) == written


def test_changed_lists_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.npz"
    candidates.freeze(path, candidates.draw(DATA, SPLIT, "test", seed=0, users=20))
    arrays = read_npz(path)
    arrays["candidates"][3, 4] += 1
    write_npz(path, **arrays)
    with pytest.raises(UserError, match=r"test\.npz: the lists hash to"):
        candidates.thaw(path)
    write_npz(path, users=np.arange(3))
    with pytest.raises(UserError, match=r"not a candidate file \(it holds users\)"):
        candidates.thaw(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"test\.npz"):
        candidates.thaw(path)
