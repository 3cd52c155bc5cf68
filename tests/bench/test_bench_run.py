"""Cases run whole at tiny sizes: who is absent, what is verified, which process measures, what is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rosepo_bench.bench import fresh, run, table
from rosepo_bench.bench.cases import Case
from rosepo_bench.bench.exact import UnequalError
from rosepo_bench.bench.head import Result, Size
from rosepo_bench.bench.peers import OURS, PEERS, PRODUCTS
from rosepo_bench.bench.timer import Pace

pytest_plugins = ["pytester"]
ROOT = Path(__file__).resolve().parents[2]
CASE = Case(
    Size(rows=32, hidden=8, vocabulary=50, dtype="float32", device="cpu"),
    "frozen",
    (OURS, "naive", PRODUCTS),
    pace=Pace(least=3, most=3),
)
# Page faults of filling 48 MiB twenty times, once malloc's heap has come to rest.
FAULTS = """
import resource, torch
for count in range(40):
    if count == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(12 << 20).fill_(1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="resident sets and malloc's settings are Linux's")


@pytest.fixture(autouse=True)
def _only_our_modules_in_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "PRELOADED", ["rosepo_bench.bench.run"])


def test_a_run_writes_the_table_and_its_plots(tmp_path: Path) -> None:
    rows = run.run([CASE, replace(CASE, size=replace(CASE.size, rows=64))], tmp_path, threads=1)
    assert table.read(tmp_path / "bench.csv") == [replace(row, **rounded(row)) for row in rows]
    assert (tmp_path / "times.png").is_file()
    times = [row for row in rows if row.metric == "time"]
    assert [(row.provider, row.x, row.verified) for row in times] == [
        (name, x, verified)
        for x in (32, 64)
        for name, verified in ((OURS, "equal"), ("naive", "equal"), (PRODUCTS, "bound"))
    ]
    ratios = [(row.provider, row.baseline) for row in rows if row.metric == "ratio"]
    assert ratios == 2 * [(OURS, "naive"), (OURS, PRODUCTS)]
    assert {(row.rounds, row.threads, row.allocator) for row in rows} == {(3, 1, "default")}
    assert all(row.p20 is not None and 0 < row.p20 <= row.p50 <= row.p80 for row in rows)


def rounded(row: table.Row) -> dict[str, float]:
    figures = {name: getattr(row, name) for name in ("p20", "p50", "p80", "bound")}
    return {name: float(f"{value:.6g}") for name, value in figures.items() if value is not None}


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    found = run.measure(CASE, threads=before + 1)
    assert found.rows[0].threads == before + 1
    assert torch.get_num_threads() == before


def test_a_peer_that_is_not_installed_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "trl", replace(PEERS["trl"], package="no_such", module="no_such"))
    found = run.measure(replace(CASE, providers=("naive", "trl")), threads=1)
    assert found.absent == {"trl": "not installed"}
    (row,) = [row for row in found.rows if row.provider == "trl"]
    assert (row.metric, row.p20, row.p50, row.p80, row.note) == ("time", None, None, None, "not installed")
    assert (row.verified, row.peer_version, row.rounds) == ("", "", 0)


def test_unequal_numbers_end_the_case_before_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def prepare(head: object, mode: str) -> object:
        right = PEERS["naive"].prepare(head, mode)

        def call() -> Result:
            calls.append("wrong")
            result = right()
            return replace(result, hidden=result.hidden * 1.001)

        return call

    monkeypatch.setitem(PEERS, "wrong", replace(PEERS["naive"], name="wrong", prepare=prepare))
    with pytest.raises(UnequalError, match="wrong: the gradient of hidden"):
        run.measure(replace(CASE, providers=("naive", "wrong")), threads=1)
    assert calls == ["wrong"]


@linux
def test_peaks_are_those_of_the_contestant_alone() -> None:
    size = Size(rows=64, hidden=32, vocabulary=40_000, dtype="float32", device="cpu")
    case = replace(CASE, size=size, mode="frozen", measures=("memory",), providers=("naive", PRODUCTS))
    found = run.measure(case, threads=1)
    (row,) = found.rows
    assert (row.metric, row.provider, row.unit, found.samples) == ("peak_memory", "naive", "MiB", None)
    logits = 64 * 40_000 * 4 / run.MEBIBYTE
    # Logits, log-probs and their gradient; what this process holds or imported does not count.
    assert 2 * logits <= row.p50 <= 4 * logits


@linux
def test_a_call_that_is_killed_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "peak", die)
    found = run.measure(replace(CASE, measures=("memory",), providers=("naive",)), threads=1)
    assert [(row.p50, row.note) for row in found.rows] == [(None, found.absent["naive"])]
    assert "lack of memory" in found.absent["naive"]


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@linux
def test_a_case_runs_with_the_allocator_that_it_asks_for() -> None:
    found = run.measure(replace(CASE, allocator="kept"), threads=1)
    assert {row.allocator for row in found.rows} == {"kept"}
    assert found.samples is not None
    assert fresh.allocator() == "default"


@linux
def test_kept_memory_meets_no_fresh_pages() -> None:
    touched = {
        name: int(subprocess.check_output([sys.executable, "-c", FAULTS], env={**os.environ, **settings}))
        for name, settings in fresh.ALLOCATORS.items()
    }
    assert touched["default"] > 10 * touched["kept"]


def test_other_malloc_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    assert fresh.allocator() == "MALLOC_ARENA_MAX=1"


def test_the_replayed_times_reach_pytest_benchmark(pytester: pytest.Pytester) -> None:
    pytester.syspathinsert(Path(__file__).parent)
    pytester.makepyfile(
        """
        import pytest
        from test_benchmarks import interleaved_timer, replay

        @pytest.mark.benchmark(timer=interleaved_timer)
        def test_inner(benchmark):
            benchmark.pedantic(replay.function([0.5, 0.25, 0.125]), rounds=3)
            assert benchmark.stats.stats.data == [0.5, 0.25, 0.125]
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_flag_decides_what_runs(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.bench
        def test_benchmark(): pass

        def test_other(): pass
        """
    )
    pytester.runpytest_inprocess("-rs").assert_outcomes(passed=1, skipped=1)
    found = pytester.runpytest_inprocess("--benchmark", "-v")
    found.assert_outcomes(passed=1, deselected=1)
    found.stdout.fnmatch_lines(["*::test_benchmark PASSED*"])
