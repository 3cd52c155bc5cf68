"""Runs cases: names the contestants that cannot run, verifies the numbers of the others, measures time and memory."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rosepo_bench.bench import fresh, table
from rosepo_bench.bench.cases import AnyCase, Contest
from rosepo_bench.bench.peer import OURS
from rosepo_bench.bench.peers import PRODUCTS
from rosepo_bench.bench.plot import plot
from rosepo_bench.bench.table import Row
from rosepo_bench.bench.timer import Call, Samples, Spread, interleave
from rosepo_bench.engine.environment import facts

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Measured:
    """A case's rows, the times behind them (None where none were measured), and the reason for each contestant that
    could not run."""

    rows: list[Row]
    samples: Samples | None
    absent: dict[str, str]


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(cases: Iterable[AnyCase], out: Path, *, threads: int | None = None, seed: int = 0) -> list[Row]:
    """Measures ``cases`` with ``threads`` threads (None: one per processor) and writes ``bench.csv`` and its plots to
    ``out``. Raises :class:`UnequalError` where a contestant's numbers are wrong."""
    rows = [row for case in cases for row in measure(case, threads=threads or cores(), seed=seed).rows]
    write(rows, out / "bench.csv")
    return rows


def write(rows: Iterable[Row], path: Path) -> None:
    """Writes the CSV, and its plots beside it."""
    table.write(rows, path)
    plot(path, path.parent)


def measure(case: AnyCase, *, threads: int, seed: int = 0) -> Measured:
    """Measures one case: in this process, or in a new one where the case needs other malloc settings."""
    if fresh.allocator() != case.allocator:
        return fresh.with_allocator(case.allocator, _measure, case, threads, seed)
    return _measure(case, threads, seed)


def _measure(case: AnyCase, threads: int, seed: int) -> Measured:
    with thread_count(threads):
        absent = {name: why for name in case.providers if (why := case.peer(name).absent()) is not None}
        peaks = _peaks(case, [name for name in case.providers if name not in absent], threads, seed)
        absent |= {name: "its process was killed, probably for lack of memory" for name in peaks if peaks[name] is None}
        contest = case.start(seed)
        calls = {name: contest.call(name) for name in case.providers if name not in absent}
        verified = {name: _verify(contest, name, call) for name, call in calls.items()}
        samples = None
        if "time" in case.measures:
            samples = interleave(calls, device=torch.device(case.size.device), pace=case.pace, seed=seed)
        bounds = {name: _bound(contest, samples, name) for name in calls}
    return Measured(list(_rows(case, absent, verified, samples, peaks, bounds, threads)), samples, absent)


def _bound(contest: Contest, samples: Samples | None, name: str) -> float | None:
    """The bound of our ratio over ``name``: from token counts, otherwise from the time of the matrix products."""
    if (counted := contest.bound(name)) is not None:
        return counted
    timed = samples is not None and PRODUCTS in samples.seconds
    return samples.ratio(PRODUCTS, name).p50 if samples is not None and timed else None


def _peaks(case: AnyCase, providers: list[str], threads: int, seed: int) -> dict[str, tuple[int, str] | None]:
    """Each contestant's peak, measured before this process holds anything. Lower bounds of time have no peak."""
    if "memory" not in case.measures:
        return {}
    return {name: _peak(case, name, threads, seed) for name in providers if not case.peer(name).bound}


def _verify(contest: Contest, name: str, call: Call) -> str:
    result = call()
    checked = contest.verify(name, result)
    del result
    gc.collect()
    return "equal" if checked else "bound"


def _peak(case: AnyCase, provider: str, threads: int, seed: int) -> tuple[int, str] | None:
    """Bytes, and what they count from; None where the process was killed, for example for lack of memory."""
    if case.size.device == "cuda":
        return peak(case, provider, threads, seed)
    try:
        return fresh.forked(peak, case, provider, threads, seed)
    except BrokenProcessPool:
        return None


def peak(case: AnyCase, provider: str, threads: int, seed: int) -> tuple[int, str]:
    """Peak of one call of ``provider`` in this process, after a tiny call has loaded what a first call loads."""
    with thread_count(threads):
        case.small().start(seed).call(provider)()
        call = case.start(seed).call(provider)
        gc.collect()
        return fresh.peak_above(call, torch.device(case.size.device))


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    """torch uses ``count`` threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rows(
    case: AnyCase,
    absent: dict[str, str],
    verified: dict[str, str],
    samples: Samples | None,
    peaks: dict[str, tuple[int, str] | None],
    bounds: dict[str, float | None],
    threads: int,
) -> Iterator[Row]:
    known = facts()
    for name in case.providers:
        empty = blank_row(case, name, known, threads, verified.get(name, ""), absent.get(name, ""))
        if name in absent:
            yield from (replace(empty, metric="peak_memory" if one == "memory" else one) for one in case.measures)
            continue
        if samples is not None:
            timed = replace(empty, rounds=samples.rounds(name))
            yield filled(timed, "time", samples.time(name), 1e3, "ms")
            if name != OURS and OURS in samples.seconds:
                ratio = samples.ratio(OURS, name)
                named = replace(timed, provider=OURS, baseline=name, bound=bounds[name])
                yield filled(named, "ratio", ratio, 1, "1")
        if found := peaks.get(name):
            size, since = found
            note = "" if since == "block" else f"counts from {since}"
            one = replace(empty, rounds=1, note=note, bound=bounds[name])
            yield filled(one, "peak_memory", Spread(size, size, size), 1 / MEBIBYTE, "MiB")


def filled(blank: Row, metric: str, spread: Spread, scale: float, unit: str) -> Row:
    """The row with a figure, ``scale`` times ``spread``."""
    p20, p50, p80 = (value * scale for value in (spread.p20, spread.p50, spread.p80))
    return replace(blank, metric=metric, p20=p20, p50=p50, p80=p80, unit=unit)


def blank_row(case: AnyCase, provider: str, known: dict[str, Any], threads: int, verified: str, note: str) -> Row:
    """A row without a figure; ``known``: the environment's facts."""
    peer = case.peer(provider)
    return Row(
        case=case.name,
        goal=case.goal_of(provider),
        work=case.work,
        setting=case.setting,
        mode=case.mode,
        provider=provider,
        metric="",
        baseline="",
        x_name=case.x_name,
        x=case.x,
        p20=None,
        p50=None,
        p80=None,
        bound=None,
        unit="",
        rounds=0,
        device=known["gpu"] if case.size.device == "cuda" else known["processor"],
        threads=threads,
        allocator=fresh.allocator(),
        torch=torch.__version__,
        peer_version=peer.version(),
        library=known["library"]["build_id"] or "",
        verified=verified,
        function=peer.function,
        note=note,
    )
