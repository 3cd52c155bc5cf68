"""Refusals of weights that no training should keep. All are UserError, and say what to lower."""

from __future__ import annotations

import torch

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work
from rosepo_bench.engine.training.checkpoint import Weights
from rosepo_bench.engine.training.curves import Curves, ends
from rosepo_bench.engine.training.schedule import Schedule


def said(schedule: Schedule, step: int, work: Work) -> str:
    """The end of a message about a number of ``step``, counted from 0, that is not finite."""
    return (
        f"at step {step} (of {schedule.steps}, counted from 0), where the learning rate is {schedule.rate(step):.3g}. "
        f"Training has diverged and its weights were not kept: {_remedy(schedule, work)}"
    )


def refuse_short(trained: Weights, work: Work) -> None:
    """In 16 bits a weight of 0.02 does not change at a learning rate of 1e-5: rounding absorbs the step."""
    for name, weight in trained.items():
        if weight.dtype not in (torch.float32, torch.float64):
            raise UserError(
                f"{work.label}: {name} is {weight.dtype}, which rounds small optimizer steps away; train weights in "
                "torch.float32, with forward passes under torch.autocast"
            )


def refuse_not_finite(trained: Weights, schedule: Schedule, last: int, work: Work) -> None:
    """The last optimizer step may overflow: no loss comes after it that could tell."""
    for name, weight in trained.items():
        if not bool(weight.detach().isfinite().all()):
            raise UserError(
                f"{work.label}: {name} is not finite after step {last}, the last one. Training has diverged "
                f"and its weights were not kept: {_remedy(schedule, work)}"
            )


def refuse_stuck(curves: Curves, schedule: Schedule, work: Work) -> None:
    """Weights that a huge step has thrown far away may give a finite loss without any gradient: from there on nothing
    is learned. Such a loss is above that of the first step; one that has reached its minimum is below."""
    losses, norms = curves.values("loss"), curves.values("gradient_norm")
    if not norms or ends(norms)[1] > 0 or ends(losses)[1] <= losses[0]:
        return
    stuck = max((step for step, norm in enumerate(norms) if norm), default=-1) + 1
    raise UserError(
        f"{work.label}: the gradient is 0 since step {stuck} (of {schedule.steps}, counted from 0), where the learning "
        f"rate is {schedule.rate(stuck):.3g}, and the loss has risen from {losses[0]:.3g} to {losses[-1]:.3g}. "
        f"Training has diverged and its weights were not kept: {_remedy(schedule, work)}"
    )


def _remedy(schedule: Schedule, work: Work) -> str:
    place = f"{work.settings}." if work.settings else ""
    return (
        f"lower {place}lr ({schedule.lr:g}) or {place}clip ({schedule.clip:g}), "
        f"or raise {place}warmup ({schedule.warmup:g})"
    )
