"""Work in a fresh process: for peak memory, and for settings that a process must be started with."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from rosepo_bench.bench.timer import Call
from rosepo_bench.engine.training.memory import PeakMemory

T = TypeVar("T")

ALLOCATORS: dict[str, dict[str, str]] = {
    "default": {},
    # glibc: blocks are never mapped on their own nor given back, so that repeated work touches no fresh pages.
    "kept": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)},
}
# Imported once by the server that memory measurements are forked from; packages not installed are skipped.
PRELOADED = [
    "rosepo_bench.bench.run",
    "transformers.models.llama.modeling_llama",
    "trl.trainer.utils",
    "liger_kernel.chunked_loss",
]


def allocator() -> str:
    """The name of this process's malloc settings in ``ALLOCATORS``, or the settings where they have none."""
    found = _malloc_settings()
    for name, settings in ALLOCATORS.items():
        if found == settings:
            return name
    return " ".join(f"{name}={value}" for name, value in sorted(found.items()))


def with_allocator(name: str, function: Callable[..., T], *arguments: Any) -> T:
    """``function(*arguments)`` in a new process started with the malloc settings ``name``."""
    with _malloc(ALLOCATORS[name]):
        return _run(multiprocessing.get_context("spawn"), function, *arguments)


def forked(function: Callable[..., T], *arguments: Any) -> T:
    """``function(*arguments)`` in a process forked from a server that has imported the packages and done nothing else.
    Raises :class:`concurrent.futures.process.BrokenProcessPool` where the process was killed, for example for lack of
    memory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return _run(context, function, *arguments)


def peak_above(call: Call, device: torch.device) -> tuple[int, str]:
    """Peak bytes during ``call`` above what was held before it, its result included, and what the peak counts from (see
    :class:`PeakMemory`)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    with PeakMemory(device) as before:
        pass
    with PeakMemory(device) as during:
        result = call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    del result
    return max(0, during.bytes - before.bytes), during.since


def _run(context: Any, function: Callable[..., T], *arguments: Any) -> T:
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def _malloc(settings: Mapping[str, str]) -> Iterator[None]:
    """Processes started within the block have these malloc settings and no others."""
    before = _malloc_settings()
    for name in before:
        del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]
        os.environ.update(before)


def _malloc_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
