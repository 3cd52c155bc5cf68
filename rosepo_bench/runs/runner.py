"""Runs cells, each under a lease. A failed cell does not stop the others, unless it is the machine that failed; tables
after each data set."""

from __future__ import annotations

import itertools
import os
import shutil
import time
import traceback
from pathlib import Path

import torch

from rosepo_bench.base import progress, records, signals
from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.failures import (
    Failure,
    StoppedError,
    forget_failure,
    lacking,
    named,
    read_failures,
    stopping,
    write_failure,
)
from rosepo_bench.base.lease import Lease
from rosepo_bench.pipeline.stages import StageFailedError
from rosepo_bench.report import tables
from rosepo_bench.report.render import markdown
from rosepo_bench.runs import record
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.plan import Places, cells, closure, is_done
from rosepo_bench.runs.rehearsal import check_data

DONE, FAILED = 0, 3


def run(config: RunConfig, places: Places, *, force: bool = False) -> int:
    """Runs every cell that has no record yet (with ``force`` all cells and all their stages), writes and prints the
    tables. Several processes, on several machines too, may run into one folder at once: they divide the cells among
    them. Returns the exit status: 0 if every cell is done, 3 if some failed. StoppedError: the disk is full, memory or
    GPU gave out."""
    with progress.shown(), stopping():
        planned = cells(config, places)
        if force:
            _forget(planned)
        groups = [list(group) for _, group in itertools.groupby(planned, key=lambda cell: cell.task.name)]
        waiting = [[cell for cell in group if not is_done(cell)] for group in groups]
        if any(waiting):
            _prepare_torch(config)
        for unfinished in waiting:
            check_data(unfinished)
        for group, unfinished in zip(groups, waiting, strict=True):
            if unfinished:
                _run_dataset(group, unfinished, planned)
        return _finish(planned, places.out, nothing_ran=not any(waiting))


def _prepare_torch(config: RunConfig) -> None:
    """Threads, and deterministic algorithms: slow to set, so only where something is left to compute."""
    if config.threads:
        torch.set_num_threads(config.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required for deterministic matrix products on a GPU
    torch.use_deterministic_algorithms(True)


def _run_dataset(group: list[Cell], unfinished: list[Cell], planned: list[Cell]) -> None:
    began, out, name = time.monotonic(), group[0].task.stages.out, group[0].task.name
    rest = unfinished
    while rest := _run_free(rest, planned):
        progress.say(f"{name}: {len(rest)} cells are computed by another process; waiting")
        with _lease(rest[0]):  # until the first of them is free
            pass
    progress.say(f"\n{name}: {len(unfinished)} cells in {time.monotonic() - began:.0f} s\n")
    found, problems = records.read_records(out)
    chosen = [record for record in found if record.dataset == name]
    lacking = [cell for cell in group if not is_done(cell)]
    failures = [failure for failure in _absent(out, lacking) if failure.dataset == name]
    progress.say(tables.render(chosen, failures, [one for one in problems if f"/records/{name}/" in one]))


def _run_free(rest: list[Cell], planned: list[Cell]) -> list[Cell]:
    """Runs the cells that nobody else computes now; returns the others."""
    elsewhere = []
    for cell in rest:
        lease = _lease(cell)
        with signals.held():  # but while the cell runs: no signal comes between taking the lease and giving it back
            if not lease.attempt():
                elsewhere.append(cell)
                continue
            try:
                if not is_done(cell, say=False):  # another process may have finished it meanwhile
                    with signals.released():
                        _run_cell(cell)
                    _evict(cell, planned)
            finally:
                lease.release()
    return elsewhere


def _lease(cell: Cell) -> Lease:
    return Lease(cell.task.stages.out / "leases" / "cells" / cell.folder.name, cell.name)


def _evict(cell: Cell, planned: list[Cell]) -> None:
    """Removes stages that exceed the limit, but for those that cells without a record need."""
    if limit := cell.task.config.stage_gigabytes:
        needed = {stage.key for one in planned if not one.broken and not is_done(one) for stage in closure(one)}
        cell.task.stages.evict(limit * 1e9, needed)


def _run_cell(cell: Cell) -> None:
    progress.say(cell.name)
    began, out = time.monotonic(), cell.task.stages.out
    try:
        record.run(cell)
    except Exception as error:
        signals.check()  # it may be what a library made of the signal
        reason = f"{type(error).__name__}: {error}{_advice(error)}"
        log = write_failure(out, record.failure(cell, reason, traceback.format_exc()))
        progress.say(f"  FAILED {cell.name}: {reason}\n  traceback in {log}{_blame(error)}")
        if lacking(error) is not None:
            raise
        _check_gpu(error)
    else:
        forget_failure(out, cell.task.name, cell.method.name, cell.task.seed)
        progress.say(f"  done in {time.monotonic() - began:.1f} s")


def _advice(error: Exception) -> str:
    """What to change for a cell that does not fit into the GPU's memory: a smaller one may fit, so the run goes on."""
    if not isinstance(error, torch.OutOfMemoryError):
        return ""
    return "; lower batch_tokens or scoring.batch_tokens, or set model.checkpointing=true"


def _blame(error: Exception) -> str:
    """What to do with an error that is nobody's input and no lack of the machine."""
    if isinstance(error, UserError | StageFailedError | OSError | MemoryError | torch.OutOfMemoryError):
        return ""
    return "\n  this is a bug in rosepo_bench or in the method: please report it and attach that file"


def _check_gpu(error: Exception) -> None:
    """StoppedError where the GPU answers no more: after some errors every later call of the process fails."""
    if isinstance(error, torch.AcceleratorError) or torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError as broken:
            raise StoppedError(
                f"the GPU cannot be used any more by this process ({named(broken)}); if it ends at the same cell "
                "again, leave that method out with --methods"
            ) from error


def _absent(out: Path, lacking: list[Cell]) -> list[Failure]:
    """The cells that lack a record, and every other cell of the folder that failed."""
    failed = read_failures(out)
    known = {failure.key for failure in failed}
    return [*failed, *(record.failure(cell) for cell in lacking if cell.key not in known)]


def _finish(planned: list[Cell], out: Path, nothing_ran: bool) -> int:
    """Writes the tables of all records in the folder and names the failed cells."""
    found, problems = records.read_records(out)
    lacking = [] if nothing_ran else [cell for cell in planned if not is_done(cell)]
    absent = _absent(out, lacking)
    report = tables.report_of(found, absent, problems)
    if nothing_ran:
        progress.say(markdown(report))
    for path in tables.write_report(out, report):
        progress.say(f"written: {path}")
    progress.say(f"{len(planned) - len(lacking)} of {len(planned)} cells done")
    if lacking:
        progress.say("failed: " + ", ".join(cell.name for cell in lacking))
    return FAILED if lacking else DONE


def _forget(planned: list[Cell]) -> None:
    """Removes records, stages and checkpoints of the cells."""
    for cell in planned:
        with _lease(cell):
            shutil.rmtree(cell.folder, ignore_errors=True)
    stages = {stage.key: (cell, stage) for cell in planned if not cell.broken for stage in closure(cell)}
    for cell, stage in stages.values():
        cell.task.stages.forget(stage)
