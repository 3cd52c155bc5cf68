"""The pairs of one sampler as stages: steps, rejected items, log-probs."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int32, Int64

from rosepo_bench.base import store
from rosepo_bench.base.component import flat
from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.data.types import Examples, Queries
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.ranking.scoring import title_logps
from rosepo_bench.pipeline.language import Language
from rosepo_bench.pipeline.mining import Mining
from rosepo_bench.pipeline.pair_steps import PARTS, PairSteps
from rosepo_bench.pipeline.results import Trained
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.preference.pairs import mismatched
from rosepo_bench.preference.samplers.base import Rejected, Sampler, ScoredQueries, checked

Logps = dict[str, Float64[np.ndarray, "n R"]]


class Pairing:
    """Pairs of one sampler, with ``k`` rejected items each, under one preference configuration. ``base`` is the model
    whose mistakes are mined and which is the reference: SFT, or the round before. Methods with the same of these share
    every stage; each ``round`` has draws of its own."""

    def __init__(
        self,
        language: Language,
        sampler: Sampler,
        settings: PreferenceConfig,
        base: Stage[Trained],
        *,
        k: int = 1,
        rule: str = "sum",
        round: int = 1,
    ) -> None:
        self.language, self.sampler, self.settings, self.base, self.k = language, sampler, settings, base, k
        self.task, self.seed, self.rule = language.task, language.seed, rule
        self.round = (round,) if round > 1 else ()  # later rounds draw anew
        self.stages, self.steps = self.task.stages, PairSteps(self.task, settings)

    @property
    def examples(self) -> dict[str, Examples]:
        """The prompts of training and validation pairs."""
        return self.steps.examples

    # --- rejected items ---------------------------------------------------------------------------------------------

    @cached_property
    def mining(self) -> Mining:
        """The scores that the sampler chooses by."""
        return Mining(self.language, self.base, self.steps, self.sampler.pool, self.rule)

    @cached_property
    def rejected(self) -> Stage[dict[str, Rejected]]:
        """The rejected items for each prompt of both parts."""
        task, sampler = self.task, self.sampler
        mined = (self.mining.stage,) if sampler.pool else ()

        def compute(folder: Path, work: Path) -> None:
            for part in PARTS:
                seed, examples = derive(self.seed, "rejected", part, *self.round), self.examples[part]
                drawn = checked(sampler, task.view, self._queries(part), examples.target, self.k, seed)
                arrays = {"items": drawn.items, "law": drawn.law, "kind": drawn.kind, "mask": drawn.mask}
                store.write_npz(folder / f"{part}.npz", **arrays)

        settings = {"sampler": dict(flat(sampler)), "name": sampler.name, "k": self.k, "round": self.round}
        inputs = {**self.steps.inputs, **task.prompt_inputs, **settings}
        return Stage(
            f"{task.name}.rejected.{sampler.name}",
            inputs,
            (task.examples_stage("validation"), *mined),
            compute,
            lambda folder: {part: Rejected(**store.read_npz(folder / f"{part}.npz")) for part in PARTS},
            code=(sampler,),
        )

    def _queries(self, part: str) -> Queries:
        queries = self.task.queries(self.examples[part])
        if not self.sampler.pool:
            return queries
        pool = self.stages.get(self.mining.stage)[part]
        return ScoredQueries(**vars(queries), scored=pool["scored"], scores=pool["scores"])

    # --- log-probs --------------------------------------------------------------------------------------------------

    def titles(self, part: str) -> Int32[np.ndarray, "n R"]:
        """Chosen and rejected items, -1 where a list is shorter."""
        drawn = self.stages.get(self.rejected)[part]
        return np.concatenate([self.examples[part].target.astype(np.int32)[:, None], drawn.items], axis=1)

    def partner(self, part: str) -> Int64[np.ndarray, " n"]:
        """For each pair the chosen item of another one, for losses that read mismatched pairs."""
        return mismatched(self.examples[part].target, derive(self.seed, "mismatched", part))

    def prompts(self, part: str) -> Examples:
        """The prompts as the model reads them: if they list candidates, the rejected items are among them."""
        examples = self.examples[part]
        if not self.language.prompter.with_candidates:
            return examples
        listed, draw = examples.candidates.copy(), generator(self.seed, "slots", part)
        size = listed.shape[1]
        if self.k >= size:
            raise UserError(f"rejected = {self.k}: prompts list {size} candidates, too few; raise dataset.candidates")
        for row, items in enumerate(self.titles(part)[:, 1:]):
            first = int(draw.integers(1, size))  # a random place, not the target's: a fixed one would reveal it
            places = [(examples.position[row] + 1 + (first - 1 + turn) % (size - 1)) % size for turn in range(size - 1)]
            for item in items[items >= 0]:
                if item not in listed[row]:
                    free = next(place for place in places if listed[row, place] not in items)
                    listed[row, free] = item
        return replace(examples, candidates=listed)

    def logps(self, model: LanguageModel, part: str, items: Int32[np.ndarray, "n R"]) -> Float64[np.ndarray, "n R"]:
        """Summed log-probs of titles after a part's prompts. Always sums: the losses are defined on them."""
        return title_logps(
            model,
            self.language.prompter,
            self.task.data.sequences,
            self.prompts(part),
            items,
            batch_tokens=self.task.config.scoring.batch_tokens,
            label=f"{self.task.name} {part} pairs",
        )

    def pair_logps(
        self, name: str, trained: Stage[Trained], parts: tuple[str, ...], *, partners: bool = False
    ) -> Stage[Logps]:
        """Log-probs ``[n, 1 + K]`` of chosen and rejected titles under trained weights, for each of ``parts``; with
        ``partners`` also ``[n, 1]`` of the mismatched titles of training pairs, as ``partner``."""

        def compute(folder: Path, work: Path) -> None:
            model = self.language.create(self.stages.get(trained).weights)
            found = {part: self.logps(model, part, self.titles(part)) for part in parts}
            if partners:
                found["partner"] = self.logps(model, "train", self.partner("train")[:, None].astype(np.int32))
            store.write_npz(folder / "logps.npz", **found)

        inputs = {"parts": parts, "partners": partners, "batch_tokens": self.task.config.scoring.batch_tokens}
        return Stage(
            f"{self.task.name}.logps.{name}",
            inputs,
            (trained, self.rejected),
            compute,
            lambda folder: store.read_npz(folder / "logps.npz"),
        )

    def reference(self, *, partners: bool = False) -> Stage[Logps]:
        """Log-probs of all pairs under the reference model, computed once, so that training needs no second model in
        memory."""
        return self.pair_logps(f"reference.{self.sampler.name}", self.base, PARTS, partners=partners)
