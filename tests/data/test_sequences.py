"""Preparation and splits against plain Python, and by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.data import sequences
from rosepo_bench.data.titles import first_of_title
from rosepo_bench.data.types import Dataset, RawInteractions, Source, Ties

SOURCE = Source("tiny", "real")


def raw_of(rows: list[tuple[int, int, int]], titles: list[str]) -> RawInteractions:
    user, item, time = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    names = tuple(f"u{index}" for index in range(int(user.max()) + 1))
    genres, ids = tuple((title,) for title in titles), tuple(f"i{item}" for item in range(len(titles)))
    works = first_of_title(titles)
    return RawInteractions(SOURCE, user, item, time, names, tuple(titles), genres, item_ids=ids, works=works)


def dataset_of(times: list[list[int]]) -> Dataset:
    """Users with the given event times; items count up from 0 within each user."""
    return Dataset(
        name="tiny",
        source=SOURCE,
        titles=tuple(f"t{index}" for index in range(max(map(len, times)))),
        genres=((),) * max(map(len, times)),
        sequences=tuple(np.arange(len(own), dtype=np.int32) for own in times),
        times=tuple(np.array(own, dtype=np.int64) for own in times),
    )


def plainly(raw: RawInteractions, core: int, shortest: int) -> dict[str, list[str]]:
    """The same preparation in slow, obvious Python: titles of each user's history."""
    events = sorted(zip(raw.user.tolist(), raw.time.tolist(), range(len(raw.user)), raw.item.tolist(), strict=True))
    kept: list[tuple[int, str]] = []
    for user, _, _, item in events:
        if (user, raw.titles[item]) not in kept:
            kept.append((user, raw.titles[item]))
    for least in (core, max(core, shortest)):
        while True:
            users, items = Counter(user for user, _ in kept), Counter(title for _, title in kept)
            good = [(u, t) for u, t in kept if users[u] >= least and items[t] >= core]
            if good == kept:
                break
            kept = good
    return {raw.user_ids[user]: [t for u, t in kept if u == user] for user in dict.fromkeys(u for u, _ in kept)}


@pytest.mark.parametrize("kind", ["leave_one_out", "temporal"])
@pytest.mark.parametrize("core", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_preparation_agrees_with_plain_python(seed: int, core: int, kind: sequences.Kind) -> None:
    rng = np.random.default_rng(seed)
    user, item, time = rng.integers(0, 40, 300), (25 * rng.random(300) ** 3).astype(np.int64), rng.integers(0, 9, 300)
    assert np.bincount(item, minlength=25).min() < 4, "a rare item is among them"
    rows = [tuple(row) for row in np.stack([user, item, time], axis=1).tolist()]
    raw = raw_of(rows, [f"t{index // 2}" if index < 8 else f"t{index}" for index in range(25)])
    expected = plainly(raw, core, 3 if kind == "leave_one_out" else 1)
    assert expected, "a case without anybody would test nothing"
    dataset = sequences.prepare(raw, core, kind)
    found = [[dataset.titles[item] for item in own] for own in dataset.sequences]
    assert found == list(expected.values())
    assert dataset.genres == tuple((title,) for title in dataset.titles)
    assert dataset.counts["usable"] == {
        "users": len(expected),
        "items": len({title for own in expected.values() for title in own}),
        "interactions": sum(map(len, expected.values())),
    }


def test_each_step_is_counted() -> None:
    rows = [(0, 0, 1), (0, 1, 2), (0, 2, 3), (0, 2, 4), (1, 0, 1), (1, 3, 2), (2, 2, 5), (2, 3, 6), (2, 0, 7)]
    dataset = sequences.prepare(raw_of(rows, ["A (1990)", "A (1990)", "B", "C", "never used"]), 1)
    assert dataset.counts == {
        "raw": {"users": 3, "items": 4, "interactions": 9},
        "merged": {"users": 3, "items": 3, "interactions": 9},
        "unique": {"users": 3, "items": 3, "interactions": 7},
        "core": {"users": 3, "items": 3, "interactions": 7},
        "usable": {"users": 1, "items": 3, "interactions": 3},
    }
    assert dataset.titles == ("A (1990)", "B", "C")
    assert dataset.merged == ((0, ("i0", "i1")),)
    assert dataset.sequences[0].tolist() == [1, 2, 0]


def test_ties_in_time_stay_in_file_order() -> None:
    rows = [(0, item, 5) for item in (3, 1, 2, 0)]
    assert sequences.prepare(raw_of(rows, list("abcd")), 1).sequences[0].tolist() == [3, 1, 2, 0]


def test_of_repeated_events_the_first_in_time_stays() -> None:
    rows = [(0, 0, 9), (0, 1, 5), (0, 2, 6), (0, 0, 4)]
    dataset = sequences.prepare(raw_of(rows, list("abc")), 1)
    assert (dataset.sequences[0].tolist(), dataset.times[0].tolist()) == ([0, 1, 2], [4, 5, 6])


def test_the_digest_follows_whatever_can_change_a_result() -> None:
    rows = [(user, item, 10 * user + item) for user in (0, 1) for item in (0, 1, 2)]
    base = raw_of(rows, list("abc"))
    variants = [
        base,
        raw_of([*rows[:-1], (1, 2, 99)], list("abc")),
        raw_of([(0, 1, 0), (0, 0, 1), *rows[2:]], list("abc")),
        raw_of(rows, list("abd")),
        replace(base, genres=(("x",), ("b",), ("c",))),
        replace(base, source=Source("other", "real")),
        replace(base, user=np.array([0, 0, 0, 1, 1, 2]), user_ids=("u0", "u1", "u2")),
    ]
    digests = [sequences.prepare(raw, 1, "temporal").digest for raw in variants]
    assert len(set(digests)) == len(variants)
    assert digests[0] == sequences.prepare(raw_of(rows, list("abc")), 1, "temporal").digest


def test_nobody_left_says_which_core_leaves_somebody() -> None:
    rows = [(user, item, item) for user in range(4) for item in range(4)]
    with pytest.raises(UserError, match=r"nobody is left in the 9-core.*unique: 4 users.*try core = 4"):
        sequences.prepare(raw_of(rows, list("abcd")), 9)
    with pytest.raises(UserError, match="nobody has 3 different items"):
        sequences.prepare(raw_of([(0, 0, 1), (0, 1, 2)], list("ab")), 5)


def test_leave_one_out_takes_the_last_two() -> None:
    split = sequences.split(dataset_of([[1, 2, 3], [1, 2, 3, 4, 5]]), "leave_one_out")
    assert split.train_end.tolist() == [1, 3]
    assert split.validation.tolist() == [1, 3]
    assert split.test.tolist() == [2, 4]


def test_leave_one_out_refuses_histories_that_are_too_short() -> None:
    with pytest.raises(UserError, match="needs 3 events per user, the shortest history has 2"):
        sequences.split(dataset_of([[1, 2, 3], [1, 2]]), "leave_one_out")


def test_temporal_targets_by_hand() -> None:
    # 20 events at 0..19: the dates are 16 and 18
    dataset = dataset_of([[*range(13)], [13, 16, 17, 18], [14, 15, 19]])
    split = sequences.split(dataset, "temporal")
    assert split.train_end.tolist() == [13, 1, 2]
    assert split.validation.tolist() == [-1, 1, -1]
    assert split.test.tolist() == [-1, 3, 2]


def test_a_temporal_target_needs_a_history_and_stays_on_its_side_of_the_dates() -> None:
    rng = np.random.default_rng(0)
    dataset = dataset_of([sorted(rng.integers(0, 100, rng.integers(1, 9)).tolist()) for _ in range(200)])
    split = sequences.split(dataset, "temporal")
    flat = np.sort(np.concatenate(dataset.times))
    first, second = flat[int(0.8 * len(flat))], flat[int(0.9 * len(flat))]
    for own, end, validation, test in zip(dataset.times, split.train_end, split.validation, split.test, strict=True):
        assert end == (own < first).sum()
        between = [p for p in range(1, len(own)) if first <= own[p] < second]
        after = [p for p in range(1, len(own)) if own[p] >= second]
        assert (validation, test) == (between[0] if between else -1, after[0] if after else -1)


def test_a_temporal_split_without_test_users_is_refused() -> None:
    with pytest.raises(UserError, match="0 validation"):
        sequences.split(dataset_of([[5, 5, 5], [5, 5, 5]]), "temporal")


def test_tied_targets_are_those_that_file_order_picked() -> None:
    dataset = dataset_of([[1, 2, 2], [1, 1, 2], [1, 2, 3], [4, 4, 4]])
    split = sequences.split(dataset, "leave_one_out")
    assert sequences.tied(dataset, split).tolist() == [True, False, False, True]
    assert sequences.tied_share(dataset, split) == 0.5
    later = replace(split, test=np.array([0, 0, -1, 0]))  # a neighbour after the target counts too
    assert sequences.tied(dataset, later).tolist() == [False, True, False, True]
    assert sequences.tied_share(dataset, later) == pytest.approx(2 / 3)


def tied_world() -> RawInteractions:
    """40 users with six events at two times, in falling order of the items' numbers; ids rise with the numbers, but not
    as text."""
    rows = [(user, item, 7 if item > 2 else 9) for user in range(40) for item in (5, 4, 3, 2, 1, 0)]
    return replace(raw_of(rows, list("abcdef")), item_ids=("8", "9", "10", "11", "12", "13"))


def histories(raw: RawInteractions, ties: Ties, seed: int = 0) -> list[list[int]]:
    dataset = sequences.prepare(raw, 1, ties=ties, seed=seed)
    assert dataset.ties == ties
    return [own.tolist() for own in dataset.sequences]


def test_ties_stand_in_the_order_that_is_asked_for() -> None:
    raw = tied_world()
    assert histories(raw, "file") == [[5, 4, 3, 2, 1, 0]] * 40
    assert histories(raw, "item") == [[3, 4, 5, 0, 1, 2]] * 40
    as_text = replace(raw, item_ids=("x8", "x9", "x10", "x11", "x12", "x13"))
    assert histories(as_text, "item") == [[3, 4, 5, 2, 0, 1]] * 40
    assert histories(replace(raw, item_ids=()), "item") == [[3, 4, 5, 0, 1, 2]] * 40
    assert sequences.prepare(raw, 1).item_ids == raw.item_ids


def test_shuffled_ties_are_drawn_anew_for_each_user_by_the_seed() -> None:
    found = histories(tied_world(), "shuffled")
    assert {tuple(sorted(own[:3])) for own in found} == {(3, 4, 5)}, "time comes first"
    assert len({tuple(own[:3]) for own in found}) == len({tuple(own[3:]) for own in found}) == 6
    assert found == histories(tied_world(), "shuffled")
    assert found != histories(tied_world(), "shuffled", seed=1)


def test_the_order_of_ties_is_part_of_the_digest() -> None:
    settings: list[tuple[Ties, int]] = [("file", 0), ("item", 0), ("shuffled", 0), ("shuffled", 1)]
    assert len({sequences.prepare(tied_world(), 1, ties=ties, seed=seed).digest for ties, seed in settings}) == 4


def test_errors_name_the_data_set_as_the_profile_does() -> None:
    with pytest.raises(UserError, match=r"^mine \(tiny\): leave_one_out needs 3 events"):
        sequences.split(replace(dataset_of([[1, 2]]), label="mine"), "leave_one_out")
    with pytest.raises(UserError, match=r"^tiny: the temporal split leaves"):
        sequences.split(replace(dataset_of([[5, 5, 5]]), label="tiny"), "temporal")
