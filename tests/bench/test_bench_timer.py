"""The interleaved timer: what runs when, and what its numbers mean."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from rosepo_bench.base.errors import UserError
from rosepo_bench.bench.timer import Pace, Samples, Spread, interleave

CPU = torch.device("cpu")
NAMES = ("a", "b", "c", "d")


def rounds_of(pace: Pace, seed: int = 0) -> list[list[str]]:
    """The names in the order in which the timer called them, by round, warm-up included."""
    called: list[str] = []
    samples = interleave(
        {name: lambda name=name: called.append(name) for name in NAMES}, device=CPU, pace=pace, seed=seed
    )
    counted = len(called) // len(NAMES)
    assert {name: samples.rounds(name) for name in NAMES} == dict.fromkeys(NAMES, counted - pace.warmup)
    return [called[start : start + len(NAMES)] for start in range(0, len(called), len(NAMES))]


def test_everyone_runs_once_a_round_in_changing_order() -> None:
    rounds = rounds_of(Pace(least=12, most=12, warmup=2))
    assert len(rounds) == 14
    assert all(sorted(one) == list(NAMES) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 5
    assert len({one[0] for one in rounds}) > 1


def test_the_seed_draws_the_order() -> None:
    pace = Pace(least=6, most=6)
    assert rounds_of(pace, seed=3) == rounds_of(pace, seed=3)
    assert rounds_of(pace, seed=3) != rounds_of(pace, seed=4)


def test_rounds_end_with_the_seconds_but_not_before_the_least() -> None:
    assert len(rounds_of(Pace(least=3, most=100, seconds=0, warmup=0))) == 3
    assert len(rounds_of(Pace(least=3, most=7, seconds=1e9, warmup=0))) == 7


@pytest.mark.parametrize(("least", "most"), [(0, 5), (6, 5)])
def test_impossible_rounds_are_refused(least: int, most: int) -> None:
    with pytest.raises(UserError, match="1 <= least <= most"):
        Pace(least=least, most=most)


def test_a_time_is_at_least_what_the_call_lasts() -> None:
    samples = interleave({"sleeper": lambda: time.sleep(0.01)}, device=CPU, pace=Pace(least=2, most=2), seed=0)
    assert (samples.seconds["sleeper"] >= 0.01).all()


def test_what_surrounds_a_call_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, seen = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def last(what: str, seconds: float) -> None:
        seen.append(what)
        now[0] += seconds

    @contextmanager
    def around() -> Iterator[None]:
        last("begin", 100)
        yield
        last("end", 100)

    calls = {"a": lambda: last("a", 1)}
    once = Pace(least=1, most=1, warmup=0)
    samples = interleave(calls, device=CPU, pace=once, seed=0, around={"a": around})
    assert seen == ["begin", "a", "end"]
    assert samples.seconds["a"].tolist() == [1]


def test_the_ratio_is_taken_round_by_round() -> None:
    samples = Samples({"slow": np.array([2.0, 30.0, 8.0]), "fast": np.array([1.0, 10.0, 2.0])})
    assert samples.ratio("slow", "fast") == Spread.of([2.0, 3.0, 4.0])
    assert samples.ratio("slow", "fast").p50 == 3.0
    assert samples.time("slow").p50 == 8.0


def test_percentiles() -> None:
    spread = Spread.of(np.arange(101.0))
    assert (spread.p20, spread.p50, spread.p80) == (20.0, 50.0, 80.0)


def test_the_collector_rests_while_the_clock_runs() -> None:
    seen: list[bool] = []
    interleave({"a": lambda: seen.append(gc.isenabled())}, device=CPU, pace=Pace(least=1, most=1), seed=0)
    assert seen == [False, False]
    assert gc.isenabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_is_timed_to_its_end() -> None:
    device = torch.device("cuda")
    x = torch.randn(4096, 4096, device=device)
    pace = Pace(least=3, most=3)
    calls = {"one": lambda: x @ x, "ten": lambda: [x @ x for _ in range(10)]}
    samples = interleave(calls, device=device, pace=pace, seed=0)
    assert samples.ratio("ten", "one").p50 > 3
