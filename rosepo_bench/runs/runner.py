"""Runs cells under a lock on the output folder. A failed cell does not stop the others; tables after each data set."""

from __future__ import annotations

import itertools
import os
import shutil
import time
import traceback
from pathlib import Path

import torch

from rosepo_bench.base import progress, store
from rosepo_bench.base.config import RunConfig
from rosepo_bench.report import tables
from rosepo_bench.runs import record
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.index import Index
from rosepo_bench.runs.methods import Preference
from rosepo_bench.runs.plan import Places, cells, closure, is_done

DONE, FAILED = 0, 3


def run(config: RunConfig, places: Places, *, force: bool = False) -> int:
    """Runs every cell that has no record yet (with ``force`` all cells and all their stages), writes and prints the
    tables. Returns the exit status: 0 if every cell is done, 3 if some failed."""
    if config.threads:
        torch.set_num_threads(config.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required for deterministic matrix products on a GPU
    torch.use_deterministic_algorithms(True)
    with store.Lock(places.out), progress.shown():
        planned = cells(config, places)
        if force:
            _forget(planned)
        index = Index.read(places.out)
        groups = [list(group) for _, group in itertools.groupby(planned, key=lambda cell: cell.pipeline.name)]
        waiting = [[cell for cell in group if not is_done(cell)] for group in groups]
        for unfinished in waiting:
            _check(unfinished)
        index.plan(planned)
        for group, unfinished in zip(groups, waiting, strict=True):
            if unfinished:
                _run_dataset(group, unfinished, index)
        if not any(waiting):
            progress.say(tables.render(*index.everything()))
        return _finish(planned, index)


def _check(unfinished: list[Cell]) -> None:
    """Raises the input errors of a data set before any training."""
    for cell in {cell.pipeline.seed: cell for cell in unfinished}.values():
        _ = cell.pipeline.test
    language = next((cell.language for cell in unfinished if cell.scored is not None), None)
    if language is not None:
        language.check(paired=any(isinstance(cell.method, Preference) for cell in unfinished))


def _run_dataset(group: list[Cell], unfinished: list[Cell], index: Index) -> None:
    began = time.monotonic()
    for cell in unfinished:
        _run_cell(cell, index)
    name = group[0].pipeline.name
    progress.say(f"\n{name}: {len(unfinished)} cells in {time.monotonic() - began:.0f} s\n")
    progress.say(tables.render(*index.of_dataset(name)))


def _run_cell(cell: Cell, index: Index) -> None:
    progress.say(cell.name)
    began = time.monotonic()
    log = index.out / "failures" / f"{cell.name.replace('/', '-')}.txt"
    try:
        record.run(cell)
    except BrokenPipeError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        index.failed(cell, reason)
        store.write_text(log, traceback.format_exc())
        progress.say(f"  FAILED {cell.name}: {reason}\n  traceback in {log}")
    else:
        index.done(cell)
        log.unlink(missing_ok=True)
        progress.say(f"  done in {time.monotonic() - began:.1f} s")


def _finish(planned: list[Cell], index: Index) -> int:
    """Writes the tables of all records in the folder and prints the failed cells."""
    for path in tables.write_report(index.out, *index.everything()):
        progress.say(f"written: {path}")
    failed = [cell.name for cell in planned if not is_done(cell)]
    progress.say(f"{len(planned) - len(failed)} of {len(planned)} cells done")
    if failed:
        progress.say("failed: " + ", ".join(failed))
    return FAILED if failed else DONE


def _forget(planned: list[Cell]) -> None:
    """Removes records, stages and checkpoints of the cells."""
    for cell in planned:
        stages = cell.pipeline.stages
        shutil.rmtree(cell.folder, ignore_errors=True)
        for stage in closure(cell):
            for folder in (stages.folder(stage), Path(stages.out / "work" / stage.label)):
                shutil.rmtree(folder, ignore_errors=True)
