"""Formats of the report, and the verb that writes them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from made_up import PROTOCOL, evaluation, ranks, read_back, record, write
from test_tables import row

from rosepo_bench import cli
from rosepo_bench.base import records
from rosepo_bench.base.errors import UserError
from rosepo_bench.report.render import comma_separated, markdown, shown
from rosepo_bench.report.rescore import rescored
from rosepo_bench.report.table import Cell, Column, Heading, Report, Table
from rosepo_bench.report.tables import render, report_of, write_report


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(), "–"),
        (Cell("a|b"), r"a\|b"),
        (Cell(0.5), "0.500"),
        (Cell(0.5, 0.4, 0.6, 10), "0.500 [0.400, 0.600]"),
        (Cell(0.5, 0.4, 0.6, form="signed"), "+0.500 [+0.400, +0.600]"),
        (Cell(0.5, 0.4, 0.6, before="uniform", after="(τ 1.20)"), "uniform 0.500 [0.400, 0.600] (τ 1.20)"),
        (Cell(0.21, sd=0.08, form="spread"), "0.210 ± 0.080"),
        (Cell(12345.6, form="quantity"), "12,346"),
        (Cell(0.25, form="percent"), "25.0 %"),
        (Cell(form="percent"), "–"),
    ],
)
def test_cells_in_markdown(cell: Cell, text: str) -> None:
    assert shown(cell) == text


def test_one_report_in_two_formats() -> None:
    columns = (Column("method", left=True), Column("value", ends=True))
    rows = ((Cell("a,b"), Cell(0.123456789123, 0.1, 0.2, 7)), (Cell("c"), Cell(5)))
    report = Report((Heading("Title", 2), Table(columns, rows)), Table(columns, rows))
    assert markdown(report).startswith("## Title\n\n| method ")
    lines = list(csv.reader(io.StringIO(comma_separated(report))))
    assert lines == [
        ["method", "value", "low", "high", "n"],
        ["a,b", "0.12345679", "0.1", "0.2", "7"],
        ["c", "5", "", "", ""],
    ]


def test_only_the_formats_that_are_asked_for_are_written(tmp_path: Path) -> None:
    found = read_back(tmp_path, record("sft", ranks(30)))
    assert [path.name for path in write_report(tmp_path, report_of(found), formats=["csv"])] == ["results.csv"]
    assert not (tmp_path / "report.md").exists()
    with pytest.raises(UserError, match="unknown format 'cvs'; did you mean 'csv'"):
        write_report(tmp_path, report_of(found), formats=["cvs"])


@pytest.mark.parametrize("given", ["pdf", ",", "md,latx"])
def test_the_verb_refuses_unknown_formats(given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_back(tmp_path, record("sft", ranks(30)))
    assert cli.main(["report", "--out", str(tmp_path), "--format", given]) == 2
    assert "format" in capsys.readouterr().err
    assert not (tmp_path / "report.md").exists()


def older(out: Path) -> Path:
    """A record without ndcg@5, with another hr@1 than its predictions give, and with a metric of another program."""
    told = evaluation(ranks(30))
    del told["metrics"]["ndcg@5"]
    told["metrics"] |= {"hr@1": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 100}, "theirs": {"value": 3.0}}
    return write(out, record("sft", ranks(30), evaluations={PROTOCOL: told}))


def test_rescoring_takes_the_predictions_word(tmp_path: Path) -> None:
    older(tmp_path)
    (found,), _ = records.read_records(tmp_path)
    text = render([rescored(found)])
    assert row(text, "Quality", "sft")["HR@1"] == "0.300 [0.219, 0.396]"
    assert row(text, "Quality", "sft")["NDCG@5"].startswith("0.350 [")
    assert row(text, "Quality", "sft")["THEIRS"] == "3.000"


def test_the_verb_rescores_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = older(tmp_path)
    before = path.read_bytes()
    assert cli.main(["report", "--out", str(tmp_path)]) == 2
    assert "says hr@1 = 0.900000" in capsys.readouterr().err
    assert cli.main(["report", "--out", str(tmp_path), "--rescore"]) == 0
    assert "computed anew from the records' predictions" in capsys.readouterr().out
    assert "computed anew" in (tmp_path / "report.md").read_text()
    assert path.read_bytes() == before
