"""Facts of data sets, and the real ones that the replicas are calibrated to."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from rosepo_bench.base.config import DatasetConfig
from rosepo_bench.data import catalog, sequences
from rosepo_bench.data.describe import describe, render
from rosepo_bench.data.synthetic.calibration import CALIBRATED, FACTS, gini
from rosepo_bench.data.synthetic.replica import generate
from rosepo_bench.data.types import Dataset, Source

CORE = 5  # what the facts were measured on


def small(kind: str = "real") -> Dataset:
    """Three users; item 0 is everybody's; the last two events of the first user tie."""
    name = "steam-replica" if kind == "synthetic" else "three"
    return Dataset(
        name=name,
        source=Source(name, kind, note="synthetic: made up" if kind == "synthetic" else ""),  # type: ignore[arg-type]
        titles=("One", "Two words", "Three words here", "Four"),
        genres=(("A",), ("A", "B"), ("B",), ("A",)),
        sequences=tuple(np.array(items, dtype=np.int32) for items in ([0, 1, 2, 3], [0, 1, 2], [1, 2, 0])),
        times=tuple(np.array(times) for times in ([1, 2, 3, 3], [1, 2, 3], [1, 2, 3])),
        counts={"raw": {"users": 4, "items": 1234, "interactions": 11}},
    )


def test_facts_of_a_small_data_set() -> None:
    facts = describe(small(), sequences.split(small(), "leave_one_out"), 2)
    expected = {
        "users": 3,
        "items": 4,
        "interactions": 10,
        "density": 10 / 12,
        "history_min": 3,
        "history_median": 3.0,
        "history_mean": 10 / 3,
        "history_max": 4,
        "popularity_gini": ((-3) * 1 + (-1 + 1 + 3) * 3) / (4 * 10),
        "popularity_top": 1.0,
        "tied_share": 1 / 3,
        "ties": "file",
        "tied_neighbours": 1 / 7,
        "cloned_share": 0.0,
        "copied_share": 0.0,
        "later_share": 0.0,
        "test_users": 3,
        "left_out": 1,
        "title_characters": 6.5,
        "title_words": 1.5,
        "genres": {"A": 3, "B": 2},
        "comparison": None,
    }
    assert {name: facts[name] for name in expected} == {
        name: pytest.approx(value) if isinstance(value, float) else value for name, value in expected.items()
    }


def test_real_data_is_not_called_synthetic() -> None:
    text = render(small(), sequences.split(small(), "leave_one_out"))
    assert "synthetic" not in text.lower()
    assert "1,234" in text


def test_what_the_data_hide_is_said() -> None:
    clones = dataclasses.replace(
        small(),
        sequences=tuple(np.array(items, dtype=np.int32) for items in [[1, 2, 3, 0]] * 3),
        times=(np.array([1, 2, 2, 2]), *[np.array([1, 2, 3, 4])] * 2),
        label="mine",
        user_ids=("ann", "bob", "cy"),
    )
    split = sequences.split(clones, "leave_one_out")
    split = dataclasses.replace(split, train_end=np.array([2, 4, 2]))  # the second's training part reaches the target
    text = render(clones, split, 2)
    assert text.startswith("## mine (three)\n")
    lines = text.splitlines()
    for said in (
        "- For 33.3 % of the users the last events have the same time: file order determines the target.",
        "- For 66.7 % of the test targets, another user's training part has the same target after the same two items.",
        '- 25.0 % of the training events are later than the earliest test event: `split = "temporal"` holds out',
        "- Left out: 3 of 3 users with a test target (`ann`, `bob`, `cy`), who have met",
        "**Cloned users.** 66.7 % of the test targets stand after the same 5 items",
    ):
        assert any(line.startswith(said) for line in lines), said
    rows = {cells[1].strip(): cells[2].strip() for line in lines if len(cells := line.split("|")) == 4}
    assert rows["order of a user's events of one time"] == "file"
    assert rows["of these, ascending in the item id"] == "–"  # two ties are too few to say
    assert rows["of these, without enough items for a candidate list"] == "3"
    assert "Cloned" not in render(small(), sequences.split(small(), "leave_one_out"))


def test_a_replica_is_compared_with_real_facts() -> None:
    dataset = small("synthetic")
    split = sequences.split(dataset, "leave_one_out")
    facts = describe(dataset, split)
    row = facts["comparison"]["history_median"]
    assert row["deviation"] == pytest.approx(3 / 6 - 1)
    assert row["calibrated"]
    assert not facts["comparison"]["history_mean"]["calibrated"]
    text = render(dataset, split)
    assert text.startswith("## steam-replica (synthetic)")
    line = next(line for line in text.splitlines() if line.startswith("| history length, median *"))
    assert "-50.0%" in line
    assert FACTS["steam"]["history_median"].source in line


@pytest.mark.parametrize("kind", ["steam", "goodreads"])
def test_every_known_fact_of_a_replica_is_compared(kind: str) -> None:
    dataset = sequences.prepare(generate(kind, 60, 0), 2)
    split = sequences.split(dataset, "leave_one_out")
    facts = describe(dataset, split)
    assert set(facts["comparison"]) == set(FACTS[kind]) >= set(CALIBRATED)
    assert render(dataset, split).count("synthetic") >= 3


def test_gini() -> None:
    assert gini(np.array([4, 4, 4])) == 0
    assert gini(np.array([0, 0, 0, 9])) == pytest.approx(3 / 4)
    assert gini(np.array([3, 1])) == pytest.approx(1 / 4)


def test_steam_facts_are_those_of_the_real_file(shared_data: Path, tmp_path: Path) -> None:
    config = DatasetConfig(source="steam-australian", core=CORE, synthetic="never")
    found = catalog.resolve("steam-australian", config, shared_data, tmp_path, offline=True)
    dataset = catalog.load(found, config)
    facts = describe(dataset, sequences.split(dataset, "leave_one_out"))
    assert (facts["users"], facts["items"]) == (1301, 330)
    for name, fact in FACTS["steam"].items():
        assert fact.how == "measured"
        assert facts[name] == pytest.approx(fact.value, abs=6e-4), name


def test_goodreads_popularity_is_that_of_the_real_list(shared_data: Path) -> None:
    with (shared_data / "goodreads" / "goodbooks_titles.csv").open(encoding="utf-8", newline="") as file:
        counts = np.array([int(row["ratings_count"]) for row in csv.DictReader(file)])
    assert len(counts) == 10_000
    assert gini(counts) == pytest.approx(FACTS["goodreads"]["popularity_gini"].value, abs=6e-5)
    rng = np.random.default_rng(0)
    subsets = [gini(rng.choice(counts, 1500, replace=False)) for _ in range(100)]
    assert np.mean(subsets) == pytest.approx(gini(counts), abs=0.01)  # a random catalogue is as unequal
    assert gini(np.sort(counts)[-1500:]) < 0.52  # the most popular books alone are not
