"""The contract of recommenders over item ids: baselines that rank, and oracles that judge pairs."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from rosepo_bench.base.component import Component, log, setting
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.plugins import Kind
from rosepo_bench.base.work import Work
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import HoldoutView, TrainView

State = dict[str, Shaped[np.ndarray, "..."]]


class Oracle(Component):
    """A model over item ids. It is fitted to training histories, and scores items after a history. As a preference
    oracle it is cross-fitted by the framework: it never judges a pair of a user that it was fitted to."""

    kind: ClassVar[Kind] = Kind("oracle", "oracles", "rosepo_bench.recommenders")

    @property
    def reads_holdout(self) -> bool:
        """Whether :meth:`fit` is given the validation part, for early stopping."""
        return False

    def fit(self, view: TrainView, work: Work, holdout: HoldoutView | None) -> State:
        """Named arrays that hold all that was learned; the framework stores them. Draws come from ``work.seed``."""
        raise NotImplementedError

    def scores(self, state: State, queries: Queries, items: Int[np.ndarray, "n R"]) -> Float[np.ndarray, "n R"]:
        """Scores of ``items`` after each query's history, higher is better. For ε they are read as log-utilities up to
        a constant per row, on a scale that is fitted."""
        raise NotImplementedError


class TrainedOracle(Oracle):
    """An oracle that is trained by AdamW (arXiv 1711.05101) over passes through the data."""

    epochs: int = setting(10, ge=1, search=log(3, 60), about="passes over all training windows")
    steps: int = setting(0, ge=0, about="optimizer steps; 0: computed from epochs")
    lr: float = setting(2e-3, gt=0, search=log(3e-4, 1e-2), about="peak learning rate of AdamW")
    batch: int = setting(32, ge=1, about="windows per optimizer step")
    warmup: float = setting(0.05, ge=0, lt=1, about="share of the steps in which the learning rate rises linearly")
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "cosine", about="the learning rate after warm-up: decays along half a cosine or a line, or stays constant"
    )
    weight_decay: float = setting(0.0, ge=0, about="weight decay of AdamW")
    betas: tuple[float, float] = setting((0.9, 0.999), ge=0, lt=1, about="decay rates of AdamW's two moments")
    clip: float = setting(1.0, gt=0, about="gradients with a larger norm are scaled down to this norm")
    evaluations: int = setting(
        0, ge=0, about="times the validation metric is measured during training; 0: never, the last weights are kept"
    )
    patience: int = setting(
        0, ge=0, about="training stops after so many measurements in a row without improvement; 0: never"
    )

    @property
    def reads_holdout(self) -> bool:
        return self.evaluations > 0

    def check(self) -> None:
        if self.patience and not self.evaluations:
            raise UserError(
                f"{self.name}.patience = {self.patience} has no effect with evaluations = 0; set evaluations"
            )
