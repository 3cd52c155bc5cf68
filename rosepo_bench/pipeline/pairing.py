"""The pairs of one sampler as stages: steps → rejected items → reference log-probs."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Shaped

from rosepo_bench.base import store
from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.data.types import Examples
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.ranking.scoring import title_logps, title_scores
from rosepo_bench.pipeline.language import Language
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.pipeline.task import Trained
from rosepo_bench.preference.pairs import choose_steps
from rosepo_bench.preference.samplers import sampler as rejection
from rosepo_bench.preference.samplers.sampler import SamplerName
from rosepo_bench.preference.samplers.self_hard import Pool

PARTS = ("train", "validation")
CATALOGUE_CHUNK = 256  # titles per pass when self-hard scores the whole catalogue
CATALOGUE_TOP = 64


class Drawn(NamedTuple):
    """Rejected items of one part; ``law`` and ``kind`` as in ``preference/samplers/self_hard.py``."""

    rejected: Int32[np.ndarray, " n"]
    law: Float64[np.ndarray, " n"]
    kind: Shaped[np.ndarray, " n"]


class Pairing:
    """Pairs of one sampler under one preference configuration; methods with the same two share every stage."""

    def __init__(self, language: Language, sampler: SamplerName, settings: PreferenceConfig) -> None:
        self.language, self.sampler, self.settings = language, sampler, settings
        self.pipeline, self.seed = language.pipeline, language.seed
        self.stages = self.pipeline.stages

    # --- prompts ----------------------------------------------------------------------------------------------------

    @cached_property
    def examples(self) -> dict[str, Examples]:
        """The prompts of training and validation pairs."""
        return {"train": self._training_examples(), "validation": self._validation_examples()}

    def _training_examples(self) -> Examples:
        settings, users = self.settings, self.pipeline.data.users
        user, step = choose_steps(
            self.pipeline.split,
            pairs=settings.pairs,
            steps_per_user=settings.steps_per_user,
            seed=derive(self.seed, "steps"),
        )
        steps: list[list[int]] = [[] for _ in range(users)]
        for u, s in zip(user.tolist(), step.tolist(), strict=True):
            steps[u].append(s)
        return self.language.training_candidates(steps)

    def _validation_examples(self) -> Examples:
        everybody = self.stages.get(self.pipeline.examples_stage("validation"))
        order = generator(self.seed, "validation pairs").permutation(len(everybody))
        return everybody.take(np.sort(order[: self.settings.validation_pairs]))

    @property
    def _steps_inputs(self) -> dict[str, Any]:
        names = ("pairs", "steps_per_user", "validation_pairs")
        return {**{name: getattr(self.settings, name) for name in names}, "seed": self.seed}

    # --- rejected items ---------------------------------------------------------------------------------------------

    @cached_property
    def mining(self) -> Stage[dict[str, Pool]]:
        """The SFT model's scores of the items that self-hard may reject: the prompt's candidates, or the top of the
        catalogue. Its mistakes are those under the evaluation protocol, so ``scoring.score`` applies here too."""
        whole = self.settings.self_hard_pool == "catalogue"

        def compute(folder: Path, work: Path) -> None:
            model = self._model(self.language.sft)
            for part in PARTS:
                pool = self._catalogue_pool(model, part) if whole else self._candidate_pool(model, part)
                store.write_npz(folder / f"{part}.npz", items=pool.items, scores=pool.scores)

        inputs = {
            **self._steps_inputs,
            "pool": self.settings.self_hard_pool,
            "scoring": self.pipeline.config.scoring.model_dump(),
        }
        return Stage(
            f"{self.pipeline.name}.mining",
            inputs,
            (self.language.sft, self.pipeline.examples_stage("validation")),
            compute,
            lambda folder: {part: Pool(**store.read_npz(folder / f"{part}.npz")) for part in PARTS},
        )

    def _candidate_pool(self, model: LanguageModel, part: str) -> Pool:
        examples = self.examples[part]
        return Pool(examples.candidates, self._scores(model, examples, examples.candidates, part))

    def _catalogue_pool(self, model: LanguageModel, part: str) -> Pool:
        examples, items = self.examples[part], self.pipeline.data.items
        pool = Pool(np.zeros((len(examples), 0), np.int32), np.zeros((len(examples), 0)))
        for start in range(0, items, CATALOGUE_CHUNK):
            chunk = np.arange(start, min(start + CATALOGUE_CHUNK, items), dtype=np.int32)
            titles = np.broadcast_to(chunk, (len(examples), len(chunk)))
            found = self._scores(model, examples, titles, part)
            both = Pool(np.hstack([pool.items, titles]), np.hstack([pool.scores, found]))
            # A user's past and the target are removed later: keep that many items more.
            longest = CATALOGUE_TOP + int(examples.step.max()) + 1
            best = np.argsort(-both.scores, axis=1, kind="stable")[:, :longest]
            pool = Pool(np.take_along_axis(both.items, best, 1), np.take_along_axis(both.scores, best, 1))
        return pool

    def _scores(
        self, model: LanguageModel, examples: Examples, items: Int32[np.ndarray, "n R"], part: str
    ) -> Float64[np.ndarray, "n R"]:
        scoring = self.pipeline.config.scoring
        return title_scores(
            model,
            self.language.prompter,
            self.pipeline.data.sequences,
            examples,
            items,
            score=scoring.score,
            batch_tokens=scoring.batch_tokens,
            label=f"{self.pipeline.name} {part}: mining",
        )

    @cached_property
    def rejected(self) -> Stage[dict[str, Drawn]]:
        """One rejected item for each prompt of both parts."""
        mined = self.sampler in ("self_hard", "mixed")
        names = ("semantic_anchor", "semantic_temperature", "popularity_exponent")

        def compute(folder: Path, work: Path) -> None:
            pipeline = self.pipeline
            history = pipeline.config.prompt.history
            sampler = rejection.Sampler.of(pipeline.data, pipeline.split, self.settings, history=history)
            for part in PARTS:
                pool = self.stages.get(self.mining)[part] if mined else None
                seed = derive(self.seed, "rejected", part)
                drawn = sampler.draw(self.sampler, self.examples[part], seed=seed, pool=pool)
                store.write_npz(folder / f"{part}.npz", rejected=drawn.items, law=drawn.law, kind=drawn.kind)

        inputs = {
            **self._steps_inputs,
            **{name: getattr(self.settings, name) for name in names},
            "history": self.pipeline.config.prompt.history,
            "sampler": self.sampler,
        }
        parents = (self.pipeline.examples_stage("validation"), *((self.mining,) if mined else ()))
        return Stage(
            f"{self.pipeline.name}.rejected.{self.sampler}",
            inputs,
            parents,
            compute,
            lambda folder: {part: Drawn(**store.read_npz(folder / f"{part}.npz")) for part in PARTS},
        )

    # --- log-probs --------------------------------------------------------------------------------------------------

    def titles(self, part: str) -> Int32[np.ndarray, "n 2"]:
        """Chosen and rejected items."""
        drawn = self.stages.get(self.rejected)[part]
        return np.stack([self.examples[part].target.astype(np.int32), drawn.rejected], axis=1)

    def prompts(self, part: str) -> Examples:
        """The prompts as the model reads them: if they list candidates, the rejected item is among them."""
        examples = self.examples[part]
        if not self.language.prompter.with_candidates:
            return examples
        listed, draw = examples.candidates.copy(), generator(self.seed, "slots", part)
        for row, item in enumerate(self.titles(part)[:, 1]):
            slot = (examples.position[row] + draw.integers(1, listed.shape[1])) % listed.shape[1]
            if item not in listed[row]:  # in a random place, not the target's: a fixed place would reveal it
                listed[row, slot] = item
        return replace(examples, candidates=listed)

    def _model(self, trained: Stage[Trained]) -> LanguageModel:
        return self.language.create(self.stages.get(trained).weights)

    def _logps(
        self, model: LanguageModel, examples: Examples, items: Int32[np.ndarray, "n 2"], label: str
    ) -> Float64[np.ndarray, "n 2"]:
        language = self.language
        return title_logps(
            model,
            language.prompter,
            self.pipeline.data.sequences,
            examples,
            items,
            batch_tokens=self.pipeline.config.scoring.batch_tokens,
            label=f"{self.pipeline.name} {label} pairs",
        )

    def pair_logps(
        self, name: str, trained: Stage[Trained], parts: tuple[str, ...]
    ) -> Stage[dict[str, Float64[np.ndarray, "n 2"]]]:
        """Summed log-probs of chosen and rejected titles under trained weights, for each of ``parts``. Always sums,
        whatever ``scoring.score``: the losses are defined on them."""

        def compute(folder: Path, work: Path) -> None:
            model = self._model(trained)
            found = {part: self._logps(model, self.prompts(part), self.titles(part), part) for part in parts}
            store.write_npz(folder / "logps.npz", **found)

        inputs = {"parts": parts, "batch_tokens": self.pipeline.config.scoring.batch_tokens}
        return Stage(
            f"{self.pipeline.name}.logps.{name}",
            inputs,
            (trained, self.rejected),
            compute,
            lambda folder: store.read_npz(folder / "logps.npz"),
        )

    @property
    def reference(self) -> Stage[dict[str, Float64[np.ndarray, "n 2"]]]:
        """Log-probs of all pairs under the reference model, SFT. Computed once, so that training needs no second model
        in memory."""
        return self.pair_logps(f"reference.{self.sampler}", self.language.sft, PARTS)
