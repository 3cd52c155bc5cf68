"""The training loop: resumes exactly, stops on divergence, follows its schedule."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.training.loop import FitReport, Schedule, fit

SCHEDULE = Schedule(steps=30, lr=1e-2, warmup=0.1, weight_decay=0.01)


class KilledError(Exception):
    pass


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.Tanh(), nn.Linear(16, 1))


def train(model: nn.Sequential, checkpoint: Path | None, dies_at: int | None = None) -> FitReport:
    def backward(step: int) -> float:
        if step == dies_at:
            raise KilledError
        draw = torch.Generator().manual_seed(step)
        x = torch.randn(32, 6, generator=draw)
        loss = (model(x)[:, 0] - x.sum(1).sin()).square().mean()
        loss.backward()
        return float(loss.detach())

    return fit(model, backward, SCHEDULE, seed=3, checkpoint=checkpoint, checkpoint_seconds=0.0)


def test_a_killed_run_goes_on_exactly(tmp_path: Path) -> None:
    """Dropout makes the generator matter, AdamW its moments, the cosine the position."""
    straight, resumed = network(), network()
    whole = train(straight, None)
    for death in (4, 11, 29):
        with pytest.raises(KilledError):
            train(resumed, tmp_path / "checkpoint.safetensors", dies_at=death)
        resumed = network()  # a new process knows nothing but the checkpoint
    last = train(resumed, tmp_path / "checkpoint.safetensors")
    for one, two in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    assert (last.steps, last.first_loss, last.last_loss) == (whole.steps, whole.first_loss, whole.last_loss)
    assert last.session_seconds < last.seconds


def test_training_lowers_the_loss_and_leaves_frozen_weights() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.clone()
    report = train(model, None)
    assert report.last_loss < 0.8 * report.first_loss
    assert torch.equal(model[0].weight, frozen)


def test_divergence_is_an_error_with_the_step() -> None:
    model = network()

    def backward(step: int) -> float:
        model(torch.ones(1, 6)).sum().backward()
        return math.nan if step == 2 else 1.0

    with pytest.raises(UserError, match="the loss is nan at step 2; lower the learning rate"):
        fit(model, backward, SCHEDULE, seed=0, label="toy")


def test_schedule_rises_then_falls_to_zero() -> None:
    rates = [SCHEDULE.rate(step) for step in range(SCHEDULE.steps + 1)]
    assert rates[:3] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2])
    assert all(a >= b for a, b in itertools.pairwise(rates[2:]))
    assert rates[-1] == pytest.approx(0)
