"""``report --predictions``: users, targets and candidates by the data set's own ids, best first."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import PROTOCOL, record, write

from rosepo_bench import cli
from rosepo_bench.base import manifest
from rosepo_bench.data import candidates, storage
from rosepo_bench.data.types import Dataset, Examples, Source

LISTS = np.array([[0, 1, 2], [3, 2, 1], [4, 0, 3]], np.int32)
TARGET = np.array([1, 3, 3])
SCORES = np.array([[0.5, 2.0, 1.0], [1.0, 1.0, 1.0], [7.0, -np.inf, 7.0]], np.float32)
RANK = np.array([1, 3, 1])
USERS = np.array([0, 2, 3])
"""Of users 1 to 4, user 2 is not evaluated. User 3 ties with both others and user 4 with one: ranks are of doubles,
of which the scores are stored with fewer digits."""


def data(out: Path, **changes: Any) -> dict[str, str]:
    """The stages of a data set with five items and four users; what records say of it."""
    ids: dict[str, Any] = {"user_ids": ("u1", "u2", "=u3", "-4"), "item_ids": ("i0", "-1", '"2,"', "@3", "i\x1b4")}
    made = Dataset(
        name="five",
        source=Source("five", "real"),
        titles=tuple("ABCDE"),
        genres=((),) * 5,
        sequences=(np.arange(2, dtype=np.int32),) * 4,
        times=(np.arange(2),) * 4,
        digest="5" * 64,
        **(ids | changes),
    )
    nothing, position = np.zeros(3, np.int64), (TARGET[:, None] == LISTS).argmax(axis=1)
    examples = Examples(USERS, nothing, nothing, LISTS, TARGET, position)
    for name, key, parents in (("movielens.data", "a" * 64, []), ("movielens.test", "b" * 64, ["a" * 64])):
        folder = out / "stages" / f"{name}-{key[:16]}"
        folder.mkdir(parents=True)
        if parents:
            candidates.freeze(folder / "candidates.npz", examples)
        else:
            storage.save(made, folder)
        manifest.write(folder, {"name": name, "key": key, "inputs": {}, "seconds": 1.0, "parents": parents})
    return {"digest": made.digest, "candidates_sha256": candidates.content_hash(examples)}


def cell(out: Path, told: dict[str, str], method: str = "sft", **changes: Any) -> Path:
    """A record of these data with its predictions."""
    arrays = {"users": USERS, "candidates": LISTS, "scores": SCORES}
    arrays |= {name: changes.pop(name) for name in tuple(arrays) if name in changes}
    return write(out, record(method, RANK, data=told, **changes), **arrays)


def report(out: Path, file: Path) -> int:
    return cli.main(["report", "--out", str(out), "--predictions", str(file)])


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_row_is_a_users_ranked_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = cell(tmp_path, data(tmp_path))
    assert report(tmp_path, tmp_path / "made" / "p.csv") == 0
    assert f"written: {tmp_path / 'made' / 'p.csv'} (3 rows)" in capsys.readouterr().out
    rows = read(tmp_path / "made" / "p.csv")
    place = {"dataset": "movielens", "section": "movielens", "kind": "real", "profile": "demo", "protocol": PROTOCOL}
    place |= {"method": "sft", "settings": "", "seed": "0", "record": f"movielens/sft/{path.parent.name}"}
    assert [{name: row[name] for name in place} for row in rows] == [place] * 3
    assert [(row["user"], row["target"], row["rank"]) for row in rows] == [
        ("u1", "-1", "1"),
        ("'=u3", "'@3", "3"),
        ("-4", "'@3", "1"),
    ]
    assert [json.loads(row["candidates"]) for row in rows] == [
        ["-1", '"2,"', "i0"],
        ['"2,"', "-1", "@3"],
        ["@3", r"i\x1b4", "i0"],
    ]
    assert [json.loads(row["scores"]) for row in rows] == [[2, 1, 0.5], [1, 1, 1], [7, 7, None]]


def test_items_without_ids_go_by_their_titles(tmp_path: Path) -> None:
    cell(tmp_path, data(tmp_path, item_ids=()))
    assert report(tmp_path, tmp_path / "p.csv") == 0
    assert [row["target"] for row in read(tmp_path / "p.csv")] == ["B", "D", "D"]


def test_rows_of_one_method_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    told = data(tmp_path)
    for beta in (0.1, 1.0):
        cell(tmp_path, told, "dpo", settings={"loss.beta": beta, "rejected": 1})
    cell(tmp_path, told, "sft", seed=1)
    assert report(tmp_path, tmp_path / "p.csv") == 0
    found = {(row["method"], row["settings"], row["seed"]) for row in read(tmp_path / "p.csv")}
    assert found == {("dpo", "loss.beta=0.1", "0"), ("dpo", "loss.beta=1.0", "0"), ("sft", "", "1")}


def test_parquet_holds_ids_as_they_are(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    cell(tmp_path, data(tmp_path))
    assert report(tmp_path, tmp_path / "p.parquet") == 0
    rows = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["user"] for row in rows] == ["u1", "=u3", "-4"]
    assert rows[2]["candidates"] == ["@3", "i\x1b4", "i0"]
    assert rows[2]["scores"] == [7, 7, -np.inf]
    assert [(row["seed"], row["rank"]) for row in rows] == [(0, 1), (0, 3), (0, 1)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("p.json", "p.json: want a name that ends in .csv or .parquet"),
        ("p", "want a name that ends in"),
        ("there.csv", "there.csv: this exists already; delete it, or give another name"),
        ("p.parquet", "Parquet needs the package pyarrow, which is not installed: `pip install pyarrow`, or give a"),
    ],
)
def test_what_cannot_be_written_is_refused_before_all_else(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    cell(tmp_path, data(tmp_path))
    (tmp_path / "there.csv").write_text("mine")
    assert report(tmp_path, tmp_path / name) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "report.md").exists()
    assert (tmp_path / "there.csv").read_text() == "mine"


@pytest.mark.parametrize("harm", ["gone", "changed", "other lists", "other data"])
def test_without_the_data_of_the_record_there_are_no_ids(
    harm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = data(tmp_path)
    told |= {"other lists": {"candidates_sha256": "c" * 64}, "other data": {"digest": "d" * 64}}.get(harm, {})
    cell(tmp_path, told)
    (words,) = tmp_path.glob("stages/*/dataset.json")
    if harm == "gone":
        words.unlink()
    elif harm == "changed":
        words.write_text(words.read_text().replace("u1", "u9"))
    assert report(tmp_path, tmp_path / "p.csv") == 2
    said = capsys.readouterr().err
    assert "movielens: the ids of users and items are in the prepared data, which are no longer in" in said
    assert "`--datasets movielens --methods popularity --force`" in said
    assert not list(tmp_path.glob("*p.csv*"))


@pytest.mark.parametrize(
    "change",
    [
        {"users": np.array([0, 1, 3])},
        {"users": np.array(["u1", "u3", "u4"])},
        {"candidates": np.where(TARGET[:, None] == LISTS, 2, LISTS)},
        {"candidates": np.where(LISTS == 4, 5, LISTS)},
        {"candidates": np.where(LISTS == 4, -1, LISTS)},
        {"candidates": LISTS[:, :2], "scores": SCORES[:, :2]},
    ],
)
def test_predictions_that_do_not_fit_the_data_are_refused(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cell(tmp_path, data(tmp_path), **change)
    assert report(tmp_path, tmp_path / "p.csv") == 2
    assert f"error: {path.with_name(f'{PROTOCOL}.npz')} has " in capsys.readouterr().err
    assert not list(tmp_path.glob("*p.csv*"))


def test_ranks_alone_leave_lists_empty(tmp_path: Path) -> None:
    write(tmp_path, record("sft", RANK, data=data(tmp_path)), users=USERS)
    assert report(tmp_path, tmp_path / "p.csv") == 0
    assert [(row["rank"], row["candidates"], row["scores"]) for row in read(tmp_path / "p.csv")] == [
        ("1", "", ""),
        ("3", "", ""),
        ("1", "", ""),
    ]
