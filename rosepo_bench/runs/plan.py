"""The cells of a configuration, and which of them are done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosepo_bench.base import records
from rosepo_bench.base.config import DatasetConfig, RunConfig
from rosepo_bench.base.configure import for_dataset
from rosepo_bench.base.errors import PATH, UserError, of_dataset, shown
from rosepo_bench.data import catalog, fetch
from rosepo_bench.data.catalog import SOURCES, Resolved
from rosepo_bench.engine.model.language_model import pretrained_name
from rosepo_bench.pipeline.stages import Stage, Stages
from rosepo_bench.pipeline.task import Task
from rosepo_bench.runs.cells import Cell, Shared
from rosepo_bench.runs.composing import check_listed, check_metric, check_sections, composed, select
from rosepo_bench.runs.methods import Method, methods


@dataclass(frozen=True)
class Places:
    """Folders: ``out`` for this run, ``data`` for raw files given by hand, ``cache`` for fetched ones. ``looking``:
    nothing is fetched, and data sets that a run would fetch are planned without their files."""

    out: Path
    data: Path | None
    cache: Path
    offline: bool = False
    looking: bool = False


def cells(config: RunConfig, places: Places) -> list[Cell]:
    """All cells, data set by data set. All input is checked here, before any work: names, settings, files, the model's
    architecture."""
    names, stages, every, planned = select(config.methods), Stages(places.out), {}, []
    for name in config.datasets:
        own = for_dataset(config, name)
        every[name] = own, _methods(own, names)
        with of_dataset(name):
            check_metric(own.validation.metric, size := own.datasets[name].candidates)
            for method, _ in every[name][1]:
                check_listed(method, own, size)
    for name, (own, made) in every.items():
        found = resolved(name, own.datasets[name], places)
        for seed in range(config.first_seed, config.first_seed + config.seeds):
            shared = Shared(Task(name, own, seed, found, stages))
            planned += [Cell(shared, method, broken) for method, broken in made]
    for cell in planned:
        if places.looking and cell.reads_titles:
            _check_hub(pretrained_name(cell.task.config.model.name))
        cell.check()
    return planned


def _methods(config: RunConfig, names: list[str]) -> list[tuple[Method, str]]:
    """A data set's methods, and for each why it cannot be used."""
    check_sections(config)
    known = methods()
    return [
        (Method(name=name), known.broken[name]) if name in known.broken else (composed(known[name], config), "")
        for name in names
    ]


def _check_hub(model: str) -> None:
    """UserError: a model of the hub that is not in its cache."""
    if not model or Path(model).is_dir():
        return
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except (HFValidationError, OSError) as error:
        raise UserError(f"model hf:{model}: {error}") from None
    if found is None:
        raise UserError(
            f"model hf:{model}: neither a folder nor in the hub's cache, and planning downloads nothing; fetch it with "
            f"`hf download {model}`"
        )


def resolved(name: str, dataset: DatasetConfig, places: Places) -> Resolved:
    """The files of a data set. UserError, which names it as the profile does: no files, or they cannot be read."""
    with of_dataset(name):
        try:
            return catalog.resolve(dataset.source, dataset, places.data, places.cache, places.offline)
        except fetch.NotFetchedError:
            return Resolved(SOURCES[dataset.source], "real", name=dataset.source)
        except OSError as error:
            path = shown(str(error.filename), longest=PATH)
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def fetched(cell: Cell) -> bool:
    """Whether the files of the cell's data set are there; its key is known only then."""
    return cell.task.resolved.kind == "synthetic" or bool(cell.task.resolved.files)


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
