"""The one training loop: AdamW, warm-up and cosine, checkpoints from which a killed run goes on exactly."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rosepo_bench.base import progress, store
from rosepo_bench.base.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """``steps`` optimizer steps of AdamW; the rate rises over the share ``warmup`` and falls to 0 along a cosine."""

    steps: int
    lr: float
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step ``step``, counted from 0."""
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return self.lr * (step + 1) / rising
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, self.steps - rising)))


@dataclass(frozen=True)
class FitReport:
    """What training did: optimizer steps, seconds spent (over all resumptions, and since this process took over), mean
    loss of the first and last tenth."""

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


def fit(
    module: nn.Module,
    backward: Callable[[int], float],
    schedule: Schedule,
    *,
    seed: int,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 15.0,
    label: str = "train",
) -> FitReport:
    """Trains the parameters of ``module`` that require a gradient.

    ``backward(step)`` accumulates the gradient of optimizer step ``step`` and returns its loss; what it reads must be a
    function of ``step`` alone, so that a run killed anywhere goes on from ``checkpoint`` with the same numbers. torch's
    global generator (dropout) starts at ``seed`` and travels in the checkpoint. A loss that is not finite stops
    training with an error.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=schedule.lr, weight_decay=schedule.weight_decay)
    state = _State(0, 0.0, [])
    torch.manual_seed(seed)
    if checkpoint is not None and checkpoint.exists():
        state = _restore(checkpoint, trained, optimizer)
        progress.say(f"  {label}: goes on at step {state.step} of {schedule.steps}")
    module.train()
    saved, before = time.monotonic(), state.seconds
    while state.step < schedule.steps:
        began = time.monotonic()
        state.losses.append(_step(backward, trained, optimizer, schedule, state.step, label))
        state.step += 1
        state.seconds += time.monotonic() - began
        progress.advance(label, state.step, schedule.steps)
        if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
            _save(checkpoint, trained, optimizer, state)
            saved = time.monotonic()
    module.eval()
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
    trained: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    step: int,
    label: str,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(step)
    optimizer.zero_grad(set_to_none=True)
    loss = backward(step)
    if not math.isfinite(loss):
        raise UserError(f"{label}: the loss is {loss} at step {step}; lower the learning rate ({schedule.lr})")
    torch.nn.utils.clip_grad_norm_(trained.values(), schedule.clip)
    optimizer.step()
    return loss


def _save(path: Path, trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, state: _State) -> None:
    tensors: dict[str, Tensor] = {"rng": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    for name, parameter in trained.items():
        tensors[f"weight.{name}"] = parameter.detach()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value
    facts = {**vars(state), "threads": torch.get_num_threads()}
    store.write_bytes(path, save(tensors, metadata={"state": json.dumps(facts)}))


def _restore(path: Path, trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> _State:
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["state"])
        for name, parameter in trained.items():
            with torch.no_grad():
                parameter.copy_(file.get_tensor(f"weight.{name}"))
            optimizer.state[parameter] = {
                "step": file.get_tensor(f"step.{name}"),
                "exp_avg": file.get_tensor(f"exp_avg.{name}").to(parameter.device),
                "exp_avg_sq": file.get_tensor(f"exp_avg_sq.{name}").to(parameter.device),
            }
        torch.set_rng_state(file.get_tensor("rng"))
        if "rng.cuda" in file.keys() and torch.cuda.is_available():  # noqa: SIM118 (safe_open is no mapping)
            torch.cuda.set_rng_state(file.get_tensor("rng.cuda"))
    if (began := facts.pop("threads")) != torch.get_num_threads():
        progress.say(
            f"  {path.parent.name}: began with {began} threads, goes on with {torch.get_num_threads()}: sums may "
            "differ in their last digits from an uninterrupted run"
        )
    return _State(**facts)
