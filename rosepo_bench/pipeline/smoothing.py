"""ε of a sampler's pairs as stages: the cross-fitted oracle, its scores, a temperature for each kind of pair."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive
from rosepo_bench.base.work import Work
from rosepo_bench.pipeline.pairing import PARTS, Drawn, Pairing
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.preference.oracles.cross_fit import Oracle, cross_fit
from rosepo_bench.preference.smoothing import Temperature, epsilon, fit_temperature
from rosepo_bench.recommenders import popularity, sasrec


class Judged(NamedTuple):
    """The oracle's judgement of a sampler's pairs: ``delta`` = s(x, y_l) − s(x, y_w) of each part from the cross-fitted
    oracle, ``unfolded`` the same from an oracle trained on all users, and for each a temperature per kind of pair."""

    delta: dict[str, Float64[np.ndarray, " _"]]
    unfolded: dict[str, Float64[np.ndarray, " _"]]
    temperatures: dict[str, Temperature]
    unfolded_temperatures: dict[str, Temperature]


class Smoothing:
    """The oracle, its judgement of the pairs of one ``Pairing``, and their ε."""

    def __init__(self, pairing: Pairing) -> None:
        self.pairing, self.pipeline, self.seed = pairing, pairing.pipeline, pairing.seed
        self.stages = pairing.stages

    @cached_property
    def oracle(self) -> Stage[Oracle]:
        """SASRec cross-fitted by user folds."""
        pipeline, config = self.pipeline, self.pipeline.config

        def compute(folder: Path, work: Path) -> None:
            fitted = cross_fit(
                pipeline.training,
                pipeline.data.items,
                config.sasrec,
                config.oracle.folds,
                Work(self.seed, f"{pipeline.name} oracle", work, config.checkpoint_seconds),
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
        """The oracle's score differences for both parts and a temperature for each kind of pair."""

        def compute(folder: Path, work: Path) -> None:
            fitted, everybody = self.stages.get(self.oracle), self.stages.get(self.pipeline.sasrec)
            deltas: dict[str, dict[str, Float64[np.ndarray, " _"]]] = {"delta": {}, "unfolded": {}}
            for part in PARTS:
                examples, items = self.pairing.examples[part], self.pairing.titles(part)
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
        parents = (self.pairing.rejected, self.oracle, self.pipeline.sasrec)
        return Stage(f"{self.pipeline.name}.judged.{self.pairing.sampler}", inputs, parents, compute, _read_judged)

    def _temperatures(self, delta: Float64[np.ndarray, " n"]) -> dict[str, Temperature]:
        both = self.stages.get(self.pairing.rejected)
        pipeline, drawn = self.pipeline, both["validation"]
        if lacking := set(both["train"].kind) - set(drawn.kind):
            raise UserError(
                f"{pipeline.name}: no validation pair of kind {', '.join(sorted(lacking))} to fit a temperature on, "
                f"among {len(drawn.kind)}; raise preference.validation_pairs, or evaluate more users"
            )
        taken = np.log1p(popularity.counts(pipeline.training, pipeline.data.items))[self.pairing.titles("validation")]
        law, popular = self._law(drawn), taken[:, 1] - taken[:, 0]
        return {
            str(kind): fit_temperature(
                delta[rows], law[rows], popular[rows], seed=derive(self.seed, "orientation", str(kind))
            )
            for kind in np.unique(drawn.kind)
            for rows in [np.flatnonzero(drawn.kind == kind)]
        }

    def _law(self, drawn: Drawn) -> Float64[np.ndarray, " n"]:
        return drawn.law if self.pipeline.config.oracle.correct_for_sampler else np.zeros_like(drawn.law)

    def oracle_epsilon(self, part: str, *, unfolded: bool = False) -> Float64[np.ndarray, " n"]:
        """ε of each pair: each kind of pair has its own temperature; capped at ``epsilon_max``."""
        drawn, judged = self.stages.get(self.pairing.rejected)[part], self.stages.get(self.judged)
        delta = (judged.unfolded if unfolded else judged.delta)[part]
        fits = judged.unfolded_temperatures if unfolded else judged.temperatures
        tau = np.array([fits[str(kind)].tau for kind in drawn.kind])
        return epsilon(delta, self._law(drawn), tau, self.pairing.settings.epsilon_max)

    def epsilon(self, part: str, kind: str) -> Float64[np.ndarray, " n"]:
        """ε of each pair of a part, for a method whose ε is ``zero``, ``constant`` or from the ``oracle``."""
        if kind == "oracle":
            return self.oracle_epsilon(part)
        constant = {"zero": 0.0, "constant": self.pairing.settings.epsilon}[kind]
        return np.full(len(self.pairing.examples[part]), constant)


def _read_judged(folder: Path) -> Judged:
    def fits(name: str) -> dict[str, Temperature]:
        return {kind: Temperature(**fit) for kind, fit in store.read_json(folder / f"{name}.json").items()}

    delta, unfolded = (store.read_npz(folder / f"{name}.npz") for name in ("delta", "unfolded"))
    return Judged(delta, unfolded, fits("delta"), fits("unfolded"))
