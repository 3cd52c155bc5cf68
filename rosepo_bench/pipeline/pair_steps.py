"""Which steps become pairs: those that training learns from, and held-out ones."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.data.types import Examples
from rosepo_bench.pipeline.task import Task
from rosepo_bench.preference.pairs import choose_steps

PARTS = ("train", "validation")


class PairSteps:
    """The prompts of the pairs of both parts. ``inputs`` are what they depend on."""

    def __init__(self, task: Task, settings: PreferenceConfig) -> None:
        self.task, self.settings = task, settings

    @property
    def inputs(self) -> dict[str, Any]:
        names = ("pairs", "steps_per_user", "validation_pairs")
        return {**{name: getattr(self.settings, name) for name in names}, "seed": self.task.seed}

    @cached_property
    def examples(self) -> dict[str, Examples]:
        return {"train": self._training(), "validation": self._validation()}

    def _training(self) -> Examples:
        settings, task = self.settings, self.task
        user, step = choose_steps(
            task.split, pairs=settings.pairs, steps_per_user=settings.steps_per_user, seed=derive(task.seed, "steps")
        )
        steps: list[list[int]] = [[] for _ in range(task.data.users)]
        for u, s in zip(user.tolist(), step.tolist(), strict=True):
            steps[u].append(s)
        return task.training_examples(steps)

    def _validation(self) -> Examples:
        everybody = self.task.examples("validation")
        order = generator(self.task.seed, "validation pairs").permutation(len(everybody))
        return everybody.take(np.sort(order[: self.settings.validation_pairs]))
