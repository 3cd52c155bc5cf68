"""`pytest --benchmark`: the cases of rosepo_bench.bench on pytest-benchmark. Nothing here asserts a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from rosepo_bench.bench.cases import Case
from rosepo_bench.bench.run import Measured

pytestmark = pytest.mark.bench


class Replay:
    """pytest-benchmark takes its times from a timer that it is given. This one stands still but for the calls of the
    benchmarked function, each of which lasts as long as one of the interleaved timer's."""

    now = 0.0

    def function(self, seconds: list[float]) -> Callable[[], None]:
        lasting = itertools.cycle(seconds)

        def function() -> None:
            self.now += next(lasting)

        return function


replay = Replay()


def interleaved_timer() -> float:
    return replay.now


@pytest.mark.benchmark(timer=interleaved_timer)
def test_time(timed: Case, provider: str, measured: Callable[[Case], Measured], benchmark: Any) -> None:
    found = measured(timed)
    if provider in found.absent:
        pytest.skip(f"{provider}: {found.absent[provider]}")
    assert found.samples is not None
    mine = [row for row in found.rows if row.provider == provider and not row.baseline]
    benchmark.group = timed.name
    benchmark.extra_info.update({f"{row.metric}, {row.unit}": row.p50 for row in mine})
    benchmark.extra_info.update(verified=mine[0].verified, function=mine[0].function)
    seconds = found.samples.seconds[provider].tolist()
    benchmark.pedantic(replay.function(seconds), rounds=len(seconds))


def test_memory(weighed: Case, measured: Callable[[Case], Measured]) -> None:
    assert {row.metric for row in measured(weighed).rows} == {"peak_memory"}
