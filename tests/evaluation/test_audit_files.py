"""Candidate files of others, and what `data audit` says of them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import audit_files
import numpy as np
import pytest

from rosepo_bench import cli
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import candidates
from rosepo_bench.data.types import Examples
from rosepo_bench.evaluation.audit import readers, testing, text
from rosepo_bench.evaluation.audit.audit import audit
from rosepo_bench.evaluation.audit.table import RawRow, Table

ROW = RawRow("u1", ("a b", "c"), "d", ("d", "e f"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("comma.csv", "user,history,target,candidates\nu1,a b::c,d,d::e f\n"),
        ("bar.csv", "candidates,target,history,user\nd|e f,d,a b|c,u1\n"),
        ("llara.csv", "user,historyList,trueSelection,itemList\nu1,a b::c,d,d::e f\n"),
        ("pandas.csv", "user,history,target,candidates\nu1,\"['a b', 'c']\",d,\"['d', 'e f']\"\n"),
        ("lines.jsonl", '{"user": "u1", "history": ["a b", "c"], "target": "d", "candidates": ["d", "e f"]}\n\n'),
        ("llara.json", '[{"user": "u1", "historyList": "a b::c", "itemList": "d::e f", "trueSelection": "d"}]'),
    ],
)
def test_formats_say_the_same(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert readers.read(tmp_path / name) == {"": [ROW]}


def test_blanks_separate_numbers_and_splits_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("target,candidates,split\n1,1 2,test\n3,3  4,validation\n")
    rows = [RawRow("", (), target, listed) for target, listed in (("1", ("1", "2")), ("3", ("3", "4")))]
    assert readers.read(path) == {"test": rows[:1], "validation": rows[1:]}
    path = tmp_path / "rows.jsonl"
    path.write_text('{"target": 1, "candidates": [1, 2], "history": []}\n')
    assert readers.read(path) == {"": rows[:1]}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "", "unknown format; give a file that ends with .csv, .json, .jsonl or .npz"),
        ("a.csv", "target,candidates\n", "no rows; the file is empty"),
        ("a.csv", "item,candidates\na,a::b\n", r"line 1: expected a header with one column target, found 'item,cand"),
        ("a.csv", "target,candidates\na,b,c\n", "line 2: expected 2 columns, found 'a,b,c'; quote the fields"),
        ("a.csv", "target,candidates\na,a::b\n,a::b\n", "line 3: expected a target, found ''; give each row"),
        ("a.csv", "target,candidates\na,\n", "line 2: expected candidates, found 'none'; give each row the list"),
        ("a.jsonl", '{"target": "a"}\n', "line 1: expected candidates"),
        ("a.jsonl", '\n{"target": "a",\n', 'line 2: expected a JSON object, found \'{"target": "a",\'; .*write one'),
        ("a.jsonl", "3\n", "line 1: expected an object with target and candidates, found '3'"),
        ("a.jsonl", '{"target": "a", "candidates": {"a": 1}}\n', "line 1: expected candidates to be a list of items"),
        ("a.json", '[{"target": "a"', "not valid JSON: "),
    ],
)
def test_what_is_no_candidate_file_is_refused(name: str, content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path / name))}.*{said}"):
        readers.read(tmp_path / name)


def test_titles_are_those_of_the_items_file_or_the_items_themselves(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text('item,title\n1,"One, or none"\n2,Two\n')
    titles = readers.titles(tmp_path / "items.csv")
    rows = [RawRow("", (), "1", ("1", "2"))]
    assert Table.of({"test": rows}, titles).titles == ("One, or none", "Two")
    assert Table.of({"test": rows}).titles == ()
    assert Table.of({"test": [RawRow("", (), "A", ("A", "2"))]}).titles == ("A", "2")
    with pytest.raises(UserError, match="no title is given for item '2' of the candidate file"):
        Table.of({"test": rows}, {"1": "One"})


def write(path: Path, rows: list[RawRow]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "history", "target", "candidates"])
        writer.writerows([row.user, "|".join(row.history), row.target, "|".join(row.candidates)] for row in rows)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags need redraws by the thousand; few are enough where p may be large."""
    monkeypatch.setattr(testing, "PILOT", 30)
    monkeypatch.setattr("rosepo_bench.evaluation.audit.audit.LEVEL", 0.05)


@pytest.mark.usefixtures("quick")
def test_the_command_exits_with_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = audit_files.honest("uniform", 11, rows=60)
    write(tmp_path / "clean.csv", world.raw(world.test, False))
    write(tmp_path / "validation.csv", world.raw(world.validation, False))
    arguments = ["data", "audit", str(tmp_path / "clean.csv"), "--validation", str(tmp_path / "validation.csv")]
    assert cli.main([*arguments, "--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]) == 0
    shown = capsys.readouterr().out
    assert "Clean: no attack finds the target" in shown
    assert "lists in validation" in shown
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["leaks"] == []
    assert told["outcome"]["p"] > 0.05
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    broken = world.raw(world.test, False)
    broken[3] = RawRow("x", (), "nowhere", broken[3].candidates)
    write(tmp_path / "broken.csv", broken)
    assert cli.main(["data", "audit", str(tmp_path / "broken.csv")]) == 3
    assert "Flagged: the target is missing in the list (rows: 1)." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("nowhere.csv", [], "nowhere.csv: cannot be read: No such file"),
        ("nowhere", [], "unknown data set 'nowhere'"),
        ("movielens", ["--items", "x.csv"], "--items belongs to a candidate file, and there is no file movielens"),
    ],
)
def test_the_command_refuses_what_is_not_there(
    name: str, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "audit", name, *more]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_frozen_lists_are_audited_without_titles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    lists = np.stack([rng.choice(50, 6, replace=False) for _ in range(30)]).astype(np.int32)
    place = rng.integers(6, size=30)
    row = np.arange(30)
    frozen = Examples(row, row * 0, row * 0, lists, lists[row, place].astype(np.int64), place)
    candidates.freeze(tmp_path / "candidates.npz", frozen)
    assert cli.main(["data", "audit", str(tmp_path / "candidates.npz")]) == 0
    shown = capsys.readouterr().out
    assert "id order" in shown
    assert "title" not in shown


@pytest.mark.usefixtures("quick")
def test_our_own_lists_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("synthetic=always", "replica_users=150", "users=80")
    changed = [part for one in settings for part in ("--set", f"datasets.steam.{one}")]
    assert cli.main(["data", "audit", "steam", "--offline", *changed]) == 0
    assert "Clean" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_hostile_names_are_escaped() -> None:
    world = audit_files.honest("uniform", 12, rows=40)
    made = world.table()
    found = audit(made, limit=20)
    hostile: dict[str, Any] = {"name": "<script>alert(1)</script>", "notes": ("<b>&",)}
    page = text.page(type(found)(**{**vars(found), **hostile}))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;&amp;" in page
    assert "http" not in page, "it needs no network"
    assert "light-dark" in page
