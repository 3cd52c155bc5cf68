"""The rows of `plan`: each cell's state and estimated time, the sum over its stages, shared stages counted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from rosepo_bench.base.config import ModelConfig, RunConfig
from rosepo_bench.data import catalog, storage
from rosepo_bench.data.types import Dataset
from rosepo_bench.engine.model.language_model import pretrained_config, pretrained_name
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.index import Index
from rosepo_bench.runs.plan import Places, cells, closure, is_done

# Floating-point operations a second that two cores of a current x86-64 server reach in training and in scoring of
# `tiny`. Only the order of magnitude matters: the estimate says minutes or days.
TRAINING_RATE, SCORING_RATE = 7e10, 9e10
TITLE_TOKENS = 8


@dataclass(frozen=True)
class _Size:
    """What the cost of a stage depends on."""

    cell: Cell
    dataset: Dataset

    @property
    def interactions(self) -> int:
        return sum(map(len, self.dataset.sequences))

    @property
    def users(self) -> int:
        return self.cell.pipeline.dataset_config.users or self.dataset.users

    @property
    def prompt(self) -> float:
        """Tokens of a typical prompt."""
        length = min(self.cell.pipeline.config.prompt.history, self.interactions / self.dataset.users)
        listed = self.cell.pipeline.dataset_config.candidates if self.cell.pipeline.config.prompt.candidates else 0
        return TITLE_TOKENS * (1 + length + listed)


def plan_rows(config: RunConfig, places: Places) -> list[dict[str, Any]]:
    """One row per cell: names, key, state (done, failed, waiting) and estimated seconds of the missing stages. A stage
    that several cells share counts in the first one's estimate."""
    failed = {entry["key"] for entry in Index.read(places.out).cells.values() if entry["failed"]}
    counted: set[str] = set()
    sizes: dict[str, _Size] = {}
    rows = []
    for cell in cells(config, places):
        name = cell.pipeline.name
        size = sizes[name] = sizes.get(name) or _Size(cell, _dataset(cell))
        state = "done" if is_done(cell) else "failed" if cell.key in failed else "waiting"
        seconds = 0.0
        for stage in closure(cell) if state != "done" else ():
            if stage.key not in counted and not cell.pipeline.stages.done(stage):
                counted.add(stage.key)
                seconds += _seconds(stage.name.removeprefix(f"{name}."), _Size(cell, size.dataset))
        rows.append(
            {
                "dataset": name,
                "data": cell.pipeline.resolved.kind,
                "method": cell.method.name,
                "seed": cell.pipeline.seed,
                "key": cell.key,
                "state": state,
                "estimated_seconds": round(seconds, 1),
            }
        )
    return rows


def render(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, with their total."""
    shown = [[*(row[k] for k in ("dataset", "data", "method", "seed")), row["key"][:12], row["state"],
              f"{row['estimated_seconds']:.0f}"] for row in rows]  # fmt: skip
    table = tabulate(shown, ["data set", "data", "method", "seed", "key", "state", "about s"], tablefmt="github")
    waiting = sum(row["state"] != "done" for row in rows)
    total = sum(row["estimated_seconds"] for row in rows)
    return f"{table}\n\n{waiting} of {len(rows)} cells to do, about {total / 60:.0f} minutes on two CPU cores"


def _dataset(cell: Cell) -> Dataset:
    """Read from its stage if that is done; otherwise parsed without writing anything."""
    pipeline = cell.pipeline
    if pipeline.stages.done(pipeline.data_stage):
        return storage.load(pipeline.stages.folder(pipeline.data_stage))
    return catalog.load(pipeline.resolved, pipeline.dataset_config)


def _seconds(kind: str, size: _Size) -> float:
    """Estimated seconds of one stage; kinds without an entry are too fast to count."""
    costs: dict[str, Callable[[_Size], float]] = {
        "sft": lambda size: _train(size, size.interactions * TITLE_TOKENS * size.cell.pipeline.config.sft.epochs),
        "scores": lambda size: _score(size, size.users),
        "sasrec": _sasrec,
        "oracle": lambda size: _sasrec(size) * (size.cell.pipeline.config.oracle.folds - 1),
        "mining": lambda size: _score(size, _pairs(size) / _steps(size)) * _steps(size) ** 0.5,
        "logps": lambda size: _score(size, _pairs(size) / _steps(size)) / 3,
    }
    family = kind.partition(".")[0]
    if family in costs:
        return costs[family](size)
    if kind == size.cell.method.name:  # preference training is named after its method
        settings = size.cell.pairing.settings
        tokens = _pairs(size) / _steps(size) * (size.prompt + _steps(size) * TITLE_TOKENS)
        return _train(size, tokens * settings.epochs)
    return 0.0


def _pairs(size: _Size) -> float:
    settings = size.cell.pairing.settings
    return min(settings.pairs, size.dataset.users * settings.steps_per_user)


def _steps(size: _Size) -> int:
    return size.cell.pairing.settings.steps_per_user


def _train(size: _Size, tokens: float) -> float:
    return 6 * _parameters(size.cell) * tokens / TRAINING_RATE


def _score(size: _Size, prompts: float) -> float:
    listed = size.cell.pipeline.dataset_config.candidates * TITLE_TOKENS * 0.7
    return 2 * _parameters(size.cell) * prompts * (size.prompt + listed) / SCORING_RATE


def _sasrec(size: _Size) -> float:
    config = size.cell.pipeline.config.sasrec
    weights = config.layers * 6 * config.hidden**2 + size.dataset.items * config.hidden
    return 6 * weights * size.interactions * config.epochs / TRAINING_RATE


def _parameters(cell: Cell) -> float:
    """Weights that each token is multiplied with: the body's and the head's."""
    model = cell.pipeline.config.model
    hidden, layers, vocabulary = _shape(model)
    return 12 * layers * hidden**2 + vocabulary * hidden


def _shape(model: ModelConfig) -> tuple[int, int, int]:
    name = pretrained_name(model.name)
    if not name:
        return model.hidden, model.layers, model.vocabulary
    config = pretrained_config(name)
    return config.hidden_size, config.num_hidden_layers, config.vocab_size
