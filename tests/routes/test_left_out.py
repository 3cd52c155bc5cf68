"""A user who has met all items is left out and counted; everybody else is trained on and evaluated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import planted
import pytest
from planted import ITEMS, START, USERS

from rosepo_bench.base.errors import UserError
from rosepo_bench.data import population
from rosepo_bench.runs import record as recording

LISTED = ITEMS - 6  # steps up to here leave five other items for a list of six


def world(who: str = "big", items: int = ITEMS) -> planted.World:
    """A planted world with one user more, who has met the first ``items`` of all items."""
    base = planted.world()
    more = tuple((who, item, START + item) for item in range(items))
    return replace(base, rows=(*base.rows, *more))


@pytest.mark.parametrize("method", ["popularity", "dpo", "rosepo"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_user_who_has_met_all_items_is_left_out_and_counted(method: str, listed: bool, tmp_path: Path) -> None:
    cell = planted.cell(
        tmp_path / "out", world().write(tmp_path), f"prompt.candidates={str(listed).lower()}", method=method
    )
    cell.check_data()
    recording.run(cell)
    told = json.loads((cell.folder / "record.json").read_text())["data"]
    assert (told["users"], told["test_users"], told["left_out"], told["left_out_first"]) == (
        USERS,
        USERS + 1,
        1,
        ["big"],
    )
    assert told == {**told, **population.facts(cell.task.data, cell.task.split, 6)}
    big = cell.task.data.user_ids.index("big")
    for part in ("validation", "test"):
        assert big not in cell.task.examples(part).user.tolist()
    if method != "popularity":
        pairs = cell.pairing.examples["train"]
        assert big not in pairs.user.tolist(), "their last three training steps have no list"


def test_training_ends_for_them_where_lists_end(tmp_path: Path) -> None:
    """Steps with a list are trained on; without candidates in the prompt all of them are."""
    prefix = world().write(tmp_path)
    for listed, last in (("true", LISTED), ("false", ITEMS - 3)):
        cell = planted.cell(tmp_path / listed, prefix, f"prompt.candidates={listed}")
        big = cell.task.data.user_ids.index("big")
        assert cell.shared.finetuning.ends[big] - 1 == last


def test_a_data_set_of_such_users_is_refused_by_its_name(tmp_path: Path) -> None:
    base = world()
    crowd = [(f"big{n}", item, START + item) for n in range(USERS + 2) for item in range(ITEMS)]
    cell = planted.cell(tmp_path / "out", replace(base, rows=(*base.rows, *crowd)).write(tmp_path))
    with pytest.raises(UserError, match=r"^planted: 27 of 51 users with a target, such as user big, have met so many"):
        cell.check_data()
