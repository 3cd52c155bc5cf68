"""The work of one data set and seed as stages: data → candidates, and SASRec. The language model's stages are in
``language.py``, those of preference methods in ``pairing.py`` and the modules that build on it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int32

from rosepo_bench.base import store
from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.seeds import derive
from rosepo_bench.base.work import Work
from rosepo_bench.data import candidates, catalog, sequences, storage
from rosepo_bench.data.catalog import Resolved
from rosepo_bench.data.types import Dataset, Examples, Split
from rosepo_bench.pipeline.stages import Stage, Stages
from rosepo_bench.recommenders import sasrec


class Trained(NamedTuple):
    """Weights on disk, and the report of their training (see ``engine/training/meter.py``)."""

    weights: Path
    report: dict[str, Any]


class Scored(NamedTuple):
    """Scores of the test users' candidates, and how long they took."""

    scores: Float[np.ndarray, "users size"]
    report: dict[str, Any]


def read_trained(folder: Path) -> Trained:
    return Trained(folder / "weights.safetensors", store.read_json(folder / "report.json"))


def read_scored(folder: Path) -> Scored:
    return Scored(store.read_npz(folder / "scores.npz")["scores"], store.read_json(folder / "report.json"))


class Pipeline:
    """``config`` is the configuration with the data set's overrides applied. ``seed`` is the run's: what is trained, or
    sampled for training, depends on it. Candidate lists and the evaluated users depend on the data set's own seed."""

    def __init__(self, name: str, config: RunConfig, seed: int, resolved: Resolved, stages: Stages) -> None:
        self.name, self.config, self.seed = name, config, seed
        self.resolved, self.stages = resolved, stages
        self.dataset_config = config.datasets[name]

    # --- data -------------------------------------------------------------------------------------------------------

    @cached_property
    def data_stage(self) -> Stage[Dataset]:
        """The prepared data set."""
        inputs = {
            "content": self.resolved.key(),
            "core": self.dataset_config.core,
            "split": self.dataset_config.split,
        }

        def compute(folder: Path, work: Path) -> None:
            storage.save(catalog.load(self.resolved, self.dataset_config), folder)

        return Stage(f"{self.name}.data", inputs, (), compute, storage.load)

    @property
    def data(self) -> Dataset:
        return self.stages.get(self.data_stage)

    @cached_property
    def split(self) -> Split:
        return sequences.split(self.data, self.dataset_config.split)

    @property
    def training(self) -> list[Int32[np.ndarray, " _"]]:
        """The training part of every user's sequence."""
        return [sequence[:end] for sequence, end in zip(self.data.sequences, self.split.train_end, strict=True)]

    def examples_stage(self, part: candidates.Part) -> Stage[Examples]:
        """The frozen candidate lists of the test or validation users."""
        config = self.dataset_config
        users = config.users if part == "test" else 0
        inputs = {"part": part, "seed": config.seed, "size": config.candidates, "users": users}

        def compute(folder: Path, work: Path) -> None:
            drawn = candidates.draw(self.data, self.split, part, seed=config.seed, size=config.candidates, users=users)
            candidates.freeze(folder / "candidates.npz", drawn)

        return Stage(
            f"{self.name}.{part}",
            inputs,
            (self.data_stage,),
            compute,
            lambda folder: candidates.thaw(folder / "candidates.npz"),
        )

    @property
    def test(self) -> Examples:
        return self.stages.get(self.examples_stage("test"))

    def histories(self, examples: Examples) -> list[Int32[np.ndarray, " _"]]:
        """Each example's whole history, oldest first."""
        return [self.data.sequences[u][:s] for u, s in zip(examples.user, examples.step, strict=True)]

    # --- SASRec -----------------------------------------------------------------------------------------------------

    @cached_property
    def sasrec(self) -> Stage[sasrec.SASRec]:
        """The baseline: SASRec trained on the training histories of all users."""
        config = self.config

        def compute(folder: Path, work: Path) -> None:
            model = sasrec.train(
                self.training,
                self.data.items,
                config.sasrec,
                Work(derive(self.seed, "sasrec"), f"{self.name} sasrec", work, config.checkpoint_seconds),
            )
            sasrec.save(model, folder / "weights.safetensors")

        return Stage(
            f"{self.name}.sasrec",
            {"sasrec": config.sasrec.model_dump(), "seed": self.seed},
            (self.data_stage,),
            compute,
            lambda folder: sasrec.load(folder / "weights.safetensors"),
        )

    def sasrec_scores(self, examples: Examples) -> Float32[np.ndarray, "n size"]:
        """The baseline's scores of the examples' candidates."""
        return sasrec.scores(self.stages.get(self.sasrec), self.histories(examples), examples.candidates)
