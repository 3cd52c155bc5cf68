"""The oracle's quality independently of any method's sampler, on whole lists of uniform candidates."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from rosepo_bench.base import store
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.data.types import Examples
from rosepo_bench.evaluation import statistics
from rosepo_bench.pipeline.smoothing import Judging
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.preference.calibration import epsilon, likeliest_tau
from rosepo_bench.preference.oracles.cross_fit import checked_scores


class Probe:
    """Compares each user's last training step with their validation step. The two are adjacent in time, so that
    memorisation of the training step is not confounded with drift. Every candidate is the rejected item once; intervals
    are over users."""

    def __init__(self, judging: Judging) -> None:
        self.judging, self.task, self.seed = judging, judging.task, judging.task.seed

    @cached_property
    def stage(self) -> Stage[dict[str, Any]]:
        """``accuracy`` on randomly oriented validation pairs, ``tau``, and the gap in mean ε between validation and
        training steps, for the cross-fitted oracle and for one fitted to all users."""
        task, judging, get = self.task, self.judging, self.task.stages.get
        oracle = judging.smoothing.oracle

        def compute(folder: Path, work: Path) -> None:
            fitted, everybody = get(judging.crossfit), get(judging.everybody)
            folded, unfolded = {}, {}
            for part, examples in self._examples().items():
                queries = task.queries(examples)
                folded[part] = deltas(examples, fitted.scores(queries, examples.candidates))
                unfolded[part] = deltas(examples, checked_scores(oracle, everybody, queries, examples.candidates))
            seed = derive(self.seed, "orientation", "probe")
            found = {
                "accuracy": accuracy(folded["validation"], seed=seed).as_dict(),
                "tau": fitted_tau(folded["validation"]),
                "epsilon_gap": paired_epsilon_gap(folded).as_dict(),
                "epsilon_gap_without_folds": paired_epsilon_gap(unfolded).as_dict(),
            }
            store.write_json(folder / "probe.json", found)

        return Stage(
            f"{task.name}.probe",
            {"seed": self.seed, "users": task.config.validation.probes, **task.prompt_inputs},
            (judging.crossfit, judging.everybody, task.examples_stage("validation")),
            compute,
            lambda folder: store.read_json(folder / "probe.json"),
            code=(oracle,),
        )

    def _examples(self) -> dict[str, Examples]:
        """Validation and last training steps of the same users."""
        task = self.task
        everybody = task.examples("validation")
        able = np.flatnonzero(task.split.train_end[everybody.user] >= 2)
        rows = generator(self.seed, "probe").permutation(able)[: task.config.validation.probes]
        validation = everybody.take(np.sort(rows))
        chosen = set(validation.user.tolist())
        steps = [[int(end) - 1] if user in chosen else [] for user, end in enumerate(task.split.train_end)]
        return {"validation": validation, "train": task.training_examples(steps)}


def deltas(examples: Examples, scores: Float[np.ndarray, "n size"]) -> Float64[np.ndarray, "n size-1"]:
    """s(x, y_l) − s(x, y_w) for every candidate y_l but the target."""
    rows, size = np.arange(len(examples)), examples.candidates.shape[1]
    difference = scores.astype(np.float64) - scores[rows, examples.position][:, None]
    return difference[np.arange(size) != examples.position[:, None]].reshape(len(examples), size - 1)


def accuracy(delta: Float64[np.ndarray, "n pairs"], *, seed: int) -> statistics.Interval:
    """Share of randomly oriented pairs in which the scores predict the next item (a tie is right half the time); a
    user's pairs are averaged first."""
    first_is_chosen = generator(seed).random(delta.shape) < 0.5
    speaks_for_first = np.where(first_is_chosen, -delta, delta) >= 0
    return statistics.average((speaks_for_first == first_is_chosen).mean(axis=1))


def fitted_tau(delta: Float64[np.ndarray, "n pairs"]) -> float:
    """The temperature for uniform pairs, whose law is 0."""
    return likeliest_tau(delta.ravel(), np.zeros(delta.size))


def paired_epsilon_gap(delta: dict[str, Float64[np.ndarray, "n pairs"]]) -> statistics.Interval:
    """Mean ε of users' validation steps minus that of their last training steps; τ is fitted on validation steps."""
    tau = fitted_tau(delta["validation"])
    means = {part: epsilon(d, np.zeros_like(d), tau, 0.5).mean(axis=1) for part, d in delta.items()}
    return statistics.student(means["validation"] - means["train"])
