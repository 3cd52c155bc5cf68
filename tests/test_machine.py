"""The machine gives out (disk, memory, GPU): the run ends with one sentence, and the same command resumes it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import MICRO, results

from rosepo_bench import cli
from rosepo_bench.base import failures, store
from rosepo_bench.base.errors import UserError
from rosepo_bench.runs import record, runner
from rosepo_bench.runs.cells import Cell

METHODS = "popularity,sasrec,sft"
HINT = "; the same command resumes from here\n"


def command(out: Path, *more: str, methods: str = METHODS) -> list[str]:
    line = ["run", "--methods", methods, "--profile", str(MICRO), "--out", str(out)]
    return [*line, "--cache-dir", str(out / "cache"), "--offline", *more]


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods whose cells were begun."""
    begun: list[str] = []
    compute = record.run

    def run(cell: Cell) -> None:
        begun.append(cell.method.name)
        compute(cell)

    monkeypatch.setattr(record, "run", run)
    return begun


def plant(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[str]:
    """Every cell but the first one fails with ``error``; returns the methods whose cells were begun."""
    begun: list[str] = []
    compute = record.run

    def run(cell: Cell) -> None:
        begun.append(cell.method.name)
        if len(begun) > 1:
            raise error
        compute(cell)

    monkeypatch.setattr(record, "run", run)
    return begun


def explained(code: int) -> UserError:
    """What the store makes of an OSError."""
    with pytest.raises(UserError) as caught, store.explained(Path("weights")):
        raise OSError(code, os.strerror(code))
    return caught.value


LACKS: list[tuple[Callable[[], Exception], str]] = [
    (lambda: explained(errno.ENOSPC), "error: disk full while writing weights; free some space"),
    (lambda: OSError(errno.EDQUOT, "Disk quota exceeded"), "error: the disk quota is used up (OSError: "),
    (lambda: RuntimeError("No space left on device (os error 28)"), "error: the disk is full (RuntimeError: "),
    (lambda: MemoryError(), "error: out of memory (MemoryError); free some memory, or lower batch_tokens and"),
    (
        lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory. Error code 12 (Cannot allocate memory)"),
        "error: out of memory (RuntimeError: DefaultCPUAllocator",
    ),
]


@pytest.mark.parametrize(("made", "said"), LACKS, ids=[said[7:30] for _, said in LACKS])
def test_what_the_machine_lacks_ends_the_run(
    made: Callable[[], Exception],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as planted:
        begun = plant(planted, made())
        assert cli.main(command(tmp_path)) == 2
    assert begun == ["popularity", "sasrec"], "cells after the one that met it are not tried"
    told = capsys.readouterr().err
    assert told.startswith(said)
    assert told.endswith(HINT)
    assert told.count("\n") == 1
    assert set(results(tmp_path)) == {"steam/popularity/0"}


def test_the_same_command_resumes_after_a_real_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cells: list[str]
) -> None:
    """Weights cannot be written, small files can: what a disk with its last kilobytes does."""
    write = store.write_bytes

    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".safetensors" and "sft" in str(path):
            with store.explained(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    with monkeypatch.context() as planted:
        planted.setattr(store, "write_bytes", full)
        assert cli.main(command(tmp_path, methods="popularity,sft,dpo")) == 2
    assert "disk full while writing" in capsys.readouterr().err
    assert cells == ["popularity", "sft"]
    assert cli.main(command(tmp_path, methods="popularity,sft,dpo")) == 0
    assert cells == ["popularity", "sft", "sft", "dpo"]
    assert not list((tmp_path / "failures").iterdir())


def test_memory_that_lacks_before_any_cell_is_said_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(runner, "check_data", check)
    assert cli.main([*command(tmp_path), "--force"]) == 2
    assert capsys.readouterr().err.endswith("; the same command without --force resumes from here\n")


def gpu(monkeypatch: pytest.MonkeyPatch, *, works: bool) -> None:
    def synchronize() -> None:
        if not works:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors …")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)


@pytest.mark.parametrize(
    "error",
    [torch.AcceleratorError("CUDA error: device-side assert triggered"), ValueError("the first to notice")],
    ids=["CUDA error", "any error"],
)
def test_a_gpu_that_answers_no_more_ends_the_run(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = plant(monkeypatch, error)
    gpu(monkeypatch, works=False)
    assert cli.main(command(tmp_path)) == 2
    assert begun == ["popularity", "sasrec"]
    told = capsys.readouterr().err
    assert "the GPU cannot be used any more by this process (AcceleratorError: CUDA error: an illegal memory" in told
    assert told.endswith(HINT)
    assert told.count("\n") == 1
    assert [one.method for one in failures.read_failures(tmp_path)] == ["sasrec"], "its traceback is kept"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "; lower batch_tokens or"),
        (torch.AcceleratorError("CUDA error: invalid configuration argument"), ""),
    ],
    ids=["memory", "a call"],
)
def test_a_gpu_that_still_works_loses_one_cell_only(
    error: Exception, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = plant(monkeypatch, error)
    gpu(monkeypatch, works=True)
    assert cli.main(command(tmp_path)) == 3
    assert begun == METHODS.split(",")
    assert f"FAILED steam/sasrec/seed0: {type(error).__name__}: {error}{advice}" in capsys.readouterr().out


def test_another_failure_still_costs_its_cell_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = plant(monkeypatch, ValueError("diverged"))
    assert cli.main(command(tmp_path)) == 3
    assert begun == METHODS.split(",")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ValueError("no space"), None),
        (OSError(errno.EACCES, "Permission denied"), None),
        (MemoryError(), errno.ENOMEM),
        (Exception("No space left on device (os error 28)"), errno.ENOSPC),
    ],
)
def test_what_counts_as_a_lack(error: Exception, found: int | None) -> None:
    assert failures.lacking(error) == found
    outer = ValueError("outer")
    outer.__cause__ = error
    assert failures.lacking(outer) == found


def test_other_verbs_say_that_memory_is_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> int:
        raise MemoryError

    for one in cli.COMMANDS:
        monkeypatch.setattr(one, "run", run)
    assert cli.main(["report"]) == 2
    assert capsys.readouterr().err.startswith("error: out of memory in report; free some memory")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, {"GOMP_SPINCOUNT": "2000", "OMP_WAIT_POLICY": None}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": None}),
        ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": "active"}),
    ],
)
def test_the_program_says_how_its_threads_wait(given: dict[str, str], shown: dict[str, str | None]) -> None:
    """A value that the user has set stays."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    line = [sys.executable, "-m", "rosepo_bench", "env"]
    done = subprocess.run(line, env={**kept, **given}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["waiting"] == shown
