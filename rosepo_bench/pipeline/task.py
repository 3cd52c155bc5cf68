"""The task of one data set, noise and seed: prepared data, split, prompts with their candidates, and what others may
see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.errors import of_dataset
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.data import candidates, catalog, noise, sequences, storage, views, windows
from rosepo_bench.data.catalog import Resolved
from rosepo_bench.data.types import Dataset, Examples, Queries, Split
from rosepo_bench.data.views import TrainView
from rosepo_bench.pipeline.stages import Stage, Stages


class Task:
    """``config`` is the configuration with the data set's overrides applied. ``seed`` is the run's: what is trained, or
    sampled for training, and the noise depend on it. Candidate lists and the evaluated users depend on the data set's
    own seed; those of the test part are drawn from clean data, and so are the same at every noise."""

    def __init__(self, name: str, config: RunConfig, seed: int, resolved: Resolved, stages: Stages) -> None:
        self.name, self.config, self.seed = name, config, seed
        self.resolved, self.stages = resolved, stages
        self.dataset_config = config.datasets[name]

    @cached_property
    def clean_stage(self) -> Stage[Dataset]:
        """The prepared data set without noise."""
        config = self.dataset_config
        inputs: dict[str, Any] = {"content": self.resolved.key()}
        inputs |= {name: getattr(config, name) for name in ("core", "split", "columns", "time_unit", "ties")}
        if config.ties == "shuffled":
            inputs["seed"] = config.seed

        def compute(folder: Path, work: Path) -> None:
            with of_dataset(self.name):
                storage.save(catalog.load(self.resolved, config), folder)

        return Stage(f"{self.name}.data", inputs, (), compute, self._read)

    @cached_property
    def data_stage(self) -> Stage[Dataset]:
        """The data set that is trained on: with noise if there is any."""
        config = self.dataset_config
        if not config.noise:
            return self.clean_stage
        law: dict[str, Any] = {"rate": config.noise, "law": config.noise_law, "seed": derive(self.seed, "noise")}

        def compute(folder: Path, work: Path) -> None:
            storage.save(noise.corrupt(self.clean, self.split, **law), folder)

        return Stage(f"{self.name}.noise", law, (self.clean_stage,), compute, self._read)

    def _read(self, folder: Path) -> Dataset:
        return replace(storage.load(folder), label=self.name)

    @property
    def clean(self) -> Dataset:
        """The whole data set without noise: for the test part alone."""
        return self.stages.get(self.clean_stage)

    @property
    def data(self) -> Dataset:
        """The whole data set, test items included: not for methods, samplers or oracles."""
        return self.stages.get(self.data_stage)

    @cached_property
    def split(self) -> Split:
        return sequences.split(self.clean, self.dataset_config.split)

    @cached_property
    def view(self) -> TrainView:
        """The training part, for all that learns."""
        return replace(views.train_view(self.data, self.split), label=self.name)

    # --- prompts ----------------------------------------------------------------------------------------------------

    def examples_stage(self, part: candidates.Part) -> Stage[Examples]:
        """The frozen candidate lists of the test or validation users."""
        config = self.dataset_config
        users = config.users if part == "test" else 0
        source = self.clean_stage if part == "test" else self.data_stage
        inputs = {"part": part, "seed": config.seed, "size": config.candidates, "users": users}

        def compute(folder: Path, work: Path) -> None:
            dataset = self.stages.get(source)
            drawn = candidates.draw(dataset, self.split, part, seed=config.seed, size=config.candidates, users=users)
            candidates.freeze(folder / "candidates.npz", drawn)

        return Stage(
            f"{self.name}.{part}",
            inputs,
            (source,),
            compute,
            lambda folder: candidates.thaw(folder / "candidates.npz"),
        )

    def examples(self, part: candidates.Part) -> Examples:
        """The prompts and targets of the test or validation users."""
        return self._windowed(self.stages.get(self.examples_stage(part)))

    @property
    def test(self) -> Examples:
        return self.examples("test")

    def validation(self) -> Examples:
        """The validation prompts on which training is watched: those of ``validation.users`` users."""
        everybody, users = self.examples("validation"), self.config.validation.users
        if not 0 < users < len(everybody):
            return everybody
        order = generator(self.dataset_config.seed, "validation users").permutation(len(everybody))
        return everybody.take(np.sort(order[:users]))

    def training_examples(self, steps: Sequence[Sequence[int]]) -> Examples:
        """Training prompts, with candidates of their own, for the given steps of each user."""
        seed, size = derive(self.seed, "training candidates"), self.dataset_config.candidates
        return self._windowed(candidates.draw(self.data, self.split, "train", seed=seed, size=size, steps=steps))

    def queries(self, examples: Examples) -> Queries:
        """The examples without their answers."""
        return views.queries(self.data, examples)

    @property
    def prompt_inputs(self) -> dict[str, int]:
        """What a prompt depends on beside its user and step: part of the key of every stage whose code sees queries."""
        prompt = self.config.prompt
        return {"history": prompt.history, "anchor": self.anchor, "candidates": self.dataset_config.candidates}

    @property
    def anchor(self) -> int:
        prompt = self.config.prompt
        return prompt.anchor or (prompt.history + 1) // 2

    def _windowed(self, examples: Examples) -> Examples:
        starts = windows.starts(
            self.split, examples.user, examples.step, history=self.config.prompt.history, anchor=self.anchor
        )
        return replace(examples, start=starts)
