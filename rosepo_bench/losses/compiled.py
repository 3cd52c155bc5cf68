"""The losses of the compiled family, as components. Their formulas stand in ``formulas.py``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rosepo_bench.base.component import linear, log, setting
from rosepo_bench.losses.arguments import Formula, Pairs
from rosepo_bench.losses.base import Columns, Loss, StepRewards
from rosepo_bench.losses.formulas import LOSSES, odds_smoothed

_LENGTHS = frozenset({"lengths"})


class Compiled(Loss):
    """A loss with a formula of the family; ``formula`` is its name there. A subclass with a ``__call__`` of its own
    runs in plain torch."""

    formula: ClassVar[str] = ""

    beta: float = setting(1.0, gt=0, search=log(0.03, 10), about="β: how strongly rewards count")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if name := cls.__dict__.get("name"):
            cls.formula = cls.__dict__.get("formula") or (name if name in LOSSES else cls.formula)
            found = LOSSES[cls.formula]
            cls.many, cls.max_epsilon = found.many, found.max_epsilon if "epsilon" in found.takes else 0.0
            cls.about = cls.__dict__.get("about") or found.about

    @property
    def kernel(self) -> str | None:
        return self.formula if type(self).__call__ is Compiled.__call__ else None

    def options(self) -> dict[str, float]:
        found: Formula = LOSSES[self.formula]
        names = ("gamma", "sft_weight", "desirable", "undesirable")
        return {name: getattr(self, name) for name in names if name in found.needs | found.takes}

    def __call__(self, pairs: Pairs) -> Tensor:
        own: dict[str, Any] = {name: value for name, value in self.options().items() if name not in _of_step(pairs)}
        return LOSSES[self.formula].formula(pairs._replace(**own))


def _of_step(pairs: Pairs) -> set[str]:
    """The weights of terms that :meth:`Loss.of_step` has decided: tensors."""
    return {name for name in ("desirable", "undesirable") if isinstance(getattr(pairs, name), Tensor)}


class DPO(Compiled):
    name = "dpo"
    paper = "arXiv 2305.18290"


class CDPO(Compiled):
    name = "cdpo"
    paper = "Mitchell 2023, A note on DPO with noisy preferences"


class RosePO(Compiled):
    name = "rosepo"
    paper = "arXiv 2410.12519, our reading"

    form: Literal["mean", "odds"] = setting(
        "mean",
        about="K > 1: q_k = ε_k/K, or q_k/q_w = ε_k/(1 - ε_k), the posterior; odds runs in plain torch",
    )

    @property
    def kernel(self) -> str | None:
        return self.formula if self.form == "mean" else None

    def __call__(self, pairs: Pairs) -> Tensor:
        return super().__call__(pairs) if self.form == "mean" else odds_smoothed(pairs)


class SDPO(Compiled):
    name = "sdpo"
    paper = "arXiv 2406.09215"


class Robust(Compiled):
    name = "robust"
    paper = "arXiv 2403.00409"


class IPO(Compiled):
    name = "ipo"
    paper = "arXiv 2310.12036, rewards per token as in libraries"
    needs = frozenset({"reference", "lengths"})

    beta: float = setting(0.1, gt=0, search=log(0.01, 1), about="β: the margin aimed at is 1/(2β)")


class IPOSum(Compiled):
    name = "ipo_sum"
    paper = "arXiv 2310.12036"

    beta: float = setting(0.1, gt=0, search=log(0.01, 1), about="β: the margin aimed at is 1/(2β)")


class SimPO(Compiled):
    name = "simpo"
    paper = "arXiv 2405.14734"
    needs = _LENGTHS

    beta: float = setting(2.0, gt=0, search=log(0.5, 20), about="β: how strongly rewards count")
    gamma: float = setting(1.0, ge=0, search=linear(0, 3), about="γ: margin between the rewards")


class CPO(Compiled):
    name = "cpo"
    paper = "arXiv 2401.08417"
    needs: ClassVar[frozenset[str]] = frozenset()

    beta: float = setting(0.1, gt=0, search=log(0.01, 1), about="β: how strongly rewards count")
    sft_weight: float = setting(1.0, ge=0, about="weight of the likelihood of the chosen title")


class ORPO(Compiled):
    name = "orpo"
    paper = "arXiv 2403.07691"
    needs = _LENGTHS

    beta: float = setting(0.1, gt=0, search=log(0.01, 1), about="the paper's λ: weight of the odds")


class DMPO(Compiled):
    name = "dmpo"
    paper = "arXiv 2405.16127"


class KTO(Compiled):
    """z is the mean reward of mismatched pairs over the whole optimizer step, at least 0, without a gradient."""

    name = "kto"
    paper = "arXiv 2402.01306"
    of_whole_step = frozenset({"mismatched"})

    beta: float = setting(0.1, gt=0, search=log(0.01, 1), about="β: how strongly rewards count")
    desirable: float = setting(1.0, ge=0, about="weight of chosen items")
    undesirable: float = setting(1.0, ge=0, about="weight of rejected items")
    unpaired: bool = setting(
        False, about="each pair gives its chosen or its rejected item alone, by lot at each step: unpaired data"
    )

    def of_step(self, step: StepRewards, memory: dict[str, float], rng: np.random.Generator) -> Columns:
        assert step.mismatched is not None
        z = step.mismatched.mean().clamp(min=0)
        if not self.unpaired:
            return Columns(kl=z)
        lot = torch.from_numpy((rng.random(len(step.mismatched)) < 0.5).astype(np.float64)).to(z.device)
        return Columns(kl=z, desirable=self.desirable * lot, undesirable=self.undesirable * (1 - lot))
