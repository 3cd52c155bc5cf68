"""The stages of preference training: steps → rejected items → ε, reference log-probs → training → margins."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rosepo_bench import store
from rosepo_bench.config import PreferenceConfig
from rosepo_bench.data.types import Examples, FloatArray, IntArray
from rosepo_bench.engine.aligning import TrainingPairs, train_preference
from rosepo_bench.engine.memory import PeakMemory
from rosepo_bench.engine.meter import Meter
from rosepo_bench.engine.scoring import title_logps
from rosepo_bench.language import Language
from rosepo_bench.methods import Sampler
from rosepo_bench.pipeline import Trained, read_trained
from rosepo_bench.preference import oracle, rejection
from rosepo_bench.preference.oracle import Oracle, Temperature
from rosepo_bench.preference.rejection import Pool
from rosepo_bench.preference.steps import choose_steps
from rosepo_bench.recommenders import popularity, sasrec
from rosepo_bench.seeds import derive, generator
from rosepo_bench.stages import Stage

PARTS = ("train", "validation")
CATALOGUE_CHUNK = 256  # titles of one pass when self-hard looks at the whole catalogue
CATALOGUE_TOP = 64


class Drawn(NamedTuple):
    """Rejected items of one part: ``rejected`` int32 ``[n]``, ``law`` and ``kind`` as in
    ``preference/rejection.py``."""

    rejected: IntArray
    law: FloatArray
    kind: np.ndarray


class Judged(NamedTuple):
    """What the oracle says of a sampler's pairs. ``delta`` = s(x, y_l) − s(x, y_w) for each part, from the cross-fitted
    oracle; ``unfolded`` the same from one that was trained on all users; a temperature for each kind of pair."""

    delta: dict[str, FloatArray]
    unfolded: dict[str, FloatArray]
    temperatures: dict[str, Temperature]
    unfolded_temperatures: dict[str, Temperature]


class Pairing:
    """Pairs of one sampler under one preference configuration; methods that agree on both share every stage."""

    def __init__(self, language: Language, sampler: Sampler, settings: PreferenceConfig) -> None:
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
        """The SFT model's scores of what self-hard may reject: the prompt's candidates, or the catalogue's top."""
        whole = self.settings.self_hard_pool == "catalogue"

        def compute(folder: Path, work: Path) -> None:
            for part in PARTS:
                pool = self._catalogue_pool(part) if whole else self._candidate_pool(part)
                store.write_npz(folder / f"{part}.npz", items=pool.items, scores=pool.scores)

        inputs = {
            **self._steps_inputs,
            "pool": self.settings.self_hard_pool,
            "batch_tokens": self.pipeline.config.scoring.batch_tokens,
        }
        return Stage(
            f"{self.pipeline.name}.mining",
            inputs,
            (self.language.sft, self.pipeline.examples_stage("validation")),
            compute,
            lambda folder: {part: Pool(**store.read_npz(folder / f"{part}.npz")) for part in PARTS},
        )

    def _candidate_pool(self, part: str) -> Pool:
        examples = self.examples[part]
        return Pool(examples.candidates, self._logps(self.language.sft, examples, examples.candidates, part))

    def _catalogue_pool(self, part: str) -> Pool:
        examples, items = self.examples[part], self.pipeline.data.items
        pool = Pool(np.zeros((len(examples), 0), np.int32), np.zeros((len(examples), 0)))
        for start in range(0, items, CATALOGUE_CHUNK):
            chunk = np.arange(start, min(start + CATALOGUE_CHUNK, items), dtype=np.int32)
            titles = np.broadcast_to(chunk, (len(examples), len(chunk)))
            found = self._logps(self.language.sft, examples, titles, part)
            both = Pool(np.hstack([pool.items, titles]), np.hstack([pool.scores, found]))
            # A user's past and the target are taken out later, so the top must be longer than both together.
            longest = CATALOGUE_TOP + int(examples.step.max()) + 1
            best = np.argsort(-both.scores, axis=1, kind="stable")[:, :longest]
            pool = Pool(np.take_along_axis(both.items, best, 1), np.take_along_axis(both.scores, best, 1))
        return pool

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

    # --- the oracle -------------------------------------------------------------------------------------------------

    @cached_property
    def oracle(self) -> Stage[Oracle]:
        """SASRec cross-fitted by user folds."""
        pipeline, config = self.pipeline, self.pipeline.config

        def compute(folder: Path, work: Path) -> None:
            fitted = oracle.cross_fit(
                pipeline.training,
                pipeline.data.items,
                config.sasrec,
                folds=config.oracle.folds,
                seed=self.seed,
                folder=work,
                checkpoint_seconds=config.checkpoint_seconds,
            )
            store.write_npz(folder / "folds.npz", fold=fitted.fold)
            for number, model in enumerate(fitted.models):
                sasrec.save(model, folder / f"fold{number}.safetensors")

        def read(folder: Path) -> Oracle:
            models = [sasrec.load(folder / f"fold{number}.safetensors") for number in range(config.oracle.folds)]
            return Oracle(store.read_npz(folder / "folds.npz")["fold"], tuple(models))

        inputs = {"sasrec": config.sasrec.model_dump(), "folds": config.oracle.folds, "seed": self.seed}
        return Stage(f"{pipeline.name}.oracle", inputs, (pipeline.data_stage,), compute, read)

    @cached_property
    def judged(self) -> Stage[Judged]:
        """The oracle's scores of both parts and a temperature for each kind of pair."""

        def compute(folder: Path, work: Path) -> None:
            fitted, everybody = self.stages.get(self.oracle), self.stages.get(self.pipeline.sasrec)
            deltas: dict[str, dict[str, FloatArray]] = {"delta": {}, "unfolded": {}}
            for part in PARTS:
                examples, items = self.examples[part], self.titles(part)
                histories = self.pipeline.histories(examples)
                folded = fitted.scores(examples.user, histories, items)
                unfolded = sasrec.scores(everybody, histories, items)
                for name, scores in (("delta", folded), ("unfolded", unfolded)):
                    deltas[name][part] = (scores[:, 1] - scores[:, 0]).astype(np.float64)
            for name, values in deltas.items():
                store.write_npz(folder / f"{name}.npz", **values)
                fits = self._temperatures(values["validation"])
                store.write_json(folder / f"{name}.json", {kind: asdict(fit) for kind, fit in fits.items()})

        inputs = {"seed": self.seed, "correct": self.pipeline.config.oracle.correct_for_sampler}
        parents = (self.rejected, self.oracle, self.pipeline.sasrec)
        return Stage(f"{self.pipeline.name}.judged.{self.sampler}", inputs, parents, compute, _read_judged)

    def _temperatures(self, delta: FloatArray) -> dict[str, Temperature]:
        pipeline, drawn = self.pipeline, self.stages.get(self.rejected)["validation"]
        taken = np.log1p(popularity.counts(pipeline.training, pipeline.data.items))[self.titles("validation")]
        law, popular = self._law(drawn), taken[:, 1] - taken[:, 0]
        return {
            str(kind): oracle.fit_temperature(
                delta[rows], law[rows], popular[rows], seed=derive(self.seed, "orientation", str(kind))
            )
            for kind in np.unique(drawn.kind)
            for rows in [np.flatnonzero(drawn.kind == kind)]
        }

    def _law(self, drawn: Drawn) -> FloatArray:
        return drawn.law if self.pipeline.config.oracle.correct_for_sampler else np.zeros_like(drawn.law)

    def oracle_epsilon(self, part: str, *, unfolded: bool = False) -> FloatArray:
        """ε of each pair, float64 ``[n]``: each kind of pair with its own temperature, capped at ``epsilon_max``."""
        drawn, judged = self.stages.get(self.rejected)[part], self.stages.get(self.judged)
        delta = (judged.unfolded if unfolded else judged.delta)[part]
        fits = judged.unfolded_temperatures if unfolded else judged.temperatures
        tau = np.array([fits[str(kind)].tau for kind in drawn.kind])
        return oracle.epsilon(delta, self._law(drawn), tau, self.settings.epsilon_max)

    # --- training ---------------------------------------------------------------------------------------------------

    def titles(self, part: str) -> IntArray:
        """Chosen and rejected items ``[n, 2]``."""
        drawn = self.stages.get(self.rejected)[part]
        return np.stack([self.examples[part].target.astype(np.int32), drawn.rejected], axis=1)

    def prompts(self, part: str) -> Examples:
        """The prompts as the model reads them: where they list candidates, the rejected item is among these."""
        examples = self.examples[part]
        if not self.language.prompter.with_candidates:
            return examples
        listed = examples.candidates.copy()
        for row, item in enumerate(self.titles(part)[:, 1]):
            if item not in listed[row]:
                listed[row, 0 if examples.position[row] else 1] = item
        return replace(examples, candidates=listed)

    def _logps(self, trained: Stage[Trained], examples: Examples, items: IntArray, label: str) -> FloatArray:
        language = self.language
        return title_logps(
            language.create(self.stages.get(trained).weights),
            language.prompter,
            self.pipeline.data.sequences,
            examples,
            items,
            batch_tokens=self.pipeline.config.scoring.batch_tokens,
            label=f"{self.pipeline.name} {label} pairs",
        )

    def pair_logps(self, name: str, trained: Stage[Trained], parts: tuple[str, ...]) -> Stage[dict[str, FloatArray]]:
        """Log-probs of chosen and rejected ``[n, 2]`` under trained weights, for each of ``parts``."""

        def compute(folder: Path, work: Path) -> None:
            found = {part: self._logps(trained, self.prompts(part), self.titles(part), part) for part in parts}
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
    def reference(self) -> Stage[dict[str, FloatArray]]:
        """Log-probs of all pairs under the reference model, SFT: computed once, then the model is gone."""
        return self.pair_logps(f"reference.{self.sampler}", self.language.sft, PARTS)

    def aligned(self, name: str, epsilon: str) -> Stage[Trained]:
        """Preference training on top of SFT with ε ``zero``, ``constant`` or from the ``oracle``."""
        config, settings = self.pipeline.config, self.settings

        def compute(folder: Path, work: Path) -> None:
            model = self.language.create(self.stages.get(self.language.sft).weights)
            reference, meter = self.stages.get(self.reference)["train"], Meter()
            pairs = TrainingPairs(
                self.prompts("train"), self.titles("train"), reference, self.epsilon("train", epsilon)
            )
            with PeakMemory(model.device) as memory:
                report = train_preference(
                    model,
                    self.language.prompter,
                    self.pipeline.data.sequences,
                    pairs,
                    settings,
                    seed=derive(self.seed, "preference"),
                    meter=meter,
                    batch_tokens=config.batch_tokens,
                    checkpoint=work / "checkpoint.safetensors",
                    checkpoint_seconds=config.checkpoint_seconds,
                    label=f"{self.pipeline.name} {name}",
                )
            model.save(folder / "weights.safetensors")
            seen = len(pairs.epsilon) * settings.epochs
            store.write_json(folder / "report.json", {**meter.report(report, memory.bytes), "pairs_seen": seen})

        inputs = {
            "preference": settings.model_dump(),
            "epsilon": epsilon,
            "batch_tokens": config.batch_tokens,
        }
        parents = (self.language.sft, self.reference, *((self.judged,) if epsilon == "oracle" else ()))
        return Stage(f"{self.pipeline.name}.{name}", inputs, parents, compute, read_trained)

    def epsilon(self, part: str, kind: str) -> FloatArray:
        """ε of each pair of a part, float64 ``[n]``, for a method whose ε is ``zero``, ``constant`` or the
        ``oracle``'s."""
        if kind == "oracle":
            return self.oracle_epsilon(part)
        constant = {"zero": 0.0, "constant": self.settings.epsilon}[kind]
        return np.full(len(self.examples[part]), constant)


def _read_judged(folder: Path) -> Judged:
    def fits(name: str) -> dict[str, Temperature]:
        return {kind: Temperature(**fit) for kind, fit in store.read_json(folder / f"{name}.json").items()}

    delta, unfolded = (store.read_npz(folder / f"{name}.npz") for name in ("delta", "unfolded"))
    return Judged(delta, unfolded, fits("delta"), fits("unfolded"))
