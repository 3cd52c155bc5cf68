"""The cells of a configuration, and which of them are done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.configure import for_dataset
from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.data import catalog
from rosepo_bench.pipeline.language import Language
from rosepo_bench.pipeline.stages import Stage, Stages
from rosepo_bench.pipeline.task import Pipeline
from rosepo_bench.runs import methods
from rosepo_bench.runs.cells import Cell, preference_settings


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
    chosen = methods.select(config.methods)
    stages, planned = Stages(places.out), []
    for name in config.datasets:
        own = for_dataset(config, name)
        _check_method_sections(own)
        dataset = own.datasets[name]
        resolved = catalog.resolve(dataset.source, dataset, places.data, places.cache, places.offline)
        for seed in range(config.first_seed, config.first_seed + config.seeds):
            pipeline = Pipeline(name, own, seed, resolved, stages)
            language = Language(pipeline)
            planned += [Cell(pipeline, language, method) for method in chosen]
    for cell in planned:
        _ = cell.key  # computing the key validates the method's settings
        if cell.scored is not None:
            _ = cell.language.context  # refuses an unsuitable model
    return planned


def _check_method_sections(config: RunConfig) -> None:
    """Checks the ``[method.NAME]`` sections of all methods, selected or not."""
    known = methods.registry()
    for name, section in config.method.items():
        if name not in known:
            raise UserError(f"[method.{name}]: there is no such method; {nearest(name, known)}")
        method = known[name]
        if not isinstance(method, methods.Preference):
            raise UserError(f"[method.{name}]: only methods with preference training have settings of their own")
        preference_settings(method, config.preference, section)


def is_done(cell: Cell) -> bool:
    """Whether the cell's record exists."""
    return (cell.folder / "record.json").is_file()


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
