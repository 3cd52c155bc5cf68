"""The language model of one data set and seed: its tokenizer, its prompts, and what its stages depend on."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rosepo_bench.base.seeds import derive
from rosepo_bench.data.fetch import fingerprint
from rosepo_bench.engine import forest
from rosepo_bench.engine.model import language_model as models
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.prompts import tokens
from rosepo_bench.engine.prompts.examples import check_budget
from rosepo_bench.engine.prompts.prompter import Prompter, check_context, check_distinct, template_for
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.pipeline.task import Task


class Language:
    """Everything that reads titles. All methods share the tokenizer, the template and the SFT model."""

    def __init__(self, task: Task) -> None:
        self.task, self.config, self.seed = task, task.config, task.seed
        self.template = template_for(task.dataset_config.source)

    @cached_property
    def encoder_stage(self) -> Stage[tokens.TinyEncoder]:
        """The BPE of `tiny`, trained on the titles of the training interactions."""
        task = self.task

        def compute(folder: Path, work: Path) -> None:
            view = task.view
            seen = np.unique(np.concatenate(view.sequences))
            texts = [view.titles[item] for item in seen]
            encoder = tokens.train_tiny([*texts, *self.template.words()], self.config.model.vocabulary)
            tokens.save_tiny(encoder, folder / "tokenizer.json")

        return Stage(
            f"{task.name}.tokenizer",
            {"vocabulary": self.config.model.vocabulary, "template": self.template.digest},
            (task.data_stage,),
            compute,
            lambda folder: tokens.load_tiny(folder / "tokenizer.json"),
        )

    @cached_property
    def encoder(self) -> tokens.Encoder:
        name = models.pretrained_name(self.config.model.name)
        return tokens.PretrainedEncoder(name) if name else self.task.stages.get(self.encoder_stage)

    @cached_property
    def prompter(self) -> Prompter:
        prompt = self.config.prompt
        return Prompter(
            self.template,
            self.encoder,
            self.task.view.titles,
            history=prompt.history,
            candidates=prompt.candidates,
        )

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The settings of the model and its prompts: part of the key of every stage that runs the model."""
        model, prompt = self.config.model, self.config.prompt
        dataset = self.task.dataset_config
        return {
            "model": model.model_dump(exclude={"device", "impl"}),
            "device": models.device_of(model).type,
            "impl": models.implementation_of(model),
            "files": _model_files(model.name, self.task.stages.out),
            "prompt": prompt.model_dump(),
            "listed": dataset.candidates if prompt.candidates else 0,
            "template": self.template.digest,
            "seed": self.seed,
            "forest": forest.build_id(),
        }

    @property
    def parents(self) -> tuple[Stage[Any], ...]:
        tiny = self.config.model.name == "tiny"
        return (self.task.data_stage, *((self.encoder_stage,) if tiny else ()))

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

    def check_model(self) -> None:
        """Refuses a model that cannot be trained, or whose tokenizer does not fit it, before any data are read."""
        _ = self.context
        name = models.pretrained_name(self.config.model.name)
        if name:
            models.refuse_larger(self.config.model.name, self.encoder.size, models.pretrained_config(name).vocab_size)

    def check(self, *, rejected: int) -> None:
        """Refuses, before any training, titles without tokens and prompts longer than the model's context or the token
        budget of a pass; where titles are compared (``rejected`` > 0), also two titles with the same tokens."""
        listed = self.task.dataset_config.candidates
        check_context(self.prompter, listed, self.context)
        if rejected:
            check_distinct(self.prompter, self.task.view.titles)
        check_budget(self.prompter, listed, 1 + rejected, self.config.batch_tokens, "batch_tokens")
        check_budget(self.prompter, listed, 1, self.config.scoring.batch_tokens, "scoring.batch_tokens")


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
