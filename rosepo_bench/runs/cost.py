"""The rows of `plan`: each cell's state and estimated time, the sum over its stages, shared stages counted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tabulate import tabulate

from rosepo_bench.base.config import ModelConfig, PreferenceConfig, RunConfig
from rosepo_bench.base.failures import read_failures
from rosepo_bench.data import fetch
from rosepo_bench.data.types import Dataset
from rosepo_bench.engine.model.language_model import pretrained_config, pretrained_name
from rosepo_bench.pipeline.stages import Stage, kind
from rosepo_bench.preference.smoothings.base import OracleSmoothing
from rosepo_bench.recommenders.base import Oracle
from rosepo_bench.recommenders.sasrec import SASRec
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.methods import Preference, Recommender
from rosepo_bench.runs.plan import Places, cells, closure, fetched, is_done
from rosepo_bench.runs.rehearsal import rehearsed

# Floating-point operations a second that two cores of a current x86-64 server reach in training and in scoring of
# `tiny`. Only the order of magnitude matters: the estimate says minutes or days.
TRAINING_RATE, SCORING_RATE = 7e10, 9e10
TITLE_TOKENS = 8
NOT_FETCHED = "not fetched"


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
        return self.cell.task.dataset_config.users or self.dataset.users

    @property
    def prompt(self) -> float:
        """Tokens of a typical prompt."""
        length = min(self.cell.task.config.prompt.history, self.interactions / self.dataset.users)
        listed = self.cell.task.dataset_config.candidates if self.cell.task.config.prompt.candidates else 0
        return TITLE_TOKENS * (1 + length + listed)


def plan_rows(config: RunConfig, places: Places) -> list[dict[str, Any]]:
    """One row per cell: names, key, state (done, failed, waiting) and estimated seconds of the missing stages. A stage
    that several cells share counts in the first one's estimate. ``measured``: the part of the estimate that is what
    finished stages of this folder took. Nothing is fetched: where a run would fetch the data, ``data`` says so, ``key``
    is empty and the estimate None."""
    failed = {failure.key for failure in read_failures(places.out)}
    counted: set[str] = set()
    with fetch.looking():
        planned, rows = cells(config, replace(places, looking=True)), []
    measured = planned[0].task.stages.measured()
    datasets: dict[str, Dataset] = {}
    for cell in planned:
        name = cell.task.name
        if not fetched(cell):
            rows.append(_row(cell, "waiting", None, None) | {"data": NOT_FETCHED, "key": ""})
            continue
        state = "done" if is_done(cell) else "failed" if cell.key in failed else "waiting"
        missing = [] if state == "done" or cell.broken else _missing(cell, counted)
        if missing and name not in datasets:
            alike = [one for one in planned if one.task is cell.task and not is_done(one, say=False)]
            datasets[name] = rehearsed(alike)
        known, guessed = 0.0, 0.0
        for stage in missing:
            seconds = measured.get(stage.name)
            known += seconds or 0.0
            guessed += _seconds(kind(stage.name), _Size(cell, datasets[name])) if seconds is None else 0.0
        rows.append(_row(cell, state, round(known + guessed, 1), round(known, 1)))
    return rows


def _row(cell: Cell, state: str, estimated: float | None, measured: float | None) -> dict[str, Any]:
    return {
        "dataset": cell.task.name,
        "data": cell.task.resolved.kind,
        "method": cell.method.name,
        "seed": cell.task.seed,
        "key": cell.key,
        "state": state,
        "estimated_seconds": estimated,
        "measured_seconds": measured,
    }


def _missing(cell: Cell, counted: set[str]) -> list[Stage[Any]]:
    """The cell's stages that are neither done nor ``counted`` already; they are counted now."""
    found = [stage for stage in closure(cell) if stage.key not in counted and not cell.task.stages.done(stage)]
    counted.update(stage.key for stage in found)
    return found


def render(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, with their total."""
    lines = [[*(row[k] for k in ("dataset", "data", "method", "seed")), row["key"][:12], row["state"],
              "?" if row["key"] == "" else f"{row['estimated_seconds']:.0f}"] for row in rows]  # fmt: skip
    table = tabulate(lines, ["data set", "data", "method", "seed", "key", "state", "about s"], tablefmt="github")
    waiting = sum(row["state"] != "done" for row in rows)
    total, measured = (sum(row[name] or 0 for row in rows) for name in ("estimated_seconds", "measured_seconds"))
    how = f"{measured / total:.0%} of it from what such stages took in this folder" if measured else "a guess"
    time = f", about {total / 60:.0f} minutes ({how}, on two CPU cores)" if total else ""
    absent = list(dict.fromkeys(row["dataset"] for row in rows if row["data"] == NOT_FETCHED))
    advice = f", without {', '.join(absent)}: `data fetch NAME`, or the run, fetches what is needed" if absent else ""
    return f"{table}\n\n{waiting} of {len(rows)} cells to do{time}{advice}"


def _seconds(name: str, size: _Size) -> float:
    """Estimated seconds of one stage; kinds without an entry are too fast to count."""
    costs: dict[str, Callable[[_Size], float]] = {
        "sft": _finetuned,
        "sft-longer": _aligned,
        "candidates-sum": _ranked,
        "candidates-mean": _ranked,
        "fit": _fit,
        "crossfit": _crossfit,
        "mining": lambda size: _score(size, _pairs(size) / _steps(size)) * _steps(size) ** 0.5,
        "logps": lambda size: _score(size, _pairs(size) / _steps(size)) / 3,
    }
    family = name.partition(".")[0]
    if family in costs:
        return costs[family](size)
    return _aligned(size) if family == size.cell.method.name else 0.0  # named after its method


def _preference(size: _Size) -> PreferenceConfig:
    """The settings of preference training that the cell's stages go by."""
    cell = size.cell
    return cell.training if isinstance(cell.method, Preference) else cell.task.config.preference


def _finetuned(size: _Size) -> float:
    config = size.cell.task.config.sft
    responses = max(size.interactions * config.epochs, config.min_steps * config.batch)
    watched = config.evaluations * min(size.cell.task.config.validation.users or size.users, size.users)
    return _train(size, (config.steps * config.batch or responses) * TITLE_TOKENS) + _score(size, watched)


def _aligned(size: _Size) -> float:
    settings, method = _preference(size), size.cell.method
    responses = 1 + method.rejected if isinstance(method, Preference) else 2
    tokens = _pairs(size) / _steps(size) * (size.prompt + _steps(size) * TITLE_TOKENS * responses / 2)
    return _train(size, tokens * settings.epochs)


def _pairs(size: _Size) -> float:
    settings = _preference(size)
    return min(settings.pairs, size.dataset.users * settings.steps_per_user)


def _steps(size: _Size) -> int:
    return _preference(size).steps_per_user


def _train(size: _Size, tokens: float) -> float:
    return 6 * _parameters(size.cell) * tokens / TRAINING_RATE


def _score(size: _Size, prompts: float) -> float:
    listed = size.cell.task.dataset_config.candidates * TITLE_TOKENS * 0.7
    return 2 * _parameters(size.cell) * prompts * (size.prompt + listed) / SCORING_RATE


def _ranked(size: _Size) -> float:
    """Without a language model it is too fast to count."""
    return _score(size, size.users) if size.cell.reads_titles else 0.0


def _fit(size: _Size) -> float:
    method = size.cell.method
    if isinstance(method, Recommender):
        return _sasrec(size, method.model)
    smoothing = method.smoothing if isinstance(method, Preference) else None
    return _sasrec(size, smoothing.oracle) if isinstance(smoothing, OracleSmoothing) else 0.0


def _crossfit(size: _Size) -> float:
    assert isinstance(size.cell.method, Preference)
    smoothing = size.cell.method.smoothing
    assert isinstance(smoothing, OracleSmoothing)
    return _sasrec(size, smoothing.oracle) * (smoothing.folds - 1)


def _sasrec(size: _Size, oracle: Oracle) -> float:
    """Of other oracles the cost is not known, and not counted."""
    if not isinstance(oracle, SASRec):
        return 0.0
    weights = oracle.layers * 6 * oracle.hidden**2 + size.dataset.items * oracle.hidden
    return 6 * weights * size.interactions * oracle.epochs / TRAINING_RATE


def _parameters(cell: Cell) -> float:
    """Weights that each token is multiplied with: the body's and the head's."""
    model = cell.task.config.model
    hidden, layers, vocabulary = _shape(model)
    return 12 * layers * hidden**2 + vocabulary * hidden


def _shape(model: ModelConfig) -> tuple[int, int, int]:
    name = pretrained_name(model.name)
    if not name:
        return model.hidden, model.layers, model.vocabulary
    config = pretrained_config(name)
    return config.hidden_size, config.num_hidden_layers, config.vocab_size
