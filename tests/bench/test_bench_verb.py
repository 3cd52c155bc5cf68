"""The `bench` verb: what runs where, the rows of the goals, and the table that a CSV gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_bench_lists import SCORE, SMALL, USERS
from test_bench_table import ROW

from rosepo_bench import cli
from rosepo_bench.bench import fresh, table, verb
from rosepo_bench.bench import list_peers as peers
from rosepo_bench.bench.cases import AnyCase, Case, cases, quick, routine
from rosepo_bench.bench.exact import UnequalError
from rosepo_bench.bench.goals import ALLOWANCE, Goal, goals, markdown
from rosepo_bench.bench.head import Size
from rosepo_bench.bench.list_cases import ListCase
from rosepo_bench.bench.list_peers import LIST_PEERS
from rosepo_bench.bench.peer import OURS
from rosepo_bench.bench.peers import PRODUCTS
from rosepo_bench.bench.run import Measured
from rosepo_bench.bench.timer import Pace

FEW = Pace(least=2, most=2, warmup=0)
HEAD = Case(Size(32, 8, 50, "float32", "cpu"), "frozen", (OURS, "naive", PRODUCTS), pace=FEW, goal="G8")
KEYS = {"goal", "setting", "peer", "ratio", "p20", "p80", "bound", "verified"}


def test_the_verb_measures_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fresh, "PRELOADED", fresh.PRELOADED[:2])
    monkeypatch.setitem(LIST_PEERS, "gone", replace(LIST_PEERS[peers.TRL], name="gone", module="no_such", package="no"))
    both, once = (OURS, peers.SEPARATE), (peers.SEPARATE, "G6")
    listed: list[AnyCase] = [
        HEAD,
        ListCase("step", SMALL, "train", (*both, "gone"), ((peers.SEPARATE, "G3"), ("gone", "G5")), pace=FEW),
        ListCase("step", SMALL, "train", both, (once,), ("memory",)),
        ListCase("user step", USERS, "train", (OURS, peers.A_PROMPT), ((peers.A_PROMPT, "G4"),), pace=FEW),
        ListCase("score", SCORE, "score", (OURS, peers.CACHED), ((peers.CACHED, "G7"),), pace=FEW),
    ]
    assert verb.bench(fast=True, target=tmp_path / "goals.json", out=tmp_path, listed=listed, threads=1) == 0
    found = json.loads((tmp_path / "goals.json").read_text())
    assert [(row["goal"], row["peer"]) for row in found] == [
        ("G3", peers.SEPARATE),
        ("G4", peers.A_PROMPT),
        ("G5", None),
        ("G6", peers.SEPARATE),
        ("G7", peers.CACHED),
        ("G8", "naive"),
    ]
    for row in found:
        if row["peer"] is None:
            assert row.keys() == KEYS | {"reason"}
            assert row["reason"] == "gone: not installed"
            continue
        assert row.keys() == KEYS
        assert row["verified"] is True
        assert 0 < row["p20"] <= row["ratio"] <= row["p80"]
        assert row["bound"] < 1 if row["goal"] == "G6" else row["bound"] > 0
    printed = capsys.readouterr().out
    capsys.readouterr()
    assert cli.main(["bench", "--table", str(tmp_path / "bench.csv")]) == 0
    assert capsys.readouterr().out in printed
    assert cli.main(["bench", "--table", str(tmp_path / "bench.csv"), "--quick"]) == 2


def test_unequal_numbers_are_not_timed_and_the_rest_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> bool:
        raise UnequalError("the gradient is off")

    monkeypatch.setattr("rosepo_bench.bench.list_cases.ListContest.verify", refuse)
    wrong = ListCase("step", SMALL, "train", (OURS, peers.SEPARATE), ((peers.SEPARATE, "G3"),), pace=FEW)
    assert verb.bench(fast=True, target=tmp_path / "goals.json", out=tmp_path, listed=[wrong, HEAD], threads=1) == 3
    found = json.loads((tmp_path / "goals.json").read_text())
    assert [(row["goal"], row["verified"], row["ratio"] is None) for row in found] == [
        ("G3", False, True),
        ("G8", True, False),
    ]
    assert "off" in found[0]["reason"]
    assert "error: the gradient is off" in capsys.readouterr().err


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupted_bench_says_what_is_kept(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = iter([True] * (at - 1))

    def measure(case: AnyCase, threads: int) -> Measured:
        if not next(left, False):
            raise KeyboardInterrupt
        return Measured([replace(ROW, case=case.name)], None, {})

    monkeypatch.setattr(verb, "measure", measure)
    monkeypatch.setattr(verb, "cases", lambda device: [HEAD, replace(HEAD, pace=FEW)])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(["bench", "--out", str(tmp_path), "--json", str(tmp_path / "goals.json")]) == 130
    kept = f"what was measured before is in {tmp_path / 'bench.csv'}" if at == 2 else "nothing is written"
    said = capsys.readouterr().err
    assert said == f"interrupted in case {at} of 2: {kept}; the same command starts again from the first case\n"
    assert [path.name for path in tmp_path.iterdir()] == (["bench.csv"] if at == 2 else [])


def test_ratios_are_turned_the_way_that_goals_are_stated() -> None:
    ours = replace(ROW, metric="ratio", baseline="naive", p20=0.4, p50=0.5, p80=0.8, bound=0.25)
    assert goals([ROW, ours]) == [Goal("G8", f"{ROW.case}, 2 threads", "naive", 2.0, 1.25, 2.5, 4.0, verified=True)]
    assert goals([ROW, replace(ours, goal="")]) == []
    assert goals([ROW, replace(ours, verified="bound")]) == []
    peak = replace(ROW, metric="peak_memory", goal="G6", p50=50.0, provider="other", bound=0.2)
    assert [one.ratio for one in goals([replace(peak, goal="", provider=OURS, p50=10.0), peak])] == [0.2]
    head = replace(ROW, metric="peak_memory", goal="G2", x=1 << 20, p50=24.0, provider=OURS)
    (found,) = goals([head])
    assert (found.peer, found.ratio) == (ALLOWANCE, 0.25)
    assert "0.25" in markdown([found])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_goal_has_a_quick_case(device: str) -> None:
    found = {case.goal_of(name) for case in quick(device) for name in case.providers}
    assert found - {""} == ({"G3", "G4", "G5", "G6", "G7", "G8"} if device == "cpu" else {"G1", "G2", "G9"})
    assert {case.name for case in quick(device)} <= {case.name for case in cases(device)}
    assert all(OURS in case.providers for case in quick(device))


def test_the_engine_page_shows_the_table_of_the_committed_csv() -> None:
    root = Path(__file__).resolve().parents[2]
    committed, text = root / "results" / "engine" / "bench.csv", (root / "docs" / "engine.md").read_text()
    wanted = verb.whole_calls(table.read(committed))
    assert verb.BEGIN + wanted + verb.END in text, "make it again: bench --table CSV --into docs/engine.md"


def test_a_table_is_put_between_the_marks(tmp_path: Path) -> None:
    head = replace(ROW, metric="ratio", baseline="naive", bound=0.25)
    ratio = replace(head, work="step", goal="G3")
    table.write([ROW, head, ratio], tmp_path / "bench.csv")
    target = tmp_path / "page.md"
    target.write_text(f"before\n{verb.BEGIN}an older table\n{verb.END}\nafter\n")
    given = ["bench", "--table", str(tmp_path / "bench.csv"), "--into", str(target)]
    for _ in range(2):
        assert cli.main(given) == 0
        assert target.read_text() == f"before\n{verb.BEGIN}{markdown(goals([ratio]))}{verb.END}\nafter\n"
    target.write_text("no marks")
    assert cli.main(given) == 2
    assert cli.main(["bench", "--into", str(target)]) == 2
    assert target.read_text() == "no marks"


def test_who_runs_where() -> None:
    assert {case.work for case in cases()} == {"head", "step", "user step", "score"}
    assert {case.work for case in routine()} == {"head"}
    assert len({case.name for case in cases()}) == len(cases())
    for case in cases():
        if isinstance(case, ListCase):
            assert set(case.providers) <= LIST_PEERS.keys()
            assert dict(case.goals).keys() <= set(case.providers)
            assert set(case.quick) <= set(case.providers)


def test_what_cannot_be_read_or_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.csv").write_text("a,b\n")
    for given, why in (
        (["--table", str(tmp_path / "other.csv")], "not those of a benchmark table"),
        (["--table", str(tmp_path / "none.csv")], "no such file"),
        (["--quick", "--out", str(tmp_path / "other.csv")], "the folder cannot be made"),
        (["--quick", "--out", str(tmp_path), "--json", str(tmp_path)], "this is a folder"),
    ):
        assert cli.main(["bench", *given]) == 2
        assert why in capsys.readouterr().err
