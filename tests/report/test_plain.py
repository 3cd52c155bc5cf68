"""No name, reason or setting from a record reaches a terminal or a file with a control character, as Markdown, or as a
spreadsheet's formula."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import Json, evaluation, failure, oracle, preference, ranks, record, write
from test_markdown import cells

from rosepo_bench import cli
from rosepo_bench.base.failures import write_failure
from rosepo_bench.report import markdown as md
from rosepo_bench.report.plain import comma_cell, visible

HARM = "\x1b[31m\x07\x9b\u202e\u2066\u2028|`<b>*_x_[a](b)\t\r\n# h"
RAW = set("\x1b\x07\x9b\u202e\u2066\u2028\t\r")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ml-100k", "ml-100k"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\tb\nc\r\x00\x7f\x85\x9b", r"a\tb\nc\r\x00\x7f\x85\x9b"),
        ("\u202aa\u202e\u2066b\u2069\u200f\u2028\ud800", r"\u202aa\u202e\u2066b\u2069\u200f\u2028\ud800"),
        ("Amélie, 天気の子, می‌خواهم", "Amélie, 天気の子, می‌خواهم"),
    ],
)
def test_what_moves_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        *((text, f"'{text}") for text in ("=1+1", "+a", "-1+1", "@SUM(A1)", "-", "=", "-cmd|' /C calc'!A0", "+1_0")),
        *((text, text) for text in ("-0.5", "+3", "-1e-05", "-.5", "1=1", "a-b", "", "'=1", "–")),
        ("\t=1", r"'\t=1"),
        ("\r=1", r"'\r=1"),
        ("-5\n", r"'-5\n"),
    ],
)
def test_formulas_are_text_and_numbers_are_numbers(text: str, cell: str) -> None:
    assert comma_cell(text) == cell
    assert comma_cell(cell) == cell


@pytest.mark.parametrize(
    ("last", "line"),
    [("1. end", r"1\. end"), ("12) end", r"12\) end"), ("- end", r"\- end"), ("+ end", r"\+ end"), ("===", r"\==="),
     ("---", r"\---"), ("-1 end", "-1 end"), ("=x", "=x"), ("1.5", "1.5")],
)  # fmt: skip
def test_a_line_of_a_paragraph_begins_no_list_and_underlines_nothing(last: str, line: str) -> None:
    words = "word " * 19 + "word"
    assert len(words) == md.WIDTH - 1
    assert md.paragraph(words, last).splitlines() == [words, line]
    assert md.bullets([last]) == f"- {line}"


def test_code_ends_where_it_should() -> None:
    assert md.code("a`b\x1b") == r"`a'b\x1b`"


def hostile(seed: int, **changes: Any) -> Json:
    """A record with harm in every text that a report shows."""
    told = preference(100, sampler=HARM, loss=HARM, changed_top={"share": 0.001, "n": 100})
    judged = oracle()
    judged["temperatures"] = {HARM: judged["temperatures"]["self_hard"]}
    metrics = {**evaluation(ranks(30))["metrics"], f"=m{HARM}": {"value": 0.5}}
    return record(
        f"=m{HARM}",
        ranks(30),
        data=dict.fromkeys(("source", "kind", "split", "candidates_sha256"), HARM)
        | {"digest": str(seed), "noise": {"rate": 0.1, "law": HARM, "replaced": 1}}
        | {"left_out": 1, "left_out_first": [HARM], "test_users": 3},
        dataset=f"@d{HARM}",
        profile=HARM,
        told=told,
        oracle=judged,
        seed=seed,
        evaluations={f"p{HARM}": {"facts": {"name": HARM, HARM: HARM}, "metrics": metrics}},
        environment={"processor": f"{HARM}{seed}", "packages": {"torch": f"{HARM}{seed}"}},
        **changes,
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two sections, two rows of one method with many hostile settings, unequal seeds, a broken record, a failure."""
    for number in (0, 1):
        for seed in range(number + 1):
            settings = {f"{HARM}{letter}": f"{HARM}{number}" for letter in "abcdef"[: 1 + 5 * number]}
            write(tmp_path, hostile(seed, settings=settings))
    write(tmp_path, hostile(0, key=f"k{HARM}")).write_text("{}")
    write_failure(tmp_path, failure("lost", f"-f{HARM}", 0, f"because\n{HARM}"))
    return tmp_path


def test_nothing_raw_reaches_a_terminal_or_a_file(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    texts = [printed.out, printed.err, *((out / name).read_text() for name in ("report.md", "results.csv"))]
    for text in texts:
        assert not RAW & set(text)
    assert max(len(line) for line in texts[2].splitlines() if line.startswith("|")) <= 100


def test_nothing_is_read_as_markdown(out: Path) -> None:
    """Every table keeps its columns; outside code nothing of a name is a link, a tag, a heading, emphasis."""
    assert cli.main(["report", "--out", str(out)]) == 0
    text = (out / "report.md").read_text().rpartition("<!--")[0]
    header = 0
    for line in text.splitlines():
        if line.startswith("|"):
            header = header or len(cells(line))
            assert len(cells(line)) == header
        else:
            header = 0
        assert not line.startswith("# h")
    bare = re.sub(r"`[^`]*`", "", re.sub(r"\\.", "", text))
    for harm in ("<b>", "[a](b)", "*_x", "_x_"):
        assert harm in HARM
        assert harm not in bare
    assert "`" not in bare


def test_no_cell_of_the_csv_is_a_formula(out: Path) -> None:
    assert cli.main(["report", "--out", str(out)]) == 0
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {15}
    texts = {cell for row in rows for cell in row}
    assert {one[:3] for one in texts if one.startswith("'")} == {"'@d", "'=m"}
    for one in texts:
        assert not one.startswith(("=", "@", "\t", "\r"))
        if one.startswith(("-", "+")):
            float(one)


def test_an_error_is_one_visible_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No record that can be used: broken, or at odds with its predictions; and different users under one heading."""
    write(tmp_path / "broken", hostile(0)).write_text("{}")
    lying = hostile(0)
    lying["evaluations"][f"p{HARM}"]["metrics"]["hr@1"]["value"] = 0.9
    write(tmp_path / "lying", lying)
    for seed in (0, 1):
        write(tmp_path / "others", hostile(seed) | {"data": hostile(0)["data"]}, users=np.arange(100) + seed)
    for folder in ("broken", "lying", "others"):
        assert cli.main(["report", "--out", str(tmp_path / folder)]) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert not RAW & set(said)
        assert r"=m\x1b[31m" in said
