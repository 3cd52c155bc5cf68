"""What a report says of the data, and the cut-offs that it leaves out."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import PROTOCOL, evaluation, ranks, read_back, record
from test_tables import row

from rosepo_bench.report.tables import render, report_of, write_report

FACTS: dict[str, Any] = {
    "tied_share": 0.44,
    "ties": "file",
    "tied_neighbours": 0.22,
    "tied_ascending": 0.998,
    "cloned_share": 0.91,
    "copied_share": 0.87,
    "later_share": 0.987,
    "test_users": 103,
    "left_out": 3,
    "left_out_first": ["big", "a*b", "ω"],
}
SAID = (
    "For 44.0 % of the users the last events have the same time: file order determines the target.",
    "22.0 % of neighbouring events have the same time, and 99.8 % of these ascend in the item id: file order carries",
    "For 91.0 % of the test targets, another user's training part has the same target after the same two items.",
    '98.7 % of the training events are later than the earliest test event: `split = "temporal"`',
    "Left out: 3 of 103 users with a test target (`big`, `a*b`, `ω`), who have met too many items",
)


def caption(text: str) -> str:
    return text.split("## movielens\n\n")[1].split("\n\n### ")[0]


def test_the_caption_says_what_the_data_hide(tmp_path: Path) -> None:
    text = caption(render(read_back(tmp_path, record("sft", ranks(30), data=FACTS))))
    for said in SAID:
        assert said in " ".join(text.split("\n\n")[0].split()), said
    assert text.split("\n\n")[1].startswith("**Cloned users.** 87.0 % of the test targets stand after the same 5")
    assert max(map(len, text.splitlines())) <= 100


def test_runs_of_a_series_are_told_and_not_warned_of(tmp_path: Path) -> None:
    text = caption(render(read_back(tmp_path, record("sft", ranks(30), data={**FACTS, "copied_share": 0.05}))))
    assert "For 91.0 % of the test targets, another user's" in " ".join(text.split())
    assert "\n\n" not in text


def test_records_from_before_these_facts_are_read_beside_newer_ones(tmp_path: Path) -> None:
    alone = caption(render(read_back(tmp_path / "alone", record("sft", ranks(30)))))
    assert alone.endswith("file order determines the target.")
    for old, new in (("sft", "dpo"), ("dpo", "sft")):
        both = (record(old, ranks(30)), record(new, ranks(20), data=FACTS))
        assert "**Cloned users.**" in render(read_back(tmp_path / old, *both))


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (20, ["HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10"]),
        (11, ["HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10"]),
        (10, ["HR@1", "HR@5", "NDCG@5"]),
        (5, ["HR@1"]),
    ],
)
def test_cut_offs_that_no_list_exceeds_are_not_shown(tmp_path: Path, size: int, shown: list[str]) -> None:
    rank = ranks(30).clip(max=size)
    records = read_back(tmp_path, record("sft", rank, evaluations={PROTOCOL: evaluation(rank, size=size)}))
    assert list(row(render(records), "Quality", "sft")) == ["method", "seeds", *shown]
    _, results = write_report(tmp_path, report_of(records))
    with results.open(newline="") as file:
        found = {one["metric"].upper() for one in csv.DictReader(file)}
    assert {name for name in found if name.startswith(("HR@", "NDCG@"))} == set(shown)


def test_lists_of_one_item_leave_nothing_to_show(tmp_path: Path) -> None:
    rank = np.ones(100, np.int32)
    records = read_back(tmp_path, record("sft", rank, evaluations={PROTOCOL: evaluation(rank, size=1)}))
    assert row(render(records), "Quality", "sft") == {"method": "sft", "seeds": "1", "result": "–"}


def test_without_the_length_of_the_lists_all_cut_offs_are_shown(tmp_path: Path) -> None:
    foreign = {"facts": {"name": "mine"}, "metrics": evaluation(ranks(30))["metrics"]}
    records = read_back(tmp_path, record("sft", ranks(30), evaluations={PROTOCOL: foreign}))
    assert "HR@10" in row(render(records), "Quality", "sft")
