"""The language model's stages of one data set and seed: tokenizer, SFT, scores of the test users' candidates."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from rosepo_bench.base import store
from rosepo_bench.base.seeds import derive
from rosepo_bench.base.work import Work
from rosepo_bench.data import candidates
from rosepo_bench.data.fetch import fingerprint
from rosepo_bench.data.types import Examples
from rosepo_bench.engine import forest
from rosepo_bench.engine.forest import Limits, Tree
from rosepo_bench.engine.model import language_model as models
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.model.limits import limits_of
from rosepo_bench.engine.prompts import tokens
from rosepo_bench.engine.prompts.examples import Window, check_budget, window_trees
from rosepo_bench.engine.prompts.prompter import Prompter, check_context, check_distinct, template_for
from rosepo_bench.engine.ranking.scoring import title_scores
from rosepo_bench.engine.training.memory import PeakMemory
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.engine.training.sft import train_sft
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.pipeline.task import Pipeline, Scored, Trained, read_scored, read_trained


class Language:
    """Everything that reads titles. All methods share the tokenizer, the template and the SFT model."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.config, self.seed = pipeline, pipeline.config, pipeline.seed
        self.template = template_for(pipeline.dataset_config.source)

    @cached_property
    def encoder_stage(self) -> Stage[tokens.TinyEncoder]:
        """The BPE of `tiny`, trained on the titles of the training interactions."""
        pipeline = self.pipeline

        def compute(folder: Path, work: Path) -> None:
            seen = np.unique(np.concatenate(pipeline.training))
            texts = [pipeline.data.titles[item] for item in seen]
            encoder = tokens.train_tiny([*texts, *self.template.words()], self.config.model.vocabulary)
            tokens.save_tiny(encoder, folder / "tokenizer.json")

        return Stage(
            f"{pipeline.name}.tokenizer",
            {"vocabulary": self.config.model.vocabulary, "template": self.template.digest},
            (pipeline.data_stage,),
            compute,
            lambda folder: tokens.load_tiny(folder / "tokenizer.json"),
        )

    @cached_property
    def encoder(self) -> tokens.Encoder:
        name = models.pretrained_name(self.config.model.name)
        return tokens.PretrainedEncoder(name) if name else self.pipeline.stages.get(self.encoder_stage)

    @cached_property
    def prompter(self) -> Prompter:
        prompt = self.config.prompt
        return Prompter(
            self.template,
            self.encoder,
            self.pipeline.data.titles,
            history=prompt.history,
            candidates=prompt.candidates,
            anchor=prompt.anchor or (prompt.history + 1) // 2,
        )

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The settings of the model and its prompts: part of the key of every stage that runs the model."""
        model, prompt = self.config.model, self.config.prompt
        dataset = self.pipeline.dataset_config
        return {
            "model": model.model_dump(exclude={"device", "impl"}),
            "device": models.device_of(model).type,
            "impl": models.implementation_of(model),
            "files": _model_files(model.name, self.pipeline.stages.out),
            "prompt": prompt.model_dump(),
            "listed": dataset.candidates if prompt.candidates else 0,
            "template": self.template.digest,
            "seed": self.seed,
            "forest": forest.build_id(),
        }

    @property
    def parents(self) -> tuple[Stage[Any], ...]:
        tiny = self.config.model.name == "tiny"
        return (self.pipeline.data_stage, *((self.encoder_stage,) if tiny else ()))

    def create(self, weights: Path | None = None) -> LanguageModel:
        """A fresh model, with trained weights if a file is given."""
        model = models.create(self.config.model, self.encoder, seed=derive(self.seed, "weights"))
        if weights is not None:
            model.load(weights)
        return model

    @cached_property
    def context(self) -> int:
        """The model's longest sequence in tokens. Refuses a model that cannot be trained, before any data are read."""
        return models.context_of(self.config.model)

    def check(self, *, paired: bool) -> None:
        """Refuses, before any training, titles without tokens and prompts longer than the model's context or the token
        budget of a pass; where titles are compared in pairs (``paired``), also two titles with the same tokens."""
        listed = self.pipeline.dataset_config.candidates
        check_context(self.prompter, listed, self.context)
        if paired:
            check_distinct(self.prompter, self.pipeline.data.titles)
        check_budget(self.prompter, listed, 1 + paired, self.config.batch_tokens, "batch_tokens")
        check_budget(self.prompter, listed, 1, self.config.scoring.batch_tokens, "scoring.batch_tokens")

    # --- SFT --------------------------------------------------------------------------------------------------------

    @cached_property
    def sft(self) -> Stage[Trained]:
        """Supervised fine-tuning on the training steps of all users."""
        config, pipeline = self.config, self.pipeline

        def compute(folder: Path, work: Path) -> None:
            model, meter = self.create(), Meter()
            with PeakMemory(model.device) as memory:
                report = train_sft(
                    model,
                    pipeline.split.train_end,
                    self._tree_maker(limits_of(model, config.batch_tokens)),
                    config.sft,
                    window=config.prompt.history + 1,
                    first=1 if config.prompt.candidates else 0,
                    meter=meter,
                    batch_tokens=config.batch_tokens,
                    work=Work(derive(self.seed, "sft"), f"{pipeline.name} sft", work, config.checkpoint_seconds),
                )
            model.save(folder / "weights.safetensors")
            store.write_json(folder / "report.json", meter.report(report, memory))

        inputs = {**self.inputs, "sft": config.sft.model_dump(), "batch_tokens": config.batch_tokens}
        return Stage(f"{pipeline.name}.sft", inputs, self.parents, compute, read_trained)

    def _tree_maker(self, limits: Limits) -> Callable[[list[Window]], list[Tree]]:
        listed = self._listed() if self.config.prompt.candidates else None
        sequences = self.pipeline.data.sequences

        def make(windows: list[Window]) -> list[Tree]:
            return window_trees(self.prompter, sequences, windows, limits=limits, candidates=listed)

        return make

    def _listed(self) -> Callable[[int, int], Int32[np.ndarray, " size"]]:
        """The candidates of every training step that has a history, for prompts that list candidates."""
        steps = [range(1, int(end)) for end in self.pipeline.split.train_end]
        drawn = self.training_candidates(steps)
        row = {(int(u), int(s)): n for n, (u, s) in enumerate(zip(drawn.user, drawn.step, strict=True))}
        return lambda user, step: drawn.candidates[row[user, step]]

    def training_candidates(self, steps: list[range] | list[list[int]]) -> Examples:
        """Training prompts, with their own candidates, for the given steps of each user."""
        pipeline = self.pipeline
        config = pipeline.dataset_config
        seed = derive(self.seed, "training candidates")
        return candidates.draw(pipeline.data, pipeline.split, "train", seed=seed, size=config.candidates, steps=steps)

    # --- scores -----------------------------------------------------------------------------------------------------

    def scores(self, name: str, trained: Stage[Trained] | None) -> Stage[Scored]:
        """Scores of the test users' candidates under trained weights, or under the untrained model."""
        pipeline, config = self.pipeline, self.config

        def compute(folder: Path, work: Path) -> None:
            weights = None if trained is None else pipeline.stages.get(trained).weights
            model, began = self.create(weights), time.monotonic()
            with PeakMemory(model.device) as memory:
                found = title_scores(
                    model,
                    self.prompter,
                    pipeline.data.sequences,
                    pipeline.test,
                    pipeline.test.candidates,
                    score=config.scoring.score,
                    batch_tokens=config.scoring.batch_tokens,
                    label=f"{pipeline.name} {name}: scoring",
                )
            seconds = time.monotonic() - began
            store.write_npz(folder / "scores.npz", scores=found)
            report = {
                "seconds": seconds,
                "users_per_s": len(found) / seconds,
                **memory.report(),
            }
            store.write_json(folder / "report.json", report)

        parents = (*self.parents, pipeline.examples_stage("test"), *((trained,) if trained else ()))
        inputs = {**self.inputs, "scoring": config.scoring.model_dump()}
        return Stage(f"{pipeline.name}.scores.{name}", inputs, parents, compute, read_scored)


def _model_files(model: str, out: Path) -> list[Any]:
    """Hashes of a local model's files, or the revision of one from the hub: a changed model is a different model."""
    name = models.pretrained_name(model)
    if not name:
        return []
    if Path(name).is_dir():
        kinds = ("*.json", "*.safetensors", "*.model", "*.txt")
        files = sorted(file for kind in kinds for file in Path(name).glob(kind))
        return [[file.name, fingerprint(file, out / "checksums.json").sha256] for file in files]
    return [name, str(getattr(models.pretrained_config(name), "_commit_hash", ""))]
