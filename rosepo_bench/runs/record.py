"""Runs a cell and writes its record, from which the tables are computed."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from rosepo_bench.base import records
from rosepo_bench.base.failures import Failure
from rosepo_bench.base.record_schema import all_settings, row_of
from rosepo_bench.data import candidates, noise, sequences, views
from rosepo_bench.engine import environment, ops
from rosepo_bench.engine.model import language_model as models
from rosepo_bench.evaluation.metrics.base import Predictions, measure
from rosepo_bench.evaluation.protocols.base import Protocol
from rosepo_bench.preference.smoothings.base import OracleSmoothing
from rosepo_bench.runs import diagnostics
from rosepo_bench.runs.cells import Cell, refuse_broken
from rosepo_bench.runs.composing import settings_of
from rosepo_bench.runs.methods import PlainLM, Preference, Recommender

JOINED = ("target", "counts")
"""What every protocol's predictions are given beside its own columns."""


def run(cell: Cell) -> None:
    """Computes the cell's missing stages and writes its record and predictions."""
    refuse_broken(cell)
    began = time.monotonic()
    for stage in cell.stages:
        cell.task.stages.get(stage)
    found = {protocol.name: _predictions(cell, protocol) for protocol in cell.protocols}
    settings, config = _settings(cell), _config(cell)
    record = {
        "key": cell.key,
        "row": row_of(cell.method.name, settings, config),
        "dataset": cell.task.name,
        "method": cell.method.name,
        "family": cell.method.family,
        "seed": cell.task.seed,
        "profile": cell.task.config.profile,
        "settings": settings,
        "config": config,
        "data": _data(cell),
        "training": cell.task.stages.get(cell.trained).report if cell.trained else None,
        "evaluations": {
            protocol.name: {
                "facts": protocol.facts(cell.task.dataset_config.candidates),
                "metrics": measure(found[protocol.name], found[protocol.name].gives & {*protocol.gives, *JOINED}),
            }
            for protocol in cell.protocols
        },
        "diagnostics": {
            "preference": diagnostics.preference(cell),
            "oracle": diagnostics.oracle(cell),
            "self_check": diagnostics.self_check(cell),
        },
        "throughput": _throughput(cell, time.monotonic() - began),
        "environment": environment.facts(),
        "stages": _stage_keys(cell),
    }
    arrays = {name: _arrays(cell, predictions) for name, predictions in found.items()}
    records.write_record(cell.task.stages.out, record, arrays)


def failure(cell: Cell, reason: str = "", traceback: str = "") -> Failure:
    """The cell as one without a record; without a reason it has not run."""
    settings = all_settings(_settings(cell), {} if cell.broken else _config(cell))
    place = (cell.task.name, cell.method.name, cell.task.seed)
    return Failure(*place, reason, cell.key, settings, traceback.splitlines())


def _settings(cell: Cell) -> dict[str, Any]:
    """The method's own settings. What it asks of its training is left out: the configuration holds what came of it."""
    return {name: value for name, value in settings_of(cell.method).items() if name != "training"}


def _predictions(cell: Cell, protocol: Protocol) -> Predictions:
    """What a protocol found, beside the targets and the items' training interactions, those without noise."""
    answers = cell.task.stages.get(cell.answered[protocol.name]).answers
    counts = views.train_view(cell.task.clean, cell.task.split).counts
    return replace(protocol.join(answers, cell.task.test), target=cell.task.test.target, counts=counts)


def _arrays(cell: Cell, predictions: Predictions) -> dict[str, np.ndarray]:
    """What the predictions file holds. Users and items go by the names that the data set gives them; ``users`` are
    their numbers, by which methods are compared."""
    data, test = cell.task.data, cell.task.test
    found: dict[str, np.ndarray] = {
        "users": predictions.users,
        "user_ids": np.array([data.user_ids[user] for user in predictions.users.tolist()]),
        "tied": sequences.tied(data, cell.task.split)[test.user],
    }
    if predictions.rank is not None:
        found["rank"] = predictions.rank
    if predictions.top is not None:
        found["top"] = predictions.top.astype(np.int32)
        found["top_titles"] = np.array([data.titles[item] for item in predictions.top.tolist()])
    if predictions.scores is not None and predictions.candidates is not None:
        found |= {"scores": predictions.scores, "candidates": predictions.candidates}
    rest = ("items", "text", "named", "valid", "seen", "correct", *JOINED)
    return found | {name: array for name in rest if (array := getattr(predictions, name)) is not None}


def _stage_keys(cell: Cell) -> dict[str, str]:
    keys = {stage.name: stage.key for stage in cell.stages}
    if cell.trained is not None:  # lets the tables check that methods start from the same SFT model
        keys["sft"] = cell.sft.key
    return keys


def _config(cell: Cell) -> dict[str, Any]:
    """The settings of the run that can affect this cell, beside the method's own."""
    method, config = cell.method, cell.task.config
    parts: set[str] = set()
    if not isinstance(method, Recommender):
        parts |= {"model", "prompt", "scoring"}
    if isinstance(method, Preference) or (isinstance(method, PlainLM) and method.sft != "none"):
        parts |= {"sft", "batch_tokens"}
    if isinstance(method, PlainLM) and method.sft == "longer":
        parts.add("preference")
    if _watched(cell, parts):
        parts.add("validation")
    found = {"dataset": cell.task.dataset_config.model_dump(), **config.model_dump(include=parts)}
    if isinstance(method, Preference):
        found["preference"] = cell.training.model_dump()
        if method.sampler.pool or "validation" in parts:
            found["rule"] = cell.shared.rule  # of the first protocol
    return found


def _watched(cell: Cell, parts: set[str]) -> bool:
    """Whether one of its trainings is watched on the validation part."""
    method, config = cell.method, cell.task.config
    if isinstance(method, Recommender):
        return method.model.reads_holdout
    sections = {"sft": config.sft, "preference": config.preference}
    watched = any(section.evaluations for name, section in sections.items() if name in parts)
    if not isinstance(method, Preference):
        return watched
    oracle = method.smoothing.oracle if isinstance(method.smoothing, OracleSmoothing) else None
    return watched or cell.training.evaluations > 0 or (oracle is not None and oracle.reads_holdout)


def _data(cell: Cell) -> dict[str, Any]:
    task, config = cell.task, cell.task.dataset_config
    data, test = task.clean, task.test
    found = {
        "source": data.source.name,
        "kind": data.source.kind,
        "files": [asdict(file) for file in data.source.files],
        "counts": data.counts,
        "digest": data.digest,
        "split": task.split.kind,
        **cell.shared.population,
        "candidates_sha256": candidates.content_hash(test),
        "users": len(test),
    }
    if config.noise:
        replaced = noise.replaced(data, task.data)
        found["noise"] = {"rate": config.noise, "law": config.noise_law, "replaced": replaced}
    return found


def _throughput(cell: Cell, seconds: float) -> dict[str, Any]:
    get, model = cell.task.stages.get, cell.task.config.model
    trained = get(cell.trained).report if cell.trained else {}
    scoring = get(cell.answered[cell.protocols[0].name]).report
    device = models.device_of(model).type if cell.reads_titles else "cpu"
    peak = max((part for part in (trained, scoring) if part), key=lambda part: int(part["peak_memory_bytes"]))
    return {
        "training_tokens_per_s": trained.get("tokens_per_s"),
        "pairs_per_s": trained.get("pairs_per_s"),
        "scoring_users_per_s": scoring["users_per_s"],
        "peak_memory_bytes": peak["peak_memory_bytes"],
        "peak_memory_since": peak["peak_memory_since"],
        "impl": ops.live(model.impl, device) if cell.reads_titles else "-",
        "attention": models.attention_of(model) if cell.reads_titles else "-",
        "device": device,
        "threads": trained.get("threads", torch.get_num_threads()),
        "seconds": {
            **({"training": trained["seconds"]} if trained else {}),
            **({"of_step": trained["of_step_seconds"]} if "of_step_seconds" in trained else {}),
            "scoring": scoring["seconds"],
            "cell": seconds,
        },
    }
