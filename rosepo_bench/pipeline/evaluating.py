"""Evaluation as stages: a method's answers to a protocol's queries, and how long they took."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int

from rosepo_bench.base import store
from rosepo_bench.base.component import flat
from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Queries
from rosepo_bench.engine.training.memory import PeakMemory
from rosepo_bench.evaluation.protocols.base import Answers, Protocol, Ranker
from rosepo_bench.pipeline.fitting import Fits
from rosepo_bench.pipeline.language import Language
from rosepo_bench.pipeline.ranking import TitleRanker
from rosepo_bench.pipeline.results import Trained
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.pipeline.task import Task
from rosepo_bench.preference.oracles.cross_fit import checked_scores
from rosepo_bench.recommenders.base import Oracle, State


class Answered(NamedTuple):
    """Answers to the test queries, and how long they took."""

    answers: Answers
    report: dict[str, Any]


class ItemRanker(Ranker):
    """A recommender over item ids."""

    serves: ClassVar[frozenset[str]] = frozenset({"scores"})

    def __init__(self, oracle: Oracle, state: State) -> None:
        self.oracle, self.state = oracle, state

    def scores(self, queries: Queries, items: Int[np.ndarray, "n R"], rule: str) -> Float64[np.ndarray, "n R"]:
        return checked_scores(self.oracle, self.state, queries, items)


def of_titles(language: Language, name: str, trained: Stage[Trained] | None, protocol: Protocol) -> Stage[Answered]:
    """The answers of the language model under trained weights, or untrained."""
    task, config = language.task, language.task.config

    def ranker() -> Ranker:
        model = language.create(None if trained is None else task.stages.get(trained).weights)
        label = f"{task.name} {name}: {protocol.name}"
        return TitleRanker(model, language.prompter, config.scoring.batch_tokens, label)

    inputs = {**language.inputs, "scoring": config.scoring.model_dump()}
    parents = (*language.parents, *((trained,) if trained else ()))
    device = torch.device(language.inputs["device"])
    return _answered(task, name, protocol, TitleRanker, ranker, inputs, parents, (), device)


def of_items(fits: Fits, name: str, oracle: Oracle, protocol: Protocol) -> Stage[Answered]:
    """The answers of a recommender fitted to all users."""
    fitted = fits.fitted(oracle)

    def ranker() -> Ranker:
        return ItemRanker(oracle, fits.task.stages.get(fitted))

    return _answered(fits.task, name, protocol, ItemRanker, ranker, {}, (fitted,), (oracle,), torch.device("cpu"))


def _answered(
    task: Task,
    name: str,
    protocol: Protocol,
    kind: type[Ranker],
    ranker: Callable[[], Ranker],
    inputs: dict[str, Any],
    parents: tuple[Stage[Any], ...],
    code: tuple[object, ...],
    device: torch.device,
) -> Stage[Answered]:
    if lacking := protocol.needs - kind.serves:
        raise UserError(
            f"method {name}: protocol {protocol.name} needs {', '.join(sorted(lacking))}, which it cannot give; leave "
            "the method or the protocol out"
        )

    def compute(folder: Path, work: Path) -> None:
        made, queries = ranker(), task.queries(task.test)
        began = time.monotonic()
        with PeakMemory(device) as memory:
            answers = protocol.ask(made, queries)
        seconds = max(time.monotonic() - began, 1e-9)
        store.write_npz(folder / "answers.npz", **answers)
        report = {"seconds": seconds, "users_per_s": len(queries) / seconds, **memory.report(), **made.facts()}
        store.write_json(folder / "report.json", report)

    return Stage(
        f"{task.name}.{protocol.name}.{name}",
        {**inputs, **task.prompt_inputs, "protocol": dict(flat(protocol))},
        (task.examples_stage("test"), *parents),
        compute,
        lambda folder: Answered(store.read_npz(folder / "answers.npz"), store.read_json(folder / "report.json")),
        code=(protocol, *code),
    )
