"""What only the data tell, found out for `plan`: they are prepared in a scratch folder, of which nothing stays."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rosepo_bench.data.types import Dataset
from rosepo_bench.pipeline.stages import Stages
from rosepo_bench.pipeline.task import Task
from rosepo_bench.runs.cells import Cell, Shared
from rosepo_bench.runs.methods import Preference


def rehearsed(unfinished: list[Cell]) -> Dataset:
    """The prepared data set of cells that have it in common. UserError: what a run of them refuses before training."""
    task = unfinished[0].task
    with TemporaryDirectory(prefix="rosepo_bench-plan-") as scratch:
        shared = Shared(Task(task.name, task.config, task.seed, task.resolved, Stages(Path(scratch))))
        _bring_finished(task.stages, shared)
        check_data([replace(cell, shared=shared) for cell in unfinished])
        return shared.task.clean


def check_data(unfinished: list[Cell]) -> None:
    """Raises the input errors of one data set's cells that only its data tell."""
    usable = [cell for cell in unfinished if not cell.broken]
    for cell in usable:
        cell.check_data()
    language = next((cell.language for cell in usable if cell.reads_titles), None)
    if language is not None:
        rejected = [cell.method.rejected for cell in usable if isinstance(cell.method, Preference)]
        language.check(rejected=max(rejected, default=0))


def _bring_finished(stages: Stages, shared: Shared) -> None:
    """Copies what an earlier run has prepared; what cannot be copied is prepared anew."""
    task = shared.task
    for stage in (task.clean_stage, task.data_stage, task.examples_stage("test"), shared.language.encoder_stage):
        if stages.done(stage) and not task.stages.done(stage):
            with suppress(OSError):
                shutil.copytree(stages.folder(stage), task.stages.folder(stage))
