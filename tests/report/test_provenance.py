"""What a written report is made from stands in it, and what cannot be made again is not overwritten."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from made_up import PROTOCOL, evaluation, ranks, read_back, record, write
from test_tables import AMD, INTEL

from rosepo_bench import cli
from rosepo_bench.report.tables import report_of, write_report


def report(out: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the verb says after the tables."""
    assert cli.main(["report", "--out", str(out), *arguments]) == 0
    return capsys.readouterr().out.split("\n\n")[-1]


def rows(out: Path, name: str = "results.csv") -> list[dict[str, str]]:
    with (out / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_of_records_that_are_gone_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one profile, then of another beside it: everything stands in the new tables. The first one's records deleted,
    and those of a third profile added: the old tables stay under another name, as they were."""
    first = write(tmp_path, record("sft", ranks(30)))
    assert "kept" not in report(tmp_path, capsys)
    write(tmp_path, record("sft", ranks(40), profile="reference"))
    assert "kept" not in report(tmp_path, capsys)
    assert {one["profile"] for one in rows(tmp_path)} == {"demo", "reference"}
    before = {name: (tmp_path / name).read_bytes() for name in ("report.md", "results.csv")}
    shutil.rmtree(first.parent)
    write(tmp_path, record("dpo", ranks(20), profile="paper"))
    said = report(tmp_path, capsys)
    assert f"kept: {tmp_path / 'report-1.md'} (the old report.md; it was made from other records)" in said
    assert f"kept: {tmp_path / 'results-1.csv'} (the old results.csv; " in said
    assert (tmp_path / "report-1.md").read_bytes() == before["report.md"]
    assert (tmp_path / "results-1.csv").read_bytes() == before["results.csv"]
    assert {one["profile"] for one in rows(tmp_path)} == {"reference", "paper"}
    assert "kept" not in report(tmp_path, capsys), "the second time nothing is lost"
    assert not (tmp_path / "report-2.md").exists()


def test_somebody_elses_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.md").write_text("# My own\n")
    (tmp_path / "results.csv").write_bytes(b"a,b\n\xff,2\n")
    (tmp_path / "results-1.csv").write_text("another\n")
    write(tmp_path, record("sft", ranks(30)))
    report(tmp_path, capsys)
    assert (tmp_path / "report-1.md").read_text() == "# My own\n"
    assert (tmp_path / "results-2.csv").read_bytes() == b"a,b\n\xff,2\n"
    assert (tmp_path / "results-1.csv").read_text() == "another\n"


def test_a_new_record_of_the_same_row_replaces_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The older record is still there, so the older tables could be made again; so could those without --rescore."""
    for key, number in (("old", 30), ("new", 40)):
        write(tmp_path, record("sft", ranks(number), key=key, created=f"2026-01-0{number // 10}"))
        assert "kept" not in report(tmp_path, capsys)
    assert "kept" not in report(tmp_path, capsys, "--rescore")
    assert {one["record"] for one in rows(tmp_path)} == {"movielens/sft/seed0-new"}


def test_a_folder_in_the_way_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.md").mkdir()
    write(tmp_path, record("sft", ranks(30)))
    assert cli.main(["report", "--out", str(tmp_path)]) == 2
    assert "report.md is not a file: move it away, or give another --out" in capsys.readouterr().err


def test_every_number_of_the_csv_names_its_record_and_machine(tmp_path: Path) -> None:
    other = {**AMD, "packages": {"torch": "2.12.1"}}
    found = read_back(
        tmp_path,
        record("sft", ranks(30), environment=INTEL),
        record("dpo", ranks(30), environment=other),
        record("dpo", ranks(20), seed=1, environment={"packages": ["?"]}),
    )
    write_report(tmp_path, report_of(found))
    told = {(one["method"], one["seed"], one["metric"]): one for one in rows(tmp_path)}
    folders = {(one.method, one.seed): f"movielens/{one.method}/{one.path.parent.name}" for one in found}

    def sources(method: str, seed: str, metric: str) -> tuple[str, str, str]:
        one = told[method, seed, metric]
        return one["record"], one["processor"], one["torch"]

    assert sources("sft", "0", "hr@1") == (folders["sft", 0], "Intel(R) Xeon(R)", "2.13.0")
    assert sources("sft", "all", "hr@1") == (folders["sft", 0], "Intel(R) Xeon(R)", "2.13.0")
    assert sources("dpo", "1", "changed_top") == (folders["dpo", 1], "", "")
    assert sources("dpo", "all", "hr@5") == ("", "AMD EPYC", "2.12.1")
    assert sources("dpo", "all", "hr@1_minus_sft") == ("", "AMD EPYC; Intel(R) Xeon(R)", "2.12.1; 2.13.0")


def test_sections_of_one_data_set_have_columns_that_tell_them_apart(tmp_path: Path) -> None:
    both = {PROTOCOL: evaluation(ranks(30)), "candidates-mean": evaluation(ranks(30), score="mean")}
    made = [record("sft", ranks(30), evaluations=both), record("sft", ranks(20), profile="reference")]
    write_report(tmp_path, report_of(read_back(tmp_path, *made)))
    told = rows(tmp_path)
    place = ("dataset", "profile", "protocol", "method", "seed", "metric")
    assert len({tuple(one[name] for name in place) for one in told}) == len(told)
    assert {one["dataset"] for one in told} == {"movielens"}
    names = ("candidates-sum, profile demo", "candidates-mean, profile demo", "candidates-sum, profile reference")
    assert {one["section"] for one in told} == {f"movielens, {name}" for name in names}
