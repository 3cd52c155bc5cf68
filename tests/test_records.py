"""Records: complete, in order, never of two configurations at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rosepo_bench.base import records
from rosepo_bench.base.errors import UserError


def fail(*_: Any, **__: Any) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def record(**changes: Any) -> dict[str, Any]:
    return {"schema": 1, "key": "a" * 64, "dataset": "movielens", "method": "sft", "seed": 0, **changes}


def predictions(n: int = 3) -> dict[str, np.ndarray]:
    return {"users": np.arange(n), "rank": np.ones(n, np.int32)}


def test_records_come_back_in_order(tmp_path: Path) -> None:
    for dataset, method, seed in (("steam", "sft", 0), ("movielens", "sft", 10), ("movielens", "sft", 2)):
        records.write_record(tmp_path, record(dataset=dataset, method=method, seed=seed), predictions(seed + 1))
    records.write_record(tmp_path, record(method="dpo"), predictions())
    found = records.read_records(tmp_path)
    cells = [(one.dataset, one.method, one.seed) for one in found]
    assert cells == [
        ("movielens", "dpo", 0),
        ("movielens", "sft", 2),
        ("movielens", "sft", 10),
        ("steam", "sft", 0),
    ]
    assert len(found[1].predictions["rank"]) == 3
    assert found[0]["key"] == "a" * 64
    assert found[0].path.parent.name == "seed0-" + "a" * 12
    assert records.read_records(tmp_path / "nothing") == []


def test_a_record_implies_its_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed rewrite must not leave the old record beside the new predictions."""
    path = records.write_record(tmp_path, record(), predictions())
    monkeypatch.setattr(records, "write_json", fail)
    with pytest.raises(OSError, match="Input/output"):
        records.write_record(tmp_path, record(), predictions(5))
    assert not path.exists()
    assert records.read_records(tmp_path) == []
    monkeypatch.undo()
    monkeypatch.setattr(records, "write_npz", fail)
    with pytest.raises(OSError, match="Input/output"):
        records.write_record(tmp_path, record(), predictions(5))
    assert records.read_records(tmp_path) == []


def test_configurations_are_chosen_not_mixed(tmp_path: Path) -> None:
    for key in ("a" * 64, "b" * 64):
        records.write_record(tmp_path, record(key=key), predictions())
    with pytest.raises(UserError, match="two configurations of one cell"):
        records.read_records(tmp_path)
    assert [one.key for one in records.read_records(tmp_path, {"b" * 64, "c" * 64})] == ["b" * 64]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"schema": 2}', "schema 2, but this program knows 1"),
        ('{"schema": 1, "key": "k", "seed": 0}', "lacks dataset, method"),
        ("[]", "not a record"),
        ("{}", "not a record"),
        ('{"schema": 1,', "not valid JSON"),
        ("\udcff", "not valid JSON"),
    ],
)
def test_unusable_record_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = records.write_record(tmp_path, record(), predictions())
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=problem) as caught:
        records.read_records(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "/etc"])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a folder"):
        records.record_folder(tmp_path, "movielens", name, 0, "k" * 12)


def test_record_and_predictions_must_fit(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="schema 1"):
        records.write_record(tmp_path, record(schema=2), predictions())
    with pytest.raises(AssertionError, match="one rank per user"):
        records.write_record(tmp_path, record(), {"users": np.arange(2), "rank": np.arange(3)})
