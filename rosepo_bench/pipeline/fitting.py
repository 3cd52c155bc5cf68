"""Fits of oracles as stages: to all users, for baselines and diagnostics, or cross-fitted by folds of users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rosepo_bench.base import store
from rosepo_bench.base.component import flat
from rosepo_bench.base.seeds import derive
from rosepo_bench.base.work import Work
from rosepo_bench.data.views import HoldoutView
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.pipeline.task import Task
from rosepo_bench.pipeline.watching import holdout, watching_code
from rosepo_bench.preference.oracles.cross_fit import CrossFitted, cross_fit
from rosepo_bench.recommenders.base import Oracle, State


class Fits:
    """The fitted oracles of a task: methods with equal oracles share them."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def fitted(self, oracle: Oracle) -> Stage[State]:
        """Fitted to the training histories of all users."""

        def compute(folder: Path, work: Path) -> None:
            state = oracle.fit(
                self.task.view, self._work(oracle, derive(self.task.seed, oracle.name), work), self._holdout(oracle)
            )
            store.write_npz(folder / "state.npz", **state)

        return self._stage(
            f"fit.{oracle.name}", oracle, {}, compute, lambda folder: store.read_npz(folder / "state.npz")
        )

    def cross_fitted(self, oracle: Oracle, folds: int) -> Stage[CrossFitted]:
        """Fitted once for each fold of users, to the users of the others."""

        def compute(folder: Path, work: Path) -> None:
            fitted = cross_fit(
                oracle, self.task.view, folds, self._work(oracle, self.task.seed, work), self._holdout(oracle)
            )
            store.write_npz(folder / "folds.npz", fold=fitted.fold)
            for number, state in enumerate(fitted.states):
                store.write_npz(folder / f"fold{number}.npz", **state)

        def read(folder: Path) -> CrossFitted:
            states = tuple(store.read_npz(folder / f"fold{number}.npz") for number in range(folds))
            return CrossFitted(oracle, store.read_npz(folder / "folds.npz")["fold"], states)

        return self._stage(f"crossfit.{oracle.name}", oracle, {"folds": folds}, compute, read)

    def _stage(self, kind: str, oracle: Oracle, inputs: dict[str, Any], compute: Any, read: Any) -> Stage[Any]:
        task = self.task
        seen = {**inputs, "oracle": dict(flat(oracle)), "seed": task.seed}
        parents: tuple[Stage[Any], ...] = (task.data_stage,)
        code: tuple[object, ...] = ()
        if oracle.reads_holdout:
            seen |= {"validation": task.config.validation.model_dump(exclude={"probes"}), **task.prompt_inputs}
            parents, code = (task.data_stage, task.examples_stage("validation")), watching_code(task)
        return Stage(f"{task.name}.{kind}", seen, parents, compute, read, code=(oracle, *code))

    def _holdout(self, oracle: Oracle) -> HoldoutView | None:
        return holdout(self.task) if oracle.reads_holdout else None

    def _work(self, oracle: Oracle, seed: int, folder: Path) -> Work:
        config = self.task.config
        label = f"{self.task.name} {oracle.name}"
        return Work(seed, label, folder, config.checkpoint_seconds, f"oracles.{oracle.name}")
