"""ε of a sampler's pairs as stages: an oracle's judgement, a temperature for each kind of pair, and ε itself."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from rosepo_bench.base import store
from rosepo_bench.base.component import flat
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive
from rosepo_bench.pipeline.fitting import Fits
from rosepo_bench.pipeline.pair_steps import PARTS
from rosepo_bench.pipeline.pairing import Pairing
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.preference.calibration import Temperature, fit_temperature
from rosepo_bench.preference.oracles.cross_fit import CrossFitted, checked_scores
from rosepo_bench.preference.samplers.base import Rejected
from rosepo_bench.preference.smoothings.base import JudgedPairs, OracleSmoothing, Smoothing, checked
from rosepo_bench.recommenders.base import State

Epsilon = dict[str, Float64[np.ndarray, "n K"]]


class Judged(NamedTuple):
    """An oracle's judgement of a sampler's pairs: ``delta`` = s(x, y_l) - s(x, y_w) of each part from the cross-fitted
    oracle, ``unfolded`` the same from an oracle fitted to all users, and for each a temperature per kind of pair."""

    delta: dict[str, Float64[np.ndarray, "n K"]]
    unfolded: dict[str, Float64[np.ndarray, "n K"]]
    temperatures: dict[str, Temperature]
    unfolded_temperatures: dict[str, Temperature]


class Judging:
    """The judgement of one oracle smoothing over the pairs of one sampler."""

    def __init__(self, fits: Fits, pairing: Pairing, smoothing: OracleSmoothing) -> None:
        self.fits, self.pairing, self.smoothing = fits, pairing, smoothing
        self.task, self.stages = pairing.task, pairing.stages

    @cached_property
    def crossfit(self) -> Stage[CrossFitted]:
        return self.fits.cross_fitted(self.smoothing.oracle, self.smoothing.folds)

    @cached_property
    def everybody(self) -> Stage[State]:
        """The same oracle fitted to all users: how much folds matter."""
        return self.fits.fitted(self.smoothing.oracle)

    @cached_property
    def stage(self) -> Stage[Judged]:
        """Score differences of both parts, and the temperatures."""

        def compute(folder: Path, work: Path) -> None:
            folded, oracle = self.stages.get(self.crossfit), self.smoothing.oracle
            deltas: dict[str, Epsilon] = {"delta": {}, "unfolded": {}}
            for part in PARTS:
                queries, titles = self.task.queries(self.pairing.examples[part]), self.pairing.titles(part)
                items = np.where(titles < 0, titles[:, :1], titles)  # a short list is filled with y_w: delta 0
                state = self.stages.get(self.everybody)
                scores = {
                    "delta": folded.scores(queries, items),
                    "unfolded": checked_scores(oracle, state, queries, items),
                }
                for name, found in scores.items():
                    deltas[name][part] = found[:, 1:] - found[:, :1]
            for name, values in deltas.items():
                store.write_npz(folder / f"{name}.npz", **values)
                fits = self._temperatures(values["validation"])
                store.write_json(folder / f"{name}.json", {kind: asdict(fit) for kind, fit in fits.items()})

        inputs = {"seed": self.task.seed, "correct": self.smoothing.correct_for_sampler}
        parents = (self.pairing.rejected, self.crossfit, self.everybody)
        name = f"{self.task.name}.judged.{self.pairing.sampler.name}"
        return Stage(name, inputs, parents, compute, _read_judged, code=(self.smoothing.oracle,))

    def _temperatures(self, delta: Float64[np.ndarray, "n K"]) -> dict[str, Temperature]:
        both, name = self.stages.get(self.pairing.rejected), self.task.name
        drawn = both["validation"]
        if lacking := set(both["train"].kind[both["train"].mask]) - set(drawn.kind[drawn.mask]):
            raise UserError(
                f"{name}: no validation pair of kind {', '.join(sorted(lacking))} to fit a temperature on, "
                f"among {len(drawn.kind)}; raise preference.validation_pairs, or evaluate more users"
            )
        taken = np.log1p(self.task.view.counts)[self.pairing.titles("validation")]
        law, popular = self.law(drawn), taken[:, 1:] - taken[:, :1]
        return {
            str(kind): fit_temperature(
                delta[of_kind], law[of_kind], popular[of_kind], seed=derive(self.task.seed, "orientation", str(kind))
            )
            for kind in np.unique(drawn.kind[drawn.mask])
            for of_kind in [drawn.mask & (drawn.kind == kind)]
        }

    def law(self, drawn: Rejected) -> Float64[np.ndarray, "n K"]:
        """The sampler's part of ε's logit, or 0 without the correction."""
        return drawn.law if self.smoothing.correct_for_sampler else np.zeros_like(drawn.law)

    def pairs(self, part: str, *, unfolded: bool = False) -> JudgedPairs:
        """What the smoothing is told about a part's pairs."""
        drawn, judged = self.stages.get(self.pairing.rejected)[part], self.stages.get(self.stage)
        delta = (judged.unfolded if unfolded else judged.delta)[part]
        fits = judged.unfolded_temperatures if unfolded else judged.temperatures
        kinds = np.where(drawn.mask, drawn.kind, drawn.kind[:, :1])
        tau = np.vectorize(lambda kind: fits[str(kind)].tau, otypes=[float])(kinds)
        return JudgedPairs(drawn.kind, drawn.mask, delta, self.law(drawn), tau)


class Smoothed:
    """The pairs of one ``Pairing`` with the ε of one smoothing."""

    def __init__(self, fits: Fits, pairing: Pairing, smoothing: Smoothing) -> None:
        self.pairing, self.smoothing = pairing, smoothing
        self.task, self.stages = pairing.task, pairing.stages
        self.judging = Judging(fits, pairing, smoothing) if isinstance(smoothing, OracleSmoothing) else None

    @cached_property
    def stage(self) -> Stage[Epsilon]:
        """ε ``[n, K]`` of both parts: computed here, and read everywhere else."""

        def compute(folder: Path, work: Path) -> None:
            store.write_npz(folder / "epsilon.npz", **{part: self._epsilon(part) for part in PARTS})

        judged = (self.judging.stage,) if self.judging else ()
        return Stage(
            f"{self.task.name}.epsilon.{self.smoothing.name}.{self.pairing.sampler.name}",
            {"smoothing": dict(flat(self.smoothing)), "name": self.smoothing.name, "seed": self.task.seed},
            (self.pairing.rejected, *judged),
            compute,
            lambda folder: store.read_npz(folder / "epsilon.npz"),
            code=(self.smoothing,),
        )

    def epsilon(self, part: str) -> Float64[np.ndarray, "n K"]:
        """ε of each rejected item of a part."""
        return self.stages.get(self.stage)[part]

    def unfolded_epsilon(self, part: str) -> Float64[np.ndarray, "n K"]:
        """The same from an oracle fitted to all users, which has memorised the training pairs; for diagnosis."""
        assert self.judging is not None
        return self._checked(self.judging.pairs(part, unfolded=True), part)

    def _epsilon(self, part: str) -> Float64[np.ndarray, "n K"]:
        if self.judging:
            return self._checked(self.judging.pairs(part), part)
        drawn = self.stages.get(self.pairing.rejected)[part]
        unknown = np.full(drawn.law.shape, np.nan)
        return self._checked(JudgedPairs(drawn.kind, drawn.mask, unknown, unknown, unknown), part)

    def _checked(self, pairs: JudgedPairs, part: str) -> Float64[np.ndarray, "n K"]:
        return checked(self.smoothing, pairs, derive(self.task.seed, "epsilon", part))


def _read_judged(folder: Path) -> Judged:
    def fits(name: str) -> dict[str, Temperature]:
        return {kind: Temperature(**fit) for kind, fit in store.read_json(folder / f"{name}.json").items()}

    delta, unfolded = (store.read_npz(folder / f"{name}.npz") for name in ("delta", "unfolded"))
    return Judged(delta, unfolded, fits("delta"), fits("unfolded"))
