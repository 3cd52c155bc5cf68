"""Training that is watched: which weights are kept, when it stops, what measuring must not change, and its curves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import list_pairs
import numpy as np
import pytest
import torch
from list_pairs import ENCODER, PROMPTER, made
from safetensors import safe_open
from torch import nn

from rosepo_bench.base.config import PreferenceConfig, SFTConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work
from rosepo_bench.engine.forest import Limits
from rosepo_bench.engine.prompts.examples import window_trees
from rosepo_bench.engine.training import checkpoint
from rosepo_bench.engine.training.curves import POINTS, Curves
from rosepo_bench.engine.training.loop import FitReport, Schedule, Validation, fit
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.engine.training.preference import pair_batches, train_preference
from rosepo_bench.engine.training.sft import train_sft, window_batches
from rosepo_bench.losses.compiled import DPO

STEPS = 20
SCHEDULE = Schedule(steps=STEPS, lr=1e-2, warmup=0.1)


class KilledError(Exception):
    pass


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.Tanh(), nn.Linear(16, 1))


class Trial:
    """A training whose validation values are planted; ``kept[s]`` are the weights after s steps."""

    def __init__(self, values: list[float], better: str = "high", patience: int = 0, evaluations: int = 5) -> None:
        self.model, self.values = network(), values
        self.kept: dict[int, list[torch.Tensor]] = {}
        self.steps_done = 0
        self.modes: list[bool] = []
        self.validation = Validation(self.measure, better, evaluations, patience)
        self.measured = 0

    def measure(self) -> float:
        self.modes.append(self.model.training)
        torch.randn(7)  # draws that training must not feel
        self.model(torch.ones(1, 6))
        self.measured += 1
        return self.values[self.measured - 1]

    def run(
        self, folder: Path | None = None, dies_at: int | None = None, watched: bool = True, **more: Any
    ) -> FitReport:
        def backward(step: int) -> dict[str, float]:
            self.kept[step] = [p.detach().clone() for p in self.model.parameters()]
            if step == dies_at:
                raise KilledError
            x = torch.randn(32, 6, generator=torch.Generator().manual_seed(step))
            loss = (self.model(x)[:, 0] - x.sum(1).sin()).square().mean()
            loss.backward()
            return {"loss": float(loss.detach()), "margin": float(step)}

        validation = self.validation if watched else None
        return fit(self.model, backward, SCHEDULE, Work(3, "toy", folder, 0.0), validation=validation, **more)

    def same(self, step: int) -> bool:
        """Whether the model has the weights after ``step`` steps."""
        return all(torch.equal(one, two) for one, two in zip(self.model.parameters(), self.kept[step], strict=True))


@pytest.mark.parametrize(
    ("values", "better", "best"),
    [
        ([0.1, 0.2, 0.9, 0.3, 0.4, 0.5], "high", 8),
        ([0.1, 0.2, 0.9, 0.3, 0.0, 0.5], "low", 16),
        ([0.1, 0.9, 0.9, 0.3, 0.9, 0.5], "high", 4),  # the earliest of equal ones
        ([0.9, 0.9, 0.2, 0.3, 0.2, 0.5], "low", 8),
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], "high", 0),
        ([-math.inf, 0.2, math.inf, 0.3, 0.4, 0.5], "high", 8),
        ([0.9, 0.2, 0.8, 0.3, 0.4, 0.5], "high", 0),  # no training is a choice
    ],
)
def test_the_weights_of_the_best_step_are_kept(values: list[float], better: str, best: int) -> None:
    trial = Trial(values, better)
    report = trial.run()
    assert trial.same(best)
    assert (report.best_step, report.steps, report.stopped_early) == (best, STEPS, False)
    assert report.validation == list(zip((0, 4, 8, 12, 16, 20), values, strict=True))
    assert not any(trial.modes), "measured in evaluation mode"
    assert not trial.model.training


def test_the_last_weights_are_kept_where_they_are_the_best_and_measuring_changes_no_bit() -> None:
    plain, watched = Trial([]), Trial([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    without, report = plain.run(watched=False), watched.run()
    assert (without.best_step, without.validation, report.best_step) == (None, [], STEPS)
    for step, weights in plain.kept.items():
        assert all(torch.equal(one, two) for one, two in zip(weights, watched.kept[step], strict=True)), step
    for one, two in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert without.curves == report.curves


def test_patience_stops_after_so_many_measurements_without_a_better_one() -> None:
    trial = Trial([0.1, 0.5, 0.4, 0.3, 0.9, 0.9], patience=2)
    report = trial.run()
    assert (report.steps, report.planned_steps, report.best_step, report.stopped_early) == (12, STEPS, 4, True)
    assert trial.same(4)
    late = Trial([0.1, 0.5, 0.4, 0.6, 0.5, 0.4], patience=2).run()
    assert (late.steps, late.best_step, late.stopped_early) == (STEPS, 12, False)
    first = Trial([0.9, 0.5, 0.8], patience=2)
    report = first.run()
    assert (report.steps, report.best_step, len(report.validation)) == (8, 0, 3), "the value before training counts"
    assert first.same(0)
    ties = Trial([0.1, 0.5, 0.5], patience=1).run()
    assert (ties.steps, ties.best_step) == (8, 4), "an equal value is no better one"


def test_a_training_of_few_steps_is_measured_once_after_each() -> None:
    trial = Trial([float(n) for n in range(STEPS + 1)], evaluations=3 * STEPS)
    report = trial.run()
    assert [step for step, _ in report.validation] == list(range(STEPS + 1))
    once = Trial([0.1, 0.2], evaluations=1).run()
    assert [step for step, _ in once.validation] == [0, STEPS]


def test_a_training_that_has_stopped_does_not_go_on(tmp_path: Path) -> None:
    """Killed after its last checkpoint: nothing is trained or measured again."""
    values = [0.1, 0.5, 0.4, 0.3]
    whole, again = Trial(values, patience=2), Trial(values, patience=2)
    report = whole.run(tmp_path)
    last = again.run(tmp_path, dies_at=12)
    assert again.measured == 0
    assert (last.steps, last.best_step, last.stopped_early) == (12, 4, True)
    assert (last.validation, last.curves) == (report.validation, report.curves)
    for one, two in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_weights_that_are_not_finite_are_named_by_the_step_that_was_the_last() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 3e38)

    def backward(step: int) -> dict[str, float]:
        layer.weight.grad = -torch.ones(1, 1)
        return {"loss": 1.0}

    values = iter([0.5, 0.4])
    stops = Validation(lambda: next(values), "high", 5, 1)
    with pytest.raises(UserError, match="weight is not finite after step 3, the last one"):
        fit(layer, backward, Schedule(STEPS, lr=2e38, betas=(0.0, 0.999)), Work(0, "toy"), validation=stops)


@pytest.mark.parametrize("deaths", [(3,), (9,), (5, 13, 19)])
def test_a_killed_run_chooses_the_same_weights(deaths: tuple[int, ...], tmp_path: Path) -> None:
    values = [0.1, 0.2, 0.9, 0.3, 0.95, 0.5]
    whole = Trial(values)
    straight = whole.run()
    measured = 0
    for death in deaths:
        trial = Trial(values)
        trial.measured = measured
        with pytest.raises(KilledError):
            trial.run(tmp_path, dies_at=death)
        measured = trial.measured
    last = Trial(values)
    last.measured = measured
    report = last.run(tmp_path)
    for one, two in zip(whole.model.parameters(), last.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert (report.best_step, report.validation, report.curves) == (
        straight.best_step, straight.validation, straight.curves,
    )  # fmt: skip


def test_a_run_killed_while_it_measures_measures_again(tmp_path: Path) -> None:
    values = [0.1, 0.2, 0.9, 0.3, 0.95, 0.5]
    whole, killed, last = (Trial(values) for _ in range(3))
    report, measure = whole.run(), killed.measure

    def dies() -> float:
        if measure() == 0.9:
            raise KilledError
        return values[killed.measured - 1]

    killed.validation = Validation(dies, "high", 5)
    with pytest.raises(KilledError):
        killed.run(tmp_path)
    last.measured = 2
    resumed = last.run(tmp_path)
    assert (resumed.validation, resumed.best_step, resumed.curves) == (report.validation, 16, report.curves)
    for one, two in zip(whole.model.parameters(), last.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_curves_written_before_a_checkpoint_that_was_not_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step is told twice."""
    straight, save, calls = Trial([]).run(watched=False), checkpoint.save, iter(range(10))

    def dies(*given: Any) -> None:
        if next(calls) == 6:
            raise KilledError
        save(*given)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", dies)
        with pytest.raises(KilledError):
            Trial([]).run(tmp_path, watched=False)
    with np.load(tmp_path / "curves.npz") as file:
        assert len(file["loss"]) == 7, "the checkpoint is that of six steps"
    assert Trial([]).run(tmp_path, watched=False).curves == straight.curves


def test_what_a_loss_remembers_lasts_over_resumptions(tmp_path: Path) -> None:
    memory: dict[str, float] = {}

    def backward(step: int, dies: bool) -> dict[str, float]:
        memory["count"] = memory.get("count", 0.0) + step
        if dies and step == 7:
            raise KilledError
        model(torch.ones(1, 6)).sum().backward()
        return {"loss": 1.0}

    model = network()
    with pytest.raises(KilledError):
        fit(model, lambda s: backward(s, True), SCHEDULE, Work(0, "toy", tmp_path, 0.0), memory=memory)
    memory = {}
    model = network()
    fit(model, lambda s: backward(s, False), SCHEDULE, Work(0, "toy", tmp_path, 0.0), memory=memory)
    assert memory["count"] == sum(range(STEPS))


def test_curves_tell_every_step(tmp_path: Path) -> None:
    report = Trial([]).run(tmp_path, watched=False)
    assert report.curves["step"] == [float(step) for step in range(1, STEPS + 1)]
    assert report.curves["lr"] == [SCHEDULE.rate(step) for step in range(STEPS)]
    assert report.curves["margin"] == [float(step) for step in range(STEPS)]
    assert all(norm > 0 for norm in report.curves["gradient_norm"])
    assert report.first_loss == pytest.approx(np.mean(report.curves["loss"][:2]))
    assert report.last_loss == pytest.approx(np.mean(report.curves["loss"][-2:]))


def test_long_curves_are_thinned_to_means_over_equal_stretches() -> None:
    curves = Curves(None)
    for step in range(10 * POINTS):
        curves.add({"loss": float(step)})
    thinned = curves.thinned()
    assert len(thinned["step"]) == POINTS
    assert thinned["step"][:2] == [10.0, 20.0]
    assert thinned["loss"][:2] == [4.5, 14.5]


def test_the_checkpoint_does_not_grow_with_the_steps(tmp_path: Path) -> None:
    sizes = []
    for death in (3, 18):
        with pytest.raises(KilledError):
            Trial([]).run(tmp_path / str(death), dies_at=death, watched=False)
        path = tmp_path / str(death) / "checkpoint.safetensors"
        with safe_open(path, framework="pt") as file:
            sizes.append(path.stat().st_size - len(file.metadata()["state"]))
            assert len(file.metadata()["state"]) < 400
    assert abs(sizes[0] - sizes[1]) < 64


def test_a_measure_that_is_not_a_number_is_refused_with_the_step() -> None:
    with pytest.raises(UserError, match="toy: the validation metric is NaN after step 4"):
        Trial([0.1, math.nan]).run()


def test_steps_stand_above_epochs() -> None:
    ends = np.array([30, 12, 25])
    config = SFTConfig(epochs=0.1, batch=16, steps=11)
    planned = window_batches(ends, config, window=10, seed=0)
    assert len(planned) == 11
    assert all(sum(map(len, batch)) >= 16 for batch in planned)
    long = window_batches(ends, SFTConfig(epochs=4.0, batch=16, min_steps=0), window=10, seed=0)
    assert planned == long[:11], "the same windows as passes over the data take"
    pairs = pair_batches([3, 3, 3, 3], PreferenceConfig(batch=5, epochs=1, steps=5), seed=0)
    assert pairs == pair_batches([3, 3, 3, 3], PreferenceConfig(batch=5, epochs=3), seed=0)[:5]


@pytest.mark.parametrize("stage", ["sft", "preference"])
def test_language_models_keep_their_best_weights(stage: str) -> None:
    """Of three steps, though one pass over the data has two; the second measurement during training is the best."""
    model, planted, kept = list_pairs.model(), iter([0.3, 0.2, 0.9, 0.4]), []

    def measure() -> float:
        kept.append([p.detach().clone() for p in model.network.parameters()])
        return next(planted)

    sequences, pairs = made(1, False, most=0.0)
    validation, common = Validation(measure, "high", 3), {"steps": 3, "evaluations": 3, "epochs": 1}
    rest: dict[str, Any] = {"meter": Meter(), "batch_tokens": 300, "work": Work(0), "validation": validation}
    if stage == "sft":
        limits = Limits(256, ENCODER.size, 300)
        report = train_sft(
            model,
            np.array([len(one) for one in sequences]),
            lambda windows: window_trees(PROMPTER, sequences, windows, limits=limits),
            SFTConfig(batch=24, **common),
            window=6,
            first=0,
            **rest,
        )
    else:
        config = PreferenceConfig(batch=6, **common)
        report = train_preference(model, PROMPTER, sequences, pairs, config, DPO(), **rest)
    assert (report.steps, report.best_step, [step for step, _ in report.validation]) == (3, 2, [0, 1, 2, 3])
    assert all(torch.equal(one, two) for one, two in zip(model.network.parameters(), kept[2], strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(kept[2], kept[3], strict=True))
