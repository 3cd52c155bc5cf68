"""The emulator finds what it is there for: planted faults, and every barrier that the kernels could lose."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import everything
import numpy as np
import pytest
from everything import make_case
from harness import HERE, SANITIZED, Kernels, build

from rosepo_bench.base import seeds

Run = Callable[..., subprocess.CompletedProcess[str]]
ORDERS = 16
PLANTED = ("reverse", "follow", "leave_early", "split", "lonely", "overflow", "misalign")  # as planted.cu numbers them
WAITS = re.compile(r"__(syncthreads|syncwarp|shfl_xor_sync|match_any_sync)\(")
SOURCES = ("device.cuh", "sequence_logprob.cuh", "sequence_logprob_rows.cuh")


def planted(kernels: Kernels, name: str, order: int) -> tuple[str | None, list[int]]:
    kernels.seed(order)
    numbers = np.arange(64)
    return kernels.call("planted", PLANTED.index(name), numbers), numbers.tolist()


def test_a_right_kernel_is_right_in_every_order(kernels: Kernels) -> None:
    assert [planted(kernels, "reverse", order) for order in range(ORDERS)] == [(None, list(range(64))[::-1])] * ORDERS


def test_a_removed_barrier_is_wrong(kernels: Kernels) -> None:
    line = (HERE / "planted.cu").read_text().split("__syncthreads")[0].count("\n") + 1
    kernels.take_out("planted.cu", line)
    assert all(planted(kernels, "reverse", order)[1] != list(range(64))[::-1] for order in range(ORDERS))


def test_orders_differ_within_and_between_threads(kernels: Kernels) -> None:
    results = [tuple(planted(kernels, "follow", order)[1]) for order in range(ORDERS)]
    assert len(set(results)) > 1
    assert any(len(set(numbers[1::2])) > 2 for numbers in results), "a thread is interrupted between its accesses"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("leave_early", "a thread has ended while others wait at planted.cu:"),
        ("split", "threads wait at planted.cu:"),
        ("lonely", "deadlock: thread 0 waits for ever at planted.cu:"),
    ],
)
def test_threads_that_wait_in_vain_are_an_error(kernels: Kernels, name: str, message: str) -> None:
    for order in range(ORDERS):
        error, _ = planted(kernels, name, order)
        assert error is not None
        assert error.startswith(message)
        assert planted(kernels, "reverse", order)[0] is None, "the next launch starts afresh"


def waits(csrc: Path) -> list[tuple[str, int]]:
    """File and line of every barrier and exchange in the kernels."""
    found = []
    for name in SOURCES:
        lines = (csrc / name).read_text().splitlines()
        found += [(name, number) for number, line in enumerate(lines, 1) if WAITS.search(line)]
    return found


def test_every_wait_of_the_kernels_is_needed(kernels: Kernels, csrc: Path) -> None:
    case = make_case("bfloat16", 4099, 64, 0.0, seeds.generator(4, "emulator"))
    right = everything.run(kernels, case, 0)

    def noticed(order: int) -> bool:
        try:
            with np.errstate(all="ignore"):
                arrays = everything.run(kernels, case, order).arrays
        except RuntimeError:
            return True
        return any(not np.array_equal(arrays[name], array, equal_nan=True) for name, array in right.arrays.items())

    places = waits(csrc)
    assert len(places) >= 8
    for place in places:
        kernels.take_out(*place)
        assert any(noticed(order) for order in range(ORDERS)), f"{place} can be left out and nothing tells"
    kernels.take_out()
    assert not noticed(ORDERS)


@pytest.fixture(scope="module")
def preload() -> str:
    """The sanitizer's library, which Python must load first."""
    compiler = [*os.environ.get("CXX", "c++").split()]
    paths = [
        subprocess.run(
            [*compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    if not Path(paths[0]).is_absolute():
        pytest.skip("this compiler has no shared address sanitizer")
    return " ".join(paths)


@pytest.fixture(scope="module")
def under_sanitizers(preload: str, csrc: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    library = build(csrc, tmp_path_factory.mktemp("sanitized"), SANITIZED)
    environment = os.environ | {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(HERE / "everything.py"), str(library), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_no_kernel_leaves_its_arrays(under_sanitizers: Run) -> None:
    result = under_sanitizers()
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("overflow", r"heap-buffer-overflow .*\n.*\n +#0 .* overflow .*planted\.cu:\d+"),
        ("misalign", r"planted\.cu:\d+.*misaligned"),
    ],
)
def test_the_sanitizer_sees_a_kernel_that_does(under_sanitizers: Run, name: str, message: str) -> None:
    result = under_sanitizers(str(PLANTED.index(name)))
    assert result.returncode != 0
    assert re.search(message, result.stderr)
