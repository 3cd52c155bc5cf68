"""Runs a cell and writes its record, from which the tables are computed."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int32

from rosepo_bench.base import records
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import candidates, sequences
from rosepo_bench.engine import environment, ops
from rosepo_bench.engine.model import language_model as models
from rosepo_bench.engine.training.memory import PeakMemory
from rosepo_bench.evaluation import metrics, statistics
from rosepo_bench.pipeline.smoothing import Smoothing
from rosepo_bench.preference.smoothing import epsilon_gap, summary
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.methods import Preference, Recommender


def run(cell: Cell) -> None:
    """Computes the cell's missing stages and writes its record and predictions."""
    began = time.monotonic()
    scores, scoring = _scores(cell)
    test = cell.pipeline.test
    rank = metrics.ranks(scores, test.position)
    best = test.candidates[np.arange(len(test)), scores.argmax(axis=1)]
    # argmax takes the first of equal scores, as the ranks do.
    record = {
        "schema": records.SCHEMA,
        "key": cell.key,
        "dataset": cell.pipeline.name,
        "method": cell.method.name,
        "family": cell.method.family,
        "seed": cell.pipeline.seed,
        "profile": cell.pipeline.config.profile,
        "config": _config(cell),
        "data": _data(cell),
        "protocol": cell.protocol,
        "metrics": metrics.measure(rank),
        "preference": _preference(cell, best) if isinstance(cell.method, Preference) else None,
        "oracle": _oracle(cell),
        "throughput": _throughput(cell, scoring, time.monotonic() - began),
        "environment": environment.facts(),
        "stages": _stage_keys(cell),
    }
    predictions = {
        "users": test.user,
        "rank": rank,
        "scores": scores.astype(np.float32),
        "top": best.astype(np.int32),
        "tied": sequences.tied(cell.pipeline.data, cell.pipeline.split)[test.user],
    }
    records.write_record(cell.pipeline.stages.out, record, predictions)


def _scores(cell: Cell) -> tuple[Float[np.ndarray, "users size"], dict[str, Any]]:
    get = cell.pipeline.stages.get
    for stage in cell.stages:
        get(stage)
    if cell.scored is not None:
        return get(cell.scored)
    assert isinstance(cell.method, Recommender)
    began = time.monotonic()
    with PeakMemory(torch.device("cpu")) as memory:
        scores = np.asarray(cell.method.scores(cell.pipeline, cell.pipeline.test), dtype=np.float64)
    if scores.shape != cell.pipeline.test.candidates.shape:
        raise UserError(f"method {cell.method.name}: scores of shape {scores.shape}, but one per candidate is needed")
    seconds = max(time.monotonic() - began, 1e-9)
    rate = len(scores) / seconds
    return scores, {"seconds": seconds, "users_per_s": rate, **memory.report()}


def _stage_keys(cell: Cell) -> dict[str, str]:
    keys = {stage.name: stage.key for stage in cell.stages}
    if cell.trained is not None:  # lets the tables check that methods start from the same SFT model
        keys["sft"] = cell.language.sft.key
    return keys


def _config(cell: Cell) -> dict[str, Any]:
    """The settings that can affect this cell, without those that select cells."""
    others = {"about", "profile", "methods", "method", "seeds", "first_seed", "datasets", "checkpoint_seconds"}
    config = cell.pipeline.config.model_dump(exclude=others)
    if isinstance(cell.method, Preference):
        config["preference"] = cell.pairing.settings.model_dump()
    return {"dataset": cell.pipeline.dataset_config.model_dump(), **config}


def _data(cell: Cell) -> dict[str, Any]:
    pipeline = cell.pipeline
    data, test = pipeline.data, pipeline.test
    return {
        "source": data.source.name,
        "kind": data.source.kind,
        "files": [asdict(file) for file in data.source.files],
        "counts": data.counts,
        "digest": data.digest,
        "split": pipeline.split.kind,
        "tied_share": sequences.tied_share(data, pipeline.split),
        "candidates_sha256": candidates.content_hash(test),
        "users": len(test),
    }


def _preference(cell: Cell, best: Int32[np.ndarray, " users"]) -> dict[str, Any]:
    assert isinstance(cell.method, Preference)
    assert cell.trained is not None
    pairing, get = cell.pairing, cell.pipeline.stages.get
    after = pairing.pair_logps(cell.method.name, cell.trained, ("validation",))
    sft = get(cell.language.scores("sft", cell.language.sft)).scores
    test = cell.pipeline.test
    changed = best != test.candidates[np.arange(len(test)), sft.argmax(axis=1)]
    return {
        "pairs_seen": get(cell.trained).report["pairs_seen"],
        "sampler": cell.method.sampler,
        "loss": pairing.settings.form if cell.method.epsilon != "zero" else "dpo",
        "beta": pairing.settings.beta,
        "epsilon": summary(cell.smoothing.epsilon("train", cell.method.epsilon)),
        "validation_epsilon": summary(cell.smoothing.epsilon("validation", cell.method.epsilon)),
        "margin_accuracy": {
            "before": _margin_accuracy(get(pairing.reference)["validation"]),
            "after": _margin_accuracy(get(after)["validation"]),
        },
        "changed_top": {"share": float(changed.mean()), "n": len(changed)},
    }


def _oracle(cell: Cell) -> dict[str, Any] | None:
    """The oracle's quality: its accuracy on uniform validation pairs, a temperature for each kind of the method's
    pairs, and the gap in mean ε between validation and training pairs, also for an oracle trained without folds."""
    if not isinstance(cell.method, Preference) or cell.method.epsilon != "oracle":
        return None
    get = cell.pipeline.stages.get
    probe = get(cell.probe.stage)
    kinds = get(cell.smoothing.judged).temperatures
    return {
        "accuracy": probe["accuracy"],
        "uniform": {key: value for key, value in probe.items() if key != "accuracy"},
        "temperatures": {kind: asdict(temperature) for kind, temperature in kinds.items()},
        **_epsilon_gaps(cell.smoothing),
    }


def _throughput(cell: Cell, scoring: dict[str, Any], seconds: float) -> dict[str, Any]:
    trained = cell.pipeline.stages.get(cell.trained).report if cell.trained else {}
    device = "cpu" if cell.scored is None else models.device_of(cell.pipeline.config.model).type
    peak = max((part for part in (trained, scoring) if part), key=lambda part: int(part["peak_memory_bytes"]))
    return {
        "training_tokens_per_s": trained.get("tokens_per_s"),
        "pairs_per_s": trained.get("pairs_per_s"),
        "scoring_users_per_s": scoring["users_per_s"],
        "peak_memory_bytes": peak["peak_memory_bytes"],
        "peak_memory_since": peak["peak_memory_since"],
        "impl": "-" if cell.scored is None else ops.live(cell.pipeline.config.model.impl, device),
        "attention": "-" if cell.scored is None else models.attention_of(cell.pipeline.config.model),
        "device": device,
        "threads": trained.get("threads", torch.get_num_threads()),
        "seconds": {
            **({"training": trained["seconds"]} if trained else {}),
            "scoring": scoring["seconds"],
            "cell": seconds,
        },
    }


def _epsilon_gaps(smoothing: Smoothing) -> dict[str, dict[str, float]]:
    def gap(unfolded: bool) -> dict[str, float]:
        validation, train = (smoothing.oracle_epsilon(part, unfolded=unfolded) for part in ("validation", "train"))
        return epsilon_gap(validation, train, smoothing.pairing.examples["train"].user).as_dict()

    return {"epsilon_gap": gap(False), "epsilon_gap_without_folds": gap(True)}


def _margin_accuracy(logps: Float64[np.ndarray, "n 2"]) -> dict[str, float]:
    """Share of pairs whose chosen title has the higher log-prob."""
    right = int((logps[:, 0] > logps[:, 1]).sum())
    return statistics.wilson(right, len(logps)).as_dict()
