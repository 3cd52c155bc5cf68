"""Each part asks for its own item with its own history, among items that the user had not met."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import planted
import pytest
from planted import get

from rosepo_bench.data.types import Examples
from rosepo_bench.runs.cells import Cell

CASES = pytest.mark.parametrize("split", ["leave_one_out", "temporal"])


def made(folder: Path, split: str, *settings: str, world: planted.World | None = None) -> tuple[Cell, planted.World]:
    world = world or planted.world()
    setting = f"datasets.planted.split={split}"
    cell = planted.cell(folder / "out", world.write(folder), setting, *settings, method="dpo")
    return cell, world


def examples(cell: Cell) -> dict[str, Examples]:
    found = {part: get(cell, cell.task.examples_stage(part)) for part in ("validation", "test")}
    return {"train": cell.pairing.examples["train"], **found}


def targets(world: planted.World, split: str) -> dict[str, dict[int, int]]:
    """For each part the step that is asked of each user, by hand."""
    if split == "leave_one_out":
        ends = [len(own) for own in world.histories]
        return {"validation": {u: n - 2 for u, n in enumerate(ends)}, "test": {u: n - 1 for u, n in enumerate(ends)}}
    found: dict[str, dict[int, int]] = {"validation": {}, "test": {}}
    first, second = world.dates
    for user, mine in enumerate(world.ordered):
        times = [world.rows[number][2] for number in mine]
        for part, low, high in (("validation", first, second), ("test", second, 1 << 60)):
            steps = [step for step, time in enumerate(times) if step and low <= time < high]
            if steps:
                found[part][user] = steps[0]
    return found


@CASES
def test_targets_and_histories_are_the_splits(split: str, tmp_path: Path) -> None:
    cell, world = made(tmp_path, split)
    wanted, found = targets(world, split), examples(cell)
    for part in ("validation", "test"):
        given = found[part]
        assert dict(zip(given.user.tolist(), given.step.tolist(), strict=True)) == wanted[part]
        assert len(given) == len(wanted[part]) > 5
    given, training = found["train"], world.training(split)
    assert all(1 <= s < len(training[u]) for u, s in zip(given.user.tolist(), given.step.tolist(), strict=True))
    for given in found.values():
        rows = list(zip(given.user.tolist(), given.step.tolist(), strict=True))
        assert given.target.tolist() == [world.histories[u][s] for u, s in rows]
        assert [own.tolist() for own in cell.task.queries(given).histories] == [world.histories[u][:s] for u, s in rows]
        at = np.take_along_axis(given.candidates, given.position[:, None], 1)[:, 0]
        assert at.tolist() == given.target.tolist()


@CASES
def test_pairs_are_the_last_training_steps_of_their_users(split: str, tmp_path: Path) -> None:
    cell, world = made(tmp_path, split)
    given, training = cell.pairing.examples["train"], world.training(split)
    assert len(given) == 50
    short = 0
    for user in set(given.user.tolist()):
        steps, end = given.step[given.user == user].tolist(), len(training[user])
        assert steps == list(range(end - len(steps), end))
        short += len(steps) < min(3, end - 1)
    assert short <= 1  # the user with whom the number is reached


@CASES
def test_negatives_are_new_to_the_user_and_the_future_is_open(split: str, tmp_path: Path) -> None:
    cell, world = made(tmp_path, split)
    for part, given in examples(cell).items():
        future = 0
        for user, step, row in zip(given.user.tolist(), given.step.tolist(), given.candidates.tolist(), strict=True):
            assert len(set(row)) == len(row) == 6
            assert not set(row) & set(world.histories[user][:step])
            future += bool(set(row) & set(world.histories[user][step + 1 :]))
        assert (future > 0) or part == "test"


def test_lists_do_not_depend_on_the_target(tmp_path: Path) -> None:
    """Another target at the same place, and the same negatives counted among what a user has not met."""
    ranks = []
    world = planted.world()
    for number, given in enumerate((world, world.changed("leave_one_out", "test"))):
        cell, _ = made(tmp_path / str(number), "leave_one_out", world=given)
        test, found = cell.task.test, []
        for user, step, row in zip(test.user.tolist(), test.step.tolist(), test.candidates.tolist(), strict=True):
            unmet = [item for item in range(planted.ITEMS) if item not in given.histories[user][: step + 1]]
            found.append([unmet.index(item) if item in unmet else -1 for item in row])
        ranks.append(found)
    assert ranks[0] == ranks[1]
    assert {row.index(-1) for row in ranks[0]} == set(range(6))


def test_fewer_users_are_a_part_of_all(tmp_path: Path) -> None:
    """``users`` limits the test; validation and training keep everybody."""
    all_of_them, some = (
        examples(made(tmp_path, "leave_one_out", *more)[0]) for more in ((), ("datasets.planted.users=9",))
    )
    rows = some["test"].user
    assert len(rows) == 9
    assert some["test"].candidates.tolist() == all_of_them["test"].candidates[rows].tolist()
    for part in ("train", "validation"):
        assert some[part].candidates.tolist() == all_of_them[part].candidates.tolist()
