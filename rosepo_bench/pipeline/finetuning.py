"""Supervised fine-tuning as stages: the SFT model that preference methods start from, and SFT that goes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from rosepo_bench.base import store
from rosepo_bench.base.config import SFTConfig, TrainingConfig
from rosepo_bench.base.seeds import derive
from rosepo_bench.base.work import Work
from rosepo_bench.data import candidates
from rosepo_bench.engine.forest import Limits, Tree
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.model.limits import limits_of
from rosepo_bench.engine.prompts.examples import Window, sft_windows, window_trees
from rosepo_bench.engine.training.memory import PeakMemory
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.engine.training.sft import train_sft
from rosepo_bench.pipeline.language import Language
from rosepo_bench.pipeline.results import Trained, read_trained
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.pipeline.watching import watched, watched_inputs, watched_parents, watching_code

SAMPLE = 200  # windows from which the tokens of a response are estimated


class Budget(NamedTuple):
    """What a training may take: optimizer steps, and tokens in all of them."""

    steps: int
    tokens: int


class Finetuning:
    """SFT of one language model. ``rule`` is how titles are scored where training is watched."""

    def __init__(self, language: Language, rule: str) -> None:
        self.language, self.task, self.rule = language, language.task, rule

    @cached_property
    def sft(self) -> Stage[Trained]:
        """Supervised fine-tuning on the training steps of all users."""
        config, task = self.task.config.sft, self.task

        def compute(folder: Path, work: Path) -> None:
            self._train(self.language.create(), config, "sft", "sft", folder, work)

        inputs = {
            **self.language.inputs,
            "sft": config.model_dump(),
            "batch_tokens": task.config.batch_tokens,
            **watched_inputs(task, config, self.rule),
        }
        parents = (*self.language.parents, *watched_parents(task, config))
        code = watching_code(task) if config.evaluations else ()
        return Stage(f"{task.name}.sft", inputs, parents, compute, read_trained, code)

    def longer(self, budget: Stage[Budget]) -> Stage[Trained]:
        """SFT goes on from its weights for the optimizer steps and about the tokens of ``budget``, with the optimizer's
        settings of preference training."""
        config, task = self.task.config, self.task
        common = config.preference.model_dump(include=set(TrainingConfig.model_fields))
        settings = SFTConfig(**{**common, "epochs": config.sft.epochs, "batch": config.sft.batch})

        def compute(folder: Path, work: Path) -> None:
            model, wanted = self.language.create(task.stages.get(self.sft).weights), task.stages.get(budget)
            batch = max(1, round(wanted.tokens / wanted.steps / self._response_tokens(model)))
            own = settings.model_copy(update={"steps": wanted.steps, "batch": batch})
            self._train(model, own, "sft-longer", "preference", folder, work)

        inputs = {"settings": settings.model_dump(), **watched_inputs(task, settings, self.rule)}
        parents: tuple[Stage[Any], ...] = (self.sft, budget, *watched_parents(task, settings))
        code = watching_code(task) if settings.evaluations else ()
        return Stage(f"{task.name}.sft-longer", inputs, parents, compute, read_trained, code)

    def _train(
        self, model: LanguageModel, settings: SFTConfig, name: str, section: str, folder: Path, work: Path
    ) -> None:
        """``section``: of the configuration, that holds the optimizer's settings."""
        config, task, meter = self.task.config, self.task, Meter()
        label = f"{task.name} {name}"
        with PeakMemory(model.device) as memory:
            report = train_sft(
                model,
                self.ends,
                self._tree_maker(limits_of(model, config.batch_tokens)),
                settings,
                window=self._window,
                first=self._first,
                meter=meter,
                batch_tokens=config.batch_tokens,
                work=Work(derive(task.seed, name), label, work, config.checkpoint_seconds, section),
                validation=watched(self.language, model, settings, self.rule, label),
            )
        model.save(folder / "weights.safetensors")
        store.write_json(folder / "report.json", {**meter.report(report, memory), "tokens": meter.tokens})

    @property
    def _window(self) -> int:
        return self.task.config.prompt.history + 1

    @property
    def _first(self) -> int:
        return 1 if self.task.config.prompt.candidates else 0

    @property
    def ends(self) -> Int64[np.ndarray, " users"]:
        """Where each user's training steps end. Prompts that list candidates end where too few items are left."""
        task = self.task
        if not task.config.prompt.candidates:
            return task.split.train_end
        longest = candidates.longest(task.data.items, task.dataset_config.candidates)
        return np.minimum(task.split.train_end, longest)

    def _response_tokens(self, model: LanguageModel) -> float:
        """Mean tokens that a response costs, its share of the window's tree."""
        task, limits = self.task, limits_of(model, self.task.config.batch_tokens)
        seed = derive(task.seed, "sft-longer")
        windows = sft_windows(self.ends, self._window, first=self._first, seed=seed, epoch=0)[:SAMPLE]
        trees = self._tree_maker(limits)(windows)
        return sum(map(len, trees)) / sum(map(len, windows))

    def _tree_maker(self, limits: Limits) -> Callable[[list[Window]], list[Tree]]:
        listed = self._listed() if self.task.config.prompt.candidates else None
        sequences = self.task.view.sequences

        def make(windows: list[Window]) -> list[Tree]:
            return window_trees(self.language.prompter, sequences, windows, limits=limits, candidates=listed)

        return make

    def _listed(self) -> Callable[[int, int], Int32[np.ndarray, " size"]]:
        """The candidates of every training step that has a history, for prompts that list candidates."""
        steps = [range(1, int(end)) for end in self.ends]
        drawn = self.task.training_examples(steps)
        row = {(int(u), int(s)): n for n, (u, s) in enumerate(zip(drawn.user, drawn.step, strict=True))}
        return lambda user, step: drawn.candidates[row[user, step]]
