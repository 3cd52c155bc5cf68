"""What prepared data hide, against planted truth and plain Python."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rosepo_bench.data import population, sequences
from rosepo_bench.data.types import Dataset, Source, Split, Ties

LENGTH = 10


def dataset_of(histories: list[list[int]], times: list[list[int]] | None = None, **changes: Any) -> Dataset:
    items = max(max(own) for own in histories) + 1
    return Dataset(
        name="planted",
        source=Source("planted", "real"),
        titles=tuple(f"t{item}" for item in range(items)),
        genres=((),) * items,
        sequences=tuple(np.array(own, dtype=np.int32) for own in histories),
        times=tuple(np.array(own, dtype=np.int64) for own in times or [list(range(len(own))) for own in histories]),
        user_ids=tuple(f"u{user}" for user in range(len(histories))),
        **changes,
    )


def windows(people: int, shifts: dict[int, tuple[int, ...]]) -> Dataset:
    """People with items of their own, each published as windows of their history that begin at the given shifts."""
    histories = []
    for person in range(people):
        whole = list(range(person * 20, person * 20 + 20))
        histories += [whole[shift : shift + LENGTH] for shift in shifts.get(person, (0,))]
    return dataset_of(histories)


def cloned_share(dataset: Dataset, kind: sequences.Kind = "leave_one_out", size: int = 20) -> float:
    return float(population.facts(dataset, sequences.split(dataset, kind), size)["cloned_share"])


def test_the_share_of_cloned_users_is_the_planted_one() -> None:
    """30 of 100 users have a clone two items further on, whose training part holds their target."""
    assert cloned_share(windows(70, dict.fromkeys(range(30), (0, 2)))) == 0.3
    assert cloned_share(windows(100, {})) == 0


def test_a_clone_tells_a_target_only_if_its_training_part_reaches_it() -> None:
    for shift, share in ((1, 0.0), (2, 0.5), (7, 0.5), (8, 0.0)):  # the target is the clone's first items from 7 on
        assert cloned_share(windows(10, dict.fromkeys(range(10), (0, shift)))) == share, shift
    dense = windows(1, {0: tuple(range(11))})  # all windows of one history: the last two targets are nobody's training
    assert cloned_share(dense) == pytest.approx(9 / 11)


def test_the_two_items_before_the_target_belong_to_the_clone() -> None:
    """Another order, and the three items with another one between them, are no clones."""
    base = list(range(10))
    assert cloned_share(dataset_of([base, [7, 8, 9, 20, 21]])) == 0.5
    assert cloned_share(dataset_of([base, [8, 7, 9, 20, 21]])) == 0
    assert cloned_share(dataset_of([base, [7, 8, 22, 9, 20, 21]])) == 0
    assert cloned_share(dataset_of([base, [7, 8, 9, 20]])) == 0  # its validation target


def test_a_users_own_training_part_makes_no_clone() -> None:
    own = dataset_of([[1, 2, 3, 4, 1, 2, 3], [5, 6, 7, 8]])
    split = sequences.split(own, "leave_one_out")
    assert population.cloned(own, split).tolist() == [False, False]
    for clone in ([1, 2, 3, 5, 6], [0, 1, 2, 3, 5, 6]):
        for histories in ([own.sequences[0].tolist(), clone], [clone, own.sequences[0].tolist()]):
            both = dataset_of(histories)
            found = population.cloned(both, sequences.split(both, "leave_one_out")).tolist()
            assert found == [len(one) == 7 for one in histories]


def plainly(dataset: Dataset, split: Split, items: int) -> list[bool]:
    """The same in slow, obvious Python."""
    found = []
    for user, test in enumerate(split.test.tolist()):
        wanted = dataset.sequences[user][max(0, test - items) : test + 1].tolist() if test >= 2 else None
        trained = [own[:end].tolist() for own, end in zip(dataset.sequences, split.train_end.tolist(), strict=True)]
        others = [own for other, own in enumerate(trained) if other != user]
        found.append(any(wanted in windows_of(own, wanted) for own in others if wanted))
    return found


def random_data(seed: int) -> Dataset:
    draw = np.random.default_rng(seed)
    histories = [draw.permutation(6)[: draw.integers(3, 7)].tolist() for _ in range(60)]
    return dataset_of(histories, [sorted(draw.integers(0, 25, len(own)).tolist()) for own in histories])


def windows_of(own: list[int], like: list[int]) -> list[list[int]]:
    return [own[at : at + len(like)] for at in range(len(own) - len(like) + 1)]


@pytest.mark.parametrize("items", [2, 3, 5])
@pytest.mark.parametrize("kind", ["leave_one_out", "temporal"])
@pytest.mark.parametrize("seed", range(4))
def test_clones_agree_with_plain_python(seed: int, kind: sequences.Kind, items: int) -> None:
    dataset = random_data(seed)
    split = sequences.split(dataset, kind)
    expected = plainly(dataset, split, items)
    assert 0 < sum(expected) < (split.test >= 0).sum()
    assert population.cloned(dataset, split, items).tolist() == expected


def test_windows_of_a_history_copy_five_items_and_runs_of_a_series_do_not() -> None:
    copied = windows(70, dict.fromkeys(range(30), (0, 2)))
    told = population.facts(copied, sequences.split(copied, "leave_one_out"), 20)
    assert (told["cloned_share"], told["copied_share"]) == (0.3, 0.3)
    assert population.warning(told).startswith("**Cloned users.** 30.0 % of the test targets stand after the same 5")
    series = dataset_of([[0, 1, 2, 7, 8, 9], [3, 4, 5, 7, 8, 9, 10, 11], [6, 12, 13, 7, 8, 9, 14, 15]])
    told = population.facts(series, sequences.split(series, "leave_one_out"), 5)
    assert (told["cloned_share"], told["copied_share"]) == (pytest.approx(1 / 3), 0)
    assert population.warning(told) == ""


def test_item_numbers_near_the_largest_do_not_collide() -> None:
    """Triples of 2^31 items do not fit into 64 bits."""
    top = 2**31 - 1
    histories = [[0, 1, top - 2, top - 1, top], [top - 2, top - 1, top, 5, 6], [top - 1, top - 2, top, 7, 8]]
    dataset = replace(dataset_of([[0, 1, 2]] * 3), sequences=tuple(np.array(own, np.int32) for own in histories))
    split = Split("leave_one_out", np.array([3, 3, 3]), np.array([3, 3, 3]), np.array([4, 4, 4]))
    assert population.cloned(dataset, split).tolist() == [True, False, False]


@pytest.mark.parametrize("kind", ["leave_one_out", "temporal"])
def test_facts_depend_neither_on_the_order_of_users_nor_on_the_numbers_of_items(kind: sequences.Kind) -> None:
    dataset, draw = random_data(9), np.random.default_rng(0)
    ids = tuple(str(100 + item) for item in range(6))
    dataset = replace(dataset, item_ids=ids)
    users, renamed = draw.permutation(dataset.users), draw.permutation(6)
    other = replace(
        dataset,
        sequences=tuple(renamed[dataset.sequences[user]].astype(np.int32) for user in users),
        times=tuple(dataset.times[user] for user in users),
        user_ids=tuple(dataset.user_ids[user] for user in users),
        item_ids=tuple(ids[item] for item in np.argsort(renamed)),
    )
    first, second = (population.facts(one, sequences.split(one, kind), 3) for one in (dataset, other))
    assert first["cloned_share"] > 0
    assert first["tied_ascending"] not in (None, 0.0, 1.0)
    assert first.pop("left_out_first") != second.pop("left_out_first")  # the first in the data set's order
    assert first == second


def test_later_training_events_by_hand() -> None:
    """Two of the second user's training events are later than the first user's test event, at 3; one is at 3."""
    dataset = dataset_of([[0, 1, 2], [0, 1, 2, 3, 4, 5, 6]], [[1, 2, 3], [1, 2, 3, 4, 5, 6, 7]])
    assert population.facts(dataset, sequences.split(dataset, "leave_one_out"), 2)["later_share"] == 2 / 6
    temporal = random_data(1)
    assert population.facts(temporal, sequences.split(temporal, "temporal"), 2)["later_share"] == 0
    assert population.facts(temporal, sequences.split(temporal, "leave_one_out"), 2)["later_share"] > 0.5


def test_tied_neighbours_ascend_in_the_owners_ids() -> None:
    """Nine users with two ties each, all ascending in the ids 9, 10, 11, …; one with a tie that descends."""
    histories = [[0, 1, 2, 3]] * 9 + [[1, 0, 2, 3]]
    times = [[5, 5, 6, 6]] * 9 + [[5, 5, 6, 7]]
    ids = ("9", "10", "11", "12")
    dataset = dataset_of(histories, times, item_ids=ids)
    told = population.facts(dataset, sequences.split(dataset, "leave_one_out"), 2)
    assert (told["tied_neighbours"], told["tied_ascending"]) == (19 / 30, 18 / 19)
    text = replace(dataset, item_ids=("b9", "b10", "b11", "b12"))  # as text b10 comes before b9
    assert population.facts(text, sequences.split(text, "leave_one_out"), 2)["tied_ascending"] == 10 / 19
    few = dataset_of([[0, 1, 2, 3]] * 9, [[5, 5, 6, 7]] * 9)
    assert population.facts(few, sequences.split(few, "leave_one_out"), 2)["tied_ascending"] is None


def test_users_without_a_list_are_counted_and_named() -> None:
    histories = [[0, 1, 2], list(range(9)), list(range(10)), *([[7, 8, 9]] * 3)]
    dataset = dataset_of(histories)
    split = sequences.split(dataset, "leave_one_out")
    for size, names in ((2, ["u2"]), (3, ["u1", "u2"]), (8, ["u1", "u2"]), (9, ["u0", "u1", "u2"])):
        told = population.facts(dataset, split, size)
        assert (told["test_users"], told["left_out_first"]) == (6, names)
        assert told["left_out"] == (6 if size == 9 else len(names))


def ascending(share: float, ties: Ties = "file") -> dict[str, Any]:
    return {"tied_share": 0.44, "ties": ties, "tied_neighbours": 0.22, "tied_ascending": share}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, []),
        ({"tied_share": 0.0}, []),
        ({"tied_share": 0.44}, ["For 44.0 % of the users the last events have the same time: file order determines"]),
        (ascending(0.9, "item"), ["the order of item ids determines the target"]),
        (ascending(0.99, "shuffled"), ["a draw determines the target"]),
        (ascending(0.94), ["file order determines"]),
        (ascending(0.95), ["file order determines", "22.0 % of neighbouring events .* 95.0 % of these ascend"]),
        ({"cloned_share": 0.0}, ["For 0.0 % of the test targets"]),
        ({"cloned_share": 0.91}, ["For 91.0 % of the test targets"]),
        ({"later_share": 0.0}, []),
        ({"later_share": 0.987}, ['98.7 % of the training events are later .* `split = "temporal"`']),
        ({"left_out": 0}, []),
        (
            {"left_out": 1, "test_users": 16, "left_out_first": ["big"]},
            [r"Left out: 1 of 16 users with a test target \(`big`\)"],
        ),
        (
            {"left_out": 4, "test_users": 16, "left_out_first": ["a", "b", "c"]},
            [r"Left out: 4 of 16 users .* \(`a`, `b`, `c`, …\)"],
        ),
    ],
)
def test_remarks(told: dict[str, Any], said: list[str]) -> None:
    found = population.remarks(told)
    assert len(found) == len(said)
    for sentence, pattern in zip(found, said, strict=True):
        assert re.search(pattern, sentence), sentence


@pytest.mark.parametrize(("share", "warned"), [(None, False), (0.0, False), (0.05, False), (0.051, True)])
def test_only_many_clones_are_warned_of(share: float | None, warned: bool) -> None:
    assert population.warning({"copied_share": share}).startswith("**Cloned users.** 5.1 %" if warned else "")
    assert bool(population.warning({"copied_share": share, "cloned_share": 0.9})) == warned
