"""One interleaved timer for all benchmarks: each round runs every contestant once, in random order.

Disturbances of the machine then affect all contestants alike, and ratios are taken round by round. Times are wall-clock
on a CPU and CUDA events on a GPU. On a GPU the L2 cache is flushed before every call; on a CPU the other contestants
evict it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float64

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator

Call = Callable[[], object]
Seconds = Float64[np.ndarray, " rounds"]


@dataclass(frozen=True)
class Spread:
    """The 20th, 50th and 80th percentile of a sample."""

    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, values: Sequence[float] | Float64[np.ndarray, " n"]) -> Spread:
        return cls(*(float(value) for value in np.percentile(np.asarray(values), (20, 50, 80))))


@dataclass(frozen=True)
class Pace:
    """How long to measure: rounds until ``seconds`` have passed, at least ``least`` and at most ``most`` of them, after
    ``warmup`` rounds that do not count."""

    least: int = 5
    most: int = 50
    seconds: float = 4.0
    warmup: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise UserError(f"least = {self.least}, most = {self.most}: rounds must satisfy 1 <= least <= most")


@dataclass(frozen=True)
class Samples:
    """``seconds[name]`` of each round; equal indices are of one round."""

    seconds: dict[str, Seconds]

    def time(self, name: str) -> Spread:
        """Seconds of one call."""
        return Spread.of(self.seconds[name])

    def ratio(self, name: str, baseline: str) -> Spread:
        """Percentiles over the rounds of the time of ``name`` over that of ``baseline``."""
        return Spread.of(self.seconds[name] / self.seconds[baseline])

    def rounds(self, name: str) -> int:
        return len(self.seconds[name])


def interleave(
    calls: Mapping[str, Call],
    *,
    device: torch.device,
    pace: Pace,
    seed: int,
    around: Mapping[str, Callable[[], AbstractContextManager[None]]] = MappingProxyType({}),
) -> Samples:
    """Times ``calls`` in rounds. ``seed`` draws the order of each round; freeing a result is not timed, nor is what a
    call's ``around`` does before and after it."""
    clock = _cuda_clock(device) if device.type == "cuda" else _wall_clock
    taken: dict[str, list[float]] = {name: [] for name in calls}
    with _no_collector():
        for index in range(-pace.warmup, pace.most):
            if index == 0:
                began = time.perf_counter()
            if index >= pace.least and time.perf_counter() - began >= pace.seconds:
                break
            for name in _order(list(calls), seed, index):
                with around.get(name, nullcontext)():
                    seconds = clock(calls[name])
                if index >= 0:
                    taken[name].append(seconds)
    return Samples({name: np.array(values) for name, values in taken.items()})


def _order(names: list[str], seed: int, index: int) -> list[str]:
    return [names[place] for place in generator(seed, "bench", "round", index).permutation(len(names))]


@contextmanager
def _no_collector() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _wall_clock(call: Call) -> float:
    began = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - began
    del result
    return seconds


def _cuda_clock(device: torch.device) -> Callable[[Call], float]:
    properties = torch.cuda.get_device_properties(device)
    flush = torch.empty(2 * properties.L2_cache_size, dtype=torch.uint8, device=device)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def clock(call: Call) -> float:
        flush.zero_()
        torch.cuda.synchronize(device)
        start.record()
        result = call()
        stop.record()
        torch.cuda.synchronize(device)
        del result
        return float(start.elapsed_time(stop)) / 1e3

    return clock
