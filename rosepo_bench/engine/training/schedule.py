"""The optimizer of a training: AdamW, whose learning rate rises first and then decays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch

from rosepo_bench.engine.training.checkpoint import Weights


@runtime_checkable
class Trained(Protocol):
    """The optimizer's settings, as sections of the configuration and components have them."""

    @property
    def lr(self) -> float: ...
    @property
    def warmup(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def schedule(self) -> Literal["cosine", "linear", "constant"]: ...


@dataclass(frozen=True)
class Schedule:
    """``steps`` optimizer steps of AdamW. The learning rate rises linearly to ``lr`` over the share ``warmup`` of them;
    then it decays to 0 along half a cosine or a line, or stays constant (``kind``). Gradients are clipped to
    the norm ``clip``."""

    steps: int
    lr: float
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    kind: Literal["cosine", "linear", "constant"] = "cosine"

    @classmethod
    def of(cls, config: Trained, steps: int) -> Schedule:
        """The schedule of ``steps`` optimizer steps with the settings of one section of the configuration."""
        return cls(
            steps, config.lr, config.warmup, config.weight_decay, config.clip, config.betas, kind=config.schedule
        )

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step ``step``, counted from 0."""
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return self.lr * (step + 1) / rising
        if self.kind == "constant":
            return self.lr
        passed = (step - rising) / max(1, self.steps - rising)
        return self.lr * (1 - passed if self.kind == "linear" else 0.5 * (1 + math.cos(math.pi * passed)))

    def optimizer(self, weights: Weights) -> torch.optim.AdamW:
        """AdamW over ``weights``; its moments have the dtype of the weights."""
        return torch.optim.AdamW(weights.values(), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)
