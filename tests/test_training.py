"""The training loop: resumes exactly, stops on divergence, follows its settings."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rosepo_bench.base import progress, store
from rosepo_bench.base.config import PreferenceConfig, SFTConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work
from rosepo_bench.engine.training import loop, preference, sft
from rosepo_bench.engine.training.loop import FitReport, Schedule, fit
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.losses.compiled import DPO
from rosepo_bench.recommenders import sasrec
from rosepo_bench.recommenders.sasrec import SASRec

SCHEDULE = Schedule(steps=30, lr=1e-2, warmup=0.1, weight_decay=0.01)


class KilledError(Exception):
    pass


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.Tanh(), nn.Linear(16, 1))


def loss_of(model: nn.Sequential, step: int) -> Tensor:
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(step))
    return (model(x)[:, 0] - x.sum(1).sin()).square().mean()


def train(
    model: nn.Sequential,
    folder: Path | None = None,
    dies_at: int | None = None,
    spoils: dict[int, float] | None = None,
    schedule: Schedule = SCHEDULE,
) -> FitReport:
    """``spoils``: what one number of the gradient becomes at a step; the loss stays what it was."""

    def backward(step: int) -> dict[str, float]:
        if step == dies_at:
            raise KilledError
        loss = loss_of(model, step)
        loss.backward()
        if step in (spoils or {}):
            next(model.parameters()).grad[1, 2] = spoils[step]
        return {"loss": float(loss.detach())}

    return fit(model, backward, schedule, Work(3, "toy", folder, checkpoint_seconds=0.0))


def test_a_killed_run_goes_on_exactly(tmp_path: Path) -> None:
    """Dropout makes the generator matter, AdamW its moments, the cosine the position."""
    straight, resumed = network(), network()
    whole = train(straight)
    for death in (4, 11, 29):
        with pytest.raises(KilledError):
            train(resumed, tmp_path, dies_at=death)
        resumed = network()  # a new process knows nothing but the checkpoint
    last = train(resumed, tmp_path)
    for one, two in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    assert (last.steps, last.first_loss, last.last_loss) == (whole.steps, whole.first_loss, whole.last_loss)
    assert last.session_seconds < last.seconds


@pytest.mark.parametrize("threads", [1, 3])
def test_a_resumption_says_when_the_number_of_threads_is_another(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with pytest.raises(KilledError):
        train(network(), tmp_path, dies_at=3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with progress.shown():
        train(network(), tmp_path)
    assert ("began with 1 threads, goes on with 3" in capsys.readouterr().out) == (threads == 3)


def damage(folder: Path, what: str) -> None:
    """Of a checkpoint in ``folder``."""
    path, curves = folder / "checkpoint.safetensors", folder / "curves.npz"
    if what == "no curves":
        curves.unlink()
        return
    if what == "short curves":
        store.write_npz(curves, loss=np.ones(3), gradient_norm=np.ones(3), lr=np.ones(3))
        return
    if what == "half a file":
        path.write_bytes(path.read_bytes()[:500])
        return
    with safe_open(path, framework="pt") as file:
        tensors, facts = {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["state"])  # noqa: SIM118
    if what == "no moment":
        del tensors["exp_avg.0.bias"]
    elif what == "another shape":
        tensors["weight.3.bias"] = torch.ones(2)
    elif what == "no random state":
        del tensors["rng"]
    elif what == "no step":
        del facts["step"], facts["seconds"], facts["validation"]
    else:
        facts["stp"] = 3
    save_file(tensors, path, metadata={"state": json.dumps(facts)})


@pytest.mark.parametrize(
    "what",
    [
        *("no curves", "short curves", "half a file", "no moment", "another shape", "no random state", "no step"),
        "an unknown fact",
    ],
)
def test_a_damaged_checkpoint_is_named_and_nothing_of_it_is_put_back(what: str, tmp_path: Path) -> None:
    """Its stage then starts over: tests/engine/test_damaged_checkpoint.py."""
    fresh, again = network(), network()
    with pytest.raises(KilledError):
        train(network(), tmp_path, dies_at=11)
    damage(tmp_path, what)
    with pytest.raises(store.DamagedError, match=re.escape(str(tmp_path))):
        train(again, tmp_path)
    for one, two in zip(fresh.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_training_lowers_the_loss_and_leaves_frozen_weights() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.clone()
    report = train(model)
    assert report.last_loss < 0.8 * report.first_loss
    assert torch.equal(model[0].weight, frozen)


def test_divergence_is_an_error_with_the_step() -> None:
    model = network()

    def backward(step: int) -> dict[str, float]:
        model(torch.ones(1, 6)).sum().backward()
        return {"loss": math.nan if step == 2 else 1.0}

    said = (
        r"toy: the loss is nan at step 2 \(of 30, counted from 0\), where the learning rate is 0.01\. Training has "
        r"diverged .* not kept: lower lr \(0.01\) or clip \(1\), or raise warmup \(0.1\)"
    )
    with pytest.raises(UserError, match=said):
        fit(model, backward, SCHEDULE, Work(0, "toy"))
    own = r"lower sft.lr \(0.01\) or sft.clip \(1\), or raise sft.warmup \(0.1\)"
    with pytest.raises(UserError, match=own):
        fit(model, backward, SCHEDULE, Work(0, "toy", settings="sft"))


@pytest.mark.parametrize(
    ("losses", "gradients", "refused"),
    [
        ([2.0, 3.0, 9.0, 9.0], [1.0, 1.0, 0.0, 0.0], True),
        ([2.0, 3.0, 9.0, 9.0], [1.0, 0.0, 0.0, 1.0], False),  # it has come back
        ([2.0, 3.0, 9.0, 1.0], [1.0, 1.0, 1.0, 0.0], False),  # a hinge loss may reach its minimum
        ([2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0], False),  # at ε = 0.5 there is no gradient from the start
    ],
)
def test_a_loss_that_ends_above_its_start_without_a_gradient_has_diverged(
    losses: list[float], gradients: list[float], refused: bool
) -> None:
    """All numbers are finite where a huge step has thrown the weights into saturation."""
    layer = nn.Linear(1, 1, bias=False)

    def backward(step: int) -> dict[str, float]:
        layer.weight.grad = torch.full((1, 1), gradients[step])
        return {"loss": losses[step]}

    said = (
        r"toy: the gradient is 0 since step 2 \(of 4, counted from 0\), where the learning rate is 0.75, and the loss "
        r"has risen from 2 to 9\. Training has diverged .* lower lr \(1\)"
    )
    schedule = Schedule(4, lr=1.0, warmup=0.0)
    with pytest.raises(UserError, match=said) if refused else contextlib.nullcontext():
        fit(layer, backward, schedule, Work(0, "toy"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "hidden[0, 0] is nan: want a finite number",
            r"toy: hidden\[0, 0\] is nan: want a finite number, at step 2 \(of 30, .* learning rate is 0.01\. Training "
            r"has diverged .* lower lr \(0.01\)",
        ),
        ("item 7 is unknown", r"toy: item 7 is unknown, at step 2 of 30$"),
    ],
)
def test_what_an_operator_refuses_in_a_step_names_the_step(error: str, said: str) -> None:
    """The operators see values that are not finite before the loop does."""

    def backward(step: int) -> dict[str, float]:
        if step == 2:
            raise UserError(error)
        return {"loss": 1.0}

    with pytest.raises(UserError, match=said):
        fit(network(), backward, SCHEDULE, Work(0, "toy"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("step", [0, 12, 29])
def test_a_gradient_whose_norm_is_not_finite_stops_training(step: int, value: float, tmp_path: Path) -> None:
    """Though every loss is finite: at the first step, between, at the last. The optimizer never sees it, and the
    checkpoint is that of the step before. 1e30 is finite, its square is not."""
    straight, spoilt = network(), network()
    with pytest.raises(KilledError):
        train(straight, dies_at=step)
    with pytest.raises(UserError, match=rf"toy: the gradient norm is (nan|inf) at step {step} \(of 30"):
        train(spoilt, tmp_path, spoils={step: value})
    for one, two in zip(straight.parameters(), spoilt.parameters(), strict=True):
        assert torch.equal(one, two)
    if step:
        with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
            kept = {name: file.get_tensor(f"weight.{name}") for name, _ in spoilt.named_parameters()}
        assert all(torch.equal(kept[name], p) for name, p in spoilt.named_parameters())


def test_a_gradient_that_is_not_finite_stops_a_resumed_run(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(network(), tmp_path, dies_at=20)
    for _ in range(2):  # the checkpoint does not lead around it
        with pytest.raises(UserError, match="the gradient norm is nan at step 29 "):
            train(network(), tmp_path, spoils={29: math.nan})


def test_weights_without_a_gradient_do_not_stop_a_resumption(tmp_path: Path) -> None:
    """Such as an embedding that no step reads: AdamW keeps nothing of it."""
    straight, resumed = network(), network()
    for model in (straight, resumed):
        model[0].register_parameter("unread", nn.Parameter(torch.ones(1)))
    train(straight)
    with pytest.raises(KilledError):
        train(resumed, tmp_path, dies_at=5)
    train(resumed, tmp_path)
    for one, two in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_weights_that_are_not_finite_at_the_end_are_no_success(tmp_path: Path) -> None:
    """The last optimizer step overflows: no loss comes after it that could tell."""
    huge = Schedule(steps=1, lr=2e38, betas=(0.0, 0.999))
    for work in (Work(0, "toy", tmp_path, 0.0), Work(0, "toy", tmp_path)):  # nor is what its checkpoint holds
        layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(layer.weight, 3e38)

        def backward(step: int, layer: nn.Linear = layer) -> dict[str, float]:
            layer.weight.grad = -torch.ones(1, 1)
            return {"loss": 1.0}

        with pytest.raises(UserError, match=r"toy: weight is not finite after step 0, the last one.* lower lr"):
            fit(layer, backward, huge, work)


def test_weights_in_sixteen_bits_are_refused() -> None:
    with pytest.raises(UserError, match=r"toy: 0.weight is torch.bfloat16, which rounds small optimizer steps away"):
        train(network().to(torch.bfloat16))


def by_hand(model: nn.Sequential, steps: int, **settings: Any) -> list[Tensor]:
    """Plain AdamW: the weights after training."""
    torch.manual_seed(3)
    clip, rates = settings.pop("clip"), settings.pop("rates")
    optimizer = torch.optim.AdamW(model.parameters(), **settings)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.zero_grad()
        loss_of(model, step).backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        for p in model.parameters():
            p.grad *= min(1.0, clip / (float(norm) + 1e-6))
        optimizer.step()
    return list(model.parameters())


COSINE = [1.0, 0.5 * (1 + math.cos(math.pi / 3)), 0.5 * (1 + math.cos(2 * math.pi / 3))]
PLAIN = {"lr": 0.02, "warmup": 0.5, "weight_decay": 0.0, "clip": 1.0, "betas": (0.9, 0.999), "schedule": "cosine"}
CHANGES: list[tuple[dict[str, Any], list[float]]] = [  # settings, and the rate of six steps as a share of lr
    ({}, [1 / 3, 2 / 3, 1, *COSINE]),
    ({"lr": 0.005}, [1 / 3, 2 / 3, 1, *COSINE]),
    ({"warmup": 0.0}, [1.0, *(0.5 * (1 + math.cos(math.pi * k / 5)) for k in range(5))]),
    ({"schedule": "linear"}, [1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3]),
    ({"schedule": "constant"}, [1 / 3, 2 / 3, 1, 1, 1, 1]),
    ({"weight_decay": 0.5}, [1 / 3, 2 / 3, 1, *COSINE]),
    ({"clip": 0.1}, [1 / 3, 2 / 3, 1, *COSINE]),
    ({"betas": (0.5, 0.999)}, [1 / 3, 2 / 3, 1, *COSINE]),
    ({"betas": (0.9, 0.8)}, [1 / 3, 2 / 3, 1, *COSINE]),
]


@pytest.mark.parametrize("section", [SFTConfig, PreferenceConfig, SASRec])
@pytest.mark.parametrize(("change", "shares"), CHANGES, ids=[str(change) for change, _ in CHANGES])
def test_every_setting_reaches_the_optimizer(section: Any, change: dict[str, Any], shares: list[float]) -> None:
    settings = {**PLAIN, **change}
    schedule = Schedule.of(section(**settings), steps=6)
    rates = [settings["lr"] * share for share in shares]
    assert [schedule.rate(step) for step in range(6)] == pytest.approx(rates, rel=1e-12)
    model, plain, hand = network(), network(), network()
    train(model, schedule=schedule)
    train(plain, schedule=Schedule.of(section(**PLAIN), steps=6))
    given = {name: settings[name] for name in ("lr", "weight_decay", "clip", "betas")}
    wanted = by_hand(hand, 6, rates=rates, **given)
    for one, two in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)
    moved = max(
        float((a - b).detach().abs().max()) for a, b in zip(model.parameters(), plain.parameters(), strict=True)
    )
    assert (moved > 1e-4) == bool(change)


OTHERS = {"lr": 0.02, "warmup": 0.3, "weight_decay": 0.1, "clip": 0.7, "betas": (0.8, 0.9), "schedule": "linear"}


@pytest.mark.parametrize("stage", ["sft", "preference", "sasrec"])
def test_every_stage_trains_by_its_own_section(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All settings at once, each with a value that no default has."""
    given: list[Schedule] = []

    def caught(module: nn.Module, backward: Any, schedule: Schedule, work: Work, **_: Any) -> Any:
        given.append(schedule)
        return SimpleNamespace(steps=0)

    for module in (sft, preference, loop):
        monkeypatch.setattr(module, "fit", caught)
    model: Any = SimpleNamespace(network=network())
    rest: dict[str, Any] = {"meter": Meter(), "batch_tokens": 64, "work": Work(0)}
    if stage == "sft":
        config = SFTConfig(batch=1, epochs=1.0, **OTHERS, min_steps=0)
        sft.train_sft(model, np.array([3]), lambda windows: [], config, window=1, first=0, **rest)
    elif stage == "preference":
        users = [[SimpleNamespace(examples=1)] for _ in range(3)]
        monkeypatch.setattr(preference, "limits_of", lambda *_: None)
        monkeypatch.setattr(preference, "grouped", lambda *_, **__: users)
        pairs: Any = SimpleNamespace(examples=None, titles=None, check=lambda loss: None)
        prompter: Any = SimpleNamespace(titles=[])
        preference.train_preference(model, prompter, [], pairs, PreferenceConfig(batch=1, **OTHERS), DPO(), **rest)
    else:
        config = SASRec(batch=1, epochs=3, **OTHERS)
        sasrec.train([np.array([1, 2])], 4, config, Work(0))
    assert given == [Schedule(3, 0.02, 0.3, 0.1, 0.7, (0.8, 0.9), "linear")]


@pytest.mark.parametrize(("section", "lr"), [(SFTConfig, 3e-3), (PreferenceConfig, 5e-4), (SASRec, 2e-3)])
def test_defaults_are_the_published_ones(section: Any, lr: float) -> None:
    assert Schedule.of(section(), 9) == Schedule(9, lr, 0.05, 0.0, 1.0, (0.9, 0.999), "cosine")


def test_schedule_rises_then_falls_to_zero() -> None:
    rates = [SCHEDULE.rate(step) for step in range(SCHEDULE.steps + 1)]
    assert rates[:3] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2])
    assert all(a >= b for a, b in itertools.pairwise(rates[2:]))
    assert rates[-1] == pytest.approx(0)
