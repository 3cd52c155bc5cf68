"""Evaluation as stages: a method's answers to a protocol's queries, and how long they took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64

from rosepo_bench.base import store
from rosepo_bench.base.component import flat
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

SCORES = 2_000_000
"""Scores of the whole catalogue that are held at once."""


class Answered(NamedTuple):
    """Answers to the test queries, and how long they took."""

    answers: Answers
    report: dict[str, Any]


class ItemRanker(Ranker):
    """A recommender over item ids."""

    serves: ClassVar[frozenset[str]] = frozenset({"scores", "best"})

    def __init__(self, oracle: Oracle, state: State, titles: Sequence[str]) -> None:
        self.oracle, self.state, self.titles = oracle, state, titles

    def scores(self, queries: Queries, items: Int[np.ndarray, "n R"], rule: str) -> Float64[np.ndarray, "n R"]:
        return checked_scores(self.oracle, self.state, queries, items)

    def best(
        self, queries: Queries, k: int, rule: str, exclude: Sequence[Int[np.ndarray, " _"]]
    ) -> tuple[Int64[np.ndarray, "n k"], Float64[np.ndarray, "n k"]]:
        items, scores = np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k))
        everything = np.arange(len(self.titles))
        rows = max(1, SCORES // len(everything))
        for start in range(0, len(queries), rows):
            part = queries.take(np.arange(start, min(start + rows, len(queries))))
            found = self.scores(part, np.tile(everything, (len(part), 1)), rule)
            for row, own in enumerate(found, start):
                own[exclude[row]] = -np.inf
                items[row] = np.argsort(-own, kind="stable")[:k]
                scores[row] = own[items[row]]
        return items, scores


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
    return _answered(task, name, protocol, ranker, inputs, parents, (), device)


def of_items(fits: Fits, name: str, oracle: Oracle, protocol: Protocol) -> Stage[Answered]:
    """The answers of a recommender fitted to all users."""
    fitted = fits.fitted(oracle)

    def ranker() -> Ranker:
        return ItemRanker(oracle, fits.task.stages.get(fitted), fits.task.view.titles)

    return _answered(fits.task, name, protocol, ranker, {}, (fitted,), (oracle,), torch.device("cpu"))


def _answered(
    task: Task,
    name: str,
    protocol: Protocol,
    ranker: Callable[[], Ranker],
    inputs: dict[str, Any],
    parents: tuple[Stage[Any], ...],
    code: tuple[object, ...],
    device: torch.device,
) -> Stage[Answered]:
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
