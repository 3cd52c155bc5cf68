"""The cells of a configuration, and which of them are done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosepo_bench.base import records
from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.configure import for_dataset
from rosepo_bench.data import catalog
from rosepo_bench.pipeline.stages import Stage, Stages
from rosepo_bench.pipeline.task import Task
from rosepo_bench.runs.cells import Cell, Shared
from rosepo_bench.runs.composing import check_sections, composed, select
from rosepo_bench.runs.methods import Method, methods


@dataclass(frozen=True)
class Places:
    """Folders: ``out`` for this run, ``data`` for raw files given by hand, ``cache`` for fetched ones."""

    out: Path
    data: Path | None
    cache: Path
    offline: bool = False


def cells(config: RunConfig, places: Places) -> list[Cell]:
    """All cells, data set by data set. All input is checked here, before any work: names, settings, files, the model's
    architecture."""
    names = select(config.methods)
    stages, planned = Stages(places.out), []
    for name in config.datasets:
        own = for_dataset(config, name)
        check_sections(own)
        dataset = own.datasets[name]
        resolved = catalog.resolve(dataset.source, dataset, places.data, places.cache, places.offline)
        for seed in range(config.first_seed, config.first_seed + config.seeds):
            shared = Shared(Task(name, own, seed, resolved, stages))
            planned += [_cell(shared, method) for method in names]
    for cell in planned:
        cell.check()
    return planned


def _cell(shared: Shared, name: str) -> Cell:
    known = methods()
    if name in known.broken:
        return Cell(shared, Method(name=name), known.broken[name])
    return Cell(shared, composed(known[name], shared.task.config))


def is_done(cell: Cell, *, say: bool = True) -> bool:
    """Whether the cell's record and predictions are as they were written; with ``say``, says where they are not."""
    return records.usable(cell.folder, say=say)


def closure(cell: Cell) -> list[Stage[Any]]:
    """All stages that the cell depends on, each once, parents first."""
    found: dict[str, Stage[Any]] = {}

    def visit(stage: Stage[Any]) -> None:
        if stage.key not in found:
            for parent in stage.parents:
                visit(parent)
            found[stage.key] = stage

    for stage in cell.stages:
        visit(stage)
    return list(found.values())
