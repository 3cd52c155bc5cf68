"""Mining as a stage: a model's scores of the items that a sampler may reject."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int32, Shaped

from rosepo_bench.base import store
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.pipeline.language import Language
from rosepo_bench.pipeline.pair_steps import PARTS, PairSteps
from rosepo_bench.pipeline.ranking import TitleRanker
from rosepo_bench.pipeline.results import Trained
from rosepo_bench.pipeline.stages import Stage

CATALOGUE_CHUNK = 256  # titles per pass when the whole catalogue is scored
CATALOGUE_TOP = 64

Pool = dict[str, Shaped[np.ndarray, "n m"]]
"""``scored``, items, and their ``scores``."""


class Mining:
    """Scores of the prompts' candidates, or the top of the whole catalogue, under ``trained``. A model's mistakes are
    those under the evaluation protocol, so its ``rule`` applies here too."""

    def __init__(
        self,
        language: Language,
        trained: Stage[Trained],
        steps: PairSteps,
        pool: str,
        rule: str,
    ) -> None:
        self.language, self.trained, self.steps = language, trained, steps
        self.pool, self.rule, self.task = pool, rule, language.task

    @cached_property
    def stage(self) -> Stage[dict[str, Pool]]:
        """The pools of both parts."""
        task, scoring = self.task, self.task.config.scoring

        def compute(folder: Path, work: Path) -> None:
            model = self.language.create(task.stages.get(self.trained).weights)
            for part in PARTS:
                score = self._catalogue if self.pool == "catalogue" else self._candidates
                store.write_npz(folder / f"{part}.npz", **score(model, part))

        inputs = {**self.steps.inputs, "pool": self.pool, "rule": self.rule, "scoring": scoring.model_dump()}
        return Stage(
            f"{task.name}.mining",
            inputs,
            (self.trained, task.examples_stage("validation")),
            compute,
            lambda folder: {part: store.read_npz(folder / f"{part}.npz") for part in PARTS},
        )

    def _candidates(self, model: LanguageModel, part: str) -> Pool:
        examples = self.steps.examples[part]
        return {"scored": examples.candidates, "scores": self._scores(model, part, examples.candidates)}

    def _catalogue(self, model: LanguageModel, part: str) -> Pool:
        examples, items = self.steps.examples[part], self.task.view.items
        scored, scores = np.zeros((len(examples), 0), np.int32), np.zeros((len(examples), 0))
        for start in range(0, items, CATALOGUE_CHUNK):
            chunk = np.arange(start, min(start + CATALOGUE_CHUNK, items), dtype=np.int32)
            titles = np.broadcast_to(chunk, (len(examples), len(chunk)))
            scored = np.hstack([scored, titles])
            scores = np.hstack([scores, self._scores(model, part, titles)])
            # A user's past and the target are removed later: keep that many items more.
            longest = CATALOGUE_TOP + int(examples.step.max()) + 1
            best = np.argsort(-scores, axis=1, kind="stable")[:, :longest]
            scored, scores = np.take_along_axis(scored, best, 1), np.take_along_axis(scores, best, 1)
        return {"scored": scored, "scores": scores}

    def _scores(self, model: LanguageModel, part: str, items: Int32[np.ndarray, "n R"]) -> Float64[np.ndarray, "n R"]:
        batch_tokens, label = self.task.config.scoring.batch_tokens, f"{self.task.name} {part}: mining"
        ranker = TitleRanker(model, self.language.prompter, batch_tokens, label)
        return ranker.scores(self.task.queries(self.steps.examples[part]), items, self.rule)
