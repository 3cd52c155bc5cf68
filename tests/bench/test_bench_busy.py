"""A step beside busy processes: the rows exist, and the processes are gone. No time is asserted."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_bench_lists import USERS

from rosepo_bench import cli
from rosepo_bench.bench import busy, table, verb
from rosepo_bench.bench.list_cases import ListCase
from rosepo_bench.bench.peer import OURS
from rosepo_bench.bench.timer import Pace

SMALL = ListCase("user step", USERS, "train", (OURS,), pace=Pace(least=2, most=2, warmup=0))
ONCE = replace(SMALL, pace=Pace(least=1, most=1, warmup=0))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that the benchmark starts."""
    found: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*arguments: Any, **named: Any) -> subprocess.Popen[bytes]:
        found.append(real(*arguments, **named))
        return found[-1]

    monkeypatch.setattr(busy.subprocess, "Popen", popen)
    return found


def test_rows_of_a_quiet_and_a_busy_machine(started: list[subprocess.Popen[bytes]]) -> None:
    rows = busy.measure(SMALL, (1,), threads=1)
    assert [(row.metric, row.x, row.baseline, row.rounds, row.verified) for row in rows] == [
        ("time", 0, "", 2, "equal"),
        ("time", 1, "", 2, "equal"),
        ("ratio", 1, "quiet", 2, "equal"),
    ]
    assert all(row.p20 is not None and row.x_name == "busy processes" for row in rows)
    assert len(started) == 2, "one in each round"
    assert all(one.returncode is not None for one in started)


def test_busy_processes_end_with_an_error_in_the_block(started: list[subprocess.Popen[bytes]]) -> None:
    def interrupted() -> None:
        with busy.load(2):
            assert [one.poll() for one in started] == [None, None], "they are busy until then"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [one.returncode is not None for one in started] == [True, True]


def test_busy_processes_end_after_the_program_was_killed() -> None:
    """They hold its output open, so that reading this to its end waits for them."""
    program = "import os\nfrom rosepo_bench.bench import busy\nwith busy.load(1):\n    os._exit(9)\n"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 9


def test_the_verb_writes_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(busy.measure, "__defaults__", (ONCE, (1,)))
    monkeypatch.setattr(verb, "cores", lambda: 1)  # two threads would spin long beside the load
    assert cli.main(["bench", "--busy", "--out", str(tmp_path)]) == 0
    rows = table.read(tmp_path / "busy.csv")
    assert [(row.metric, row.x) for row in rows] == [("time", 0), ("time", 1), ("ratio", 1)]
    header, _, quiet, beside, told = capsys.readouterr().out.splitlines()
    assert [cell.split()[0] for cell in (quiet.strip("| "), beside.strip("| "))] == ["0", "1"]
    assert "fair share" in header
    assert told == f"written: {tmp_path / 'busy.csv'}"


def test_the_fair_share_is_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "cores", lambda: 2)
    assert [row.bound for row in busy.measure(ONCE, (1, 2), threads=1) if row.metric == "ratio"] == [1, 1.5]


@pytest.mark.parametrize("other", [["--quick"], ["--json", "a.json"], ["--table", "a.csv"], ["--into", "a.md"]])
def test_what_the_load_does_not_go_with(other: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--busy", *other]) == 2
    assert "give it with --out alone" in capsys.readouterr().err
