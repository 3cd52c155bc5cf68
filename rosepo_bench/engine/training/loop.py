"""The training loop: AdamW, a learning rate with warm-up, and checkpoints from which a killed run resumes exactly."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rosepo_bench.base import progress, store
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work

if TYPE_CHECKING:
    from rosepo_bench.base.config import TrainingConfig

Weights = Mapping[str, nn.Parameter]


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
    def of(cls, config: TrainingConfig, steps: int) -> Schedule:
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


@dataclass(frozen=True)
class FitReport:
    """Optimizer steps; seconds of training, in total over all resumptions and in this process; mean loss over the first
    and the last tenth of the steps."""

    steps: int
    seconds: float
    session_seconds: float
    first_loss: float
    last_loss: float


@dataclass
class _State:
    step: int
    seconds: float
    losses: list[float]


def fit(module: nn.Module, backward: Callable[[int], float], schedule: Schedule, work: Work) -> FitReport:
    """Trains the parameters of ``module`` that require a gradient; they must be float32 or float64.

    ``backward(step)`` accumulates the gradient of optimizer step ``step``, counted from 0, and returns its loss. The
    data it reads must depend on ``step`` alone, so that a killed run resumes from ``work.checkpoint`` with the same
    numbers. torch's global generator (dropout) is seeded with ``work.seed``; its state is part of the checkpoint.

    Raises UserError, with the step, for a loss or gradient norm that is not finite, before the optimizer uses it, and
    for weights that are not finite at the end.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    _refuse_short(trained, work.label)
    optimizer, checkpoint = schedule.optimizer(trained), work.checkpoint
    state = _State(0, 0.0, [])
    torch.manual_seed(work.seed)
    if checkpoint is not None and checkpoint.exists():
        state = _restore(checkpoint, trained, optimizer)
        progress.say(f"  {work.label}: goes on at step {state.step} of {schedule.steps}")
    module.train()
    saved, before = time.monotonic(), state.seconds
    while state.step < schedule.steps:
        began = time.monotonic()
        state.losses.append(_step(backward, trained, optimizer, schedule, state.step, work.label))
        state.step += 1
        state.seconds += time.monotonic() - began
        progress.advance(work.label, state.step, schedule.steps)
        if checkpoint is not None and time.monotonic() - saved >= work.checkpoint_seconds:
            _save(checkpoint, trained, optimizer, state)
            saved = time.monotonic()
    module.eval()
    _refuse_not_finite(trained, schedule, work.label)
    return _report(state, before)


def _report(state: _State, before: float) -> FitReport:
    """``before``: seconds of training in earlier processes."""
    tenth = max(1, len(state.losses) // 10)
    first, last = state.losses[:tenth], state.losses[-tenth:]
    return FitReport(
        state.step,
        state.seconds,
        state.seconds - before,
        sum(first) / len(first),
        sum(last) / len(last),
    )


def _step(
    backward: Callable[[int], float],
    trained: Weights,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    step: int,
    label: str,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(step)
    optimizer.zero_grad(set_to_none=True)
    try:
        loss = backward(step)
    except UserError as error:  # an operator met a value before the loss could show it
        said = _diverged(schedule, step) if "finite" in str(error) else f"at step {step} of {schedule.steps}"
        raise UserError(f"{label}: {error}, {said}") from error
    norm = float(torch.nn.utils.clip_grad_norm_(trained.values(), schedule.clip))
    for name, value in (("loss", loss), ("gradient norm", norm)):
        if not math.isfinite(value):
            raise UserError(f"{label}: the {name} is {value} {_diverged(schedule, step)}")
    optimizer.step()
    return loss


def _diverged(schedule: Schedule, step: int) -> str:
    return (
        f"at step {step} (of {schedule.steps}, counted from 0), where the learning rate is {schedule.rate(step):.3g}. "
        f"Training has diverged and its weights were not kept: {_remedy(schedule)}"
    )


def _remedy(schedule: Schedule) -> str:
    return f"lower lr ({schedule.lr:g}) or clip ({schedule.clip:g}), or raise warmup ({schedule.warmup:g})"


def _refuse_short(trained: Weights, label: str) -> None:
    """In 16 bits a weight of 0.02 does not change at a learning rate of 1e-5: rounding absorbs the step."""
    for name, weight in trained.items():
        if weight.dtype not in (torch.float32, torch.float64):
            raise UserError(
                f"{label}: {name} is {weight.dtype}, which rounds small optimizer steps away; train weights in "
                "torch.float32, with forward passes under torch.autocast"
            )


def _refuse_not_finite(trained: Weights, schedule: Schedule, label: str) -> None:
    for name, weight in trained.items():
        if not bool(weight.detach().isfinite().all()):
            raise UserError(
                f"{label}: {name} is not finite after step {schedule.steps - 1}, the last one. Training has diverged "
                f"and its weights were not kept: {_remedy(schedule)}"
            )


def _save(path: Path, trained: Weights, optimizer: torch.optim.Optimizer, state: _State) -> None:
    tensors: dict[str, Tensor] = {"rng": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    for name, parameter in trained.items():
        tensors[f"weight.{name}"] = parameter.detach()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value
    facts = {**vars(state), "threads": torch.get_num_threads()}
    store.write_bytes(path, save(tensors, metadata={"state": json.dumps(facts)}))


def _restore(path: Path, trained: Weights, optimizer: torch.optim.Optimizer) -> _State:
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["state"])
        kept = set(file.keys())
        for name, parameter in trained.items():
            with torch.no_grad():
                parameter.copy_(file.get_tensor(f"weight.{name}"))
            if f"step.{name}" not in kept:  # it has never had a gradient
                continue
            optimizer.state[parameter] = {
                "step": file.get_tensor(f"step.{name}"),
                "exp_avg": file.get_tensor(f"exp_avg.{name}").to(parameter.device),
                "exp_avg_sq": file.get_tensor(f"exp_avg_sq.{name}").to(parameter.device),
            }
        torch.set_rng_state(file.get_tensor("rng"))
        if "rng.cuda" in kept and torch.cuda.is_available():
            torch.cuda.set_rng_state(file.get_tensor("rng.cuda"))
    if (began := facts.pop("threads")) != torch.get_num_threads():
        progress.say(
            f"  {path.parent.name}: began with {began} threads, goes on with {torch.get_num_threads()}: sums may "
            "differ in their last digits from an uninterrupted run"
        )
    return _State(**facts)
