"""How much a busy machine slows training: a step of the demo's model alone and beside processes that want the same
processors. The load is made here and ends with the measurement."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch

from rosepo_bench.bench.list_cases import ListCase
from rosepo_bench.bench.lists import ListSize
from rosepo_bench.bench.peer import OURS
from rosepo_bench.bench.run import blank_row, cores, filled, thread_count
from rosepo_bench.bench.table import Row
from rosepo_bench.bench.timer import Pace, Samples, interleave
from rosepo_bench.engine.environment import facts

DEMO = ListCase(
    "user step",
    ListSize(
        prompts=30, responses=2, shortest=15, longest=19, users=6, suffix=2, layers=3, hidden=128, intermediate=344,
        vocabulary=4000,
    ),
    "train",
    (OURS,),
    pace=Pace(least=5, most=50, seconds=60, warmup=0),
)  # fmt: skip
"""A step of the demo's preference training."""

STEPS = 5
"""Steps in a row under the same load; a round's time is their mean."""

SETTLE = 0.2
"""Seconds from the start of a load to the first step beside it."""

_SPIN = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(100_000):
        pass
"""


@contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes of this one's priority are busy within the block. They end with it, and by themselves where
    this process is killed."""
    line = [sys.executable, "-S", "-E", "-c", _SPIN, str(os.getpid())]
    started: list[subprocess.Popen[bytes]] = []
    try:
        while len(started) < processes:
            started.append(subprocess.Popen(line, stderr=subprocess.DEVNULL))
        time.sleep(SETTLE)
        yield
    finally:
        for one in started:
            one.kill()
        for one in started:
            one.wait()


def measure(case: ListCase = DEMO, loads: Sequence[int] = (1, 2, 4), *, threads: int, seed: int = 0) -> list[Row]:
    """Times the case's step alone and beside each number of busy processes, interleaved. Rows: the time under each
    load, and its ratio to the quiet time, with the fair share as its bound. Raises :class:`UnequalError` where the
    step's numbers are wrong."""
    with thread_count(threads):
        contest = case.start(seed)
        call = contest.call(OURS)
        contest.verify(OURS, call())

        def steps() -> None:
            for _ in range(STEPS):
                call()

        names = {str(processes): processes for processes in (0, *loads)}
        samples = interleave(
            dict.fromkeys(names, steps),
            device=torch.device(case.size.device),
            pace=case.pace,
            seed=seed,
            around={name: partial(load, processes) for name, processes in names.items()},
        )
        return list(_rows(case, names, samples, threads))


def _rows(case: ListCase, names: dict[str, int], samples: Samples, threads: int) -> Iterator[Row]:
    known = facts()
    waiting = " ".join(f"{name}={value}" for name, value in known["waiting"].items() if value is not None)
    empty = replace(blank_row(case, OURS, known, threads, "equal", waiting), x_name="busy processes")
    for name, processes in names.items():
        one = replace(empty, x=processes, rounds=samples.rounds(name))
        yield filled(one, "time", samples.time(name), 1e3 / STEPS, "ms")
        if processes:
            fair = max(1.0, (threads + processes) / cores())
            yield filled(replace(one, baseline="quiet", bound=fair), "ratio", samples.ratio(name, "0"), 1, "1")


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table, a line for each load."""
    from rosepo_bench.report.markdown import NONE, table

    def figure(row: Row | None) -> str:
        return NONE if row is None else f"{row.p50:.3g} [{row.p20:.3g}, {row.p80:.3g}]"

    ratios = {row.x: row for row in rows if row.metric == "ratio"}
    lines = [(row, ratios.get(row.x)) for row in rows if row.metric == "time"]
    cells = [
        [str(time.x), figure(time), figure(ratio), NONE if ratio is None else f"{ratio.bound:.3g}"]
        for time, ratio in lines
    ]
    return table(["busy processes", "a step, ms", "over the quiet step", "fair share"], cells) + "\n"
