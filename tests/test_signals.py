"""Signals that end the program: when they take effect, and what a training keeps."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rosepo_bench.base import lease, signals
from rosepo_bench.base.work import Work
from rosepo_bench.engine.training.loop import FitReport, Schedule, Validation, fit

SCHEDULE = Schedule(steps=20, lr=1e-2, warmup=0.1)


@contextlib.contextmanager
def ended() -> Iterator[list[str]]:
    """The signals are caught, and the block ends by one. Yields a list for what was done."""
    with pytest.raises(signals.Ended), signals.caught():
        yield []


@pytest.mark.parametrize("number", signals.ENDING)
def test_a_signal_ends_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with ended() as done:
        signal.raise_signal(number)
        done.append("never")
    assert not done
    assert signals.arrived() == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", signals.ENDING)
def test_a_signal_waits_for_the_end_of_a_held_block(number: signal.Signals) -> None:
    with ended() as done:
        with signals.held():
            with signals.held():
                signal.raise_signal(number)
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert done == ["inner", "outer"]


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_released_part_of_a_held_block_ends_at_once(when: str) -> None:
    with ended() as done, signals.held():
        try:
            if when == "before":
                signal.raise_signal(signal.SIGTERM)
                done.append("held")
            with signals.released():
                if when == "before":
                    done.append("never")
                signal.raise_signal(signal.SIGTERM)
                done.append("never")
        finally:
            done.append("tidied up")
    assert done == (["held", "tidied up"] if when == "before" else ["tidied up"])


def test_a_signal_that_comes_where_python_drops_what_is_raised_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    class Tidy:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    with ended() as done:
        Tidy()
        for _ in range(500):
            time.sleep(0.01)
        done.append("never")
    assert not done
    assert capsys.readouterr().err == ""


def test_ended_is_raised_once_and_not_by_what_tidies_up_or_comes_later() -> None:
    with ended() as done:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            with signals.held():
                done.append("tidying")
            done.append("tidied up")
    assert done == ["tidying", "tidied up"]
    with signals.held():
        pass
    signals.check()
    assert signals.arrived() == signal.SIGTERM


def test_another_thread_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    found: list[bool] = []

    def inside() -> None:
        with signals.caught():
            found.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [True]


@pytest.mark.parametrize("place", ["_create", "attempt", "release"])
def test_a_signal_while_a_lease_is_taken_or_given_back_leaves_no_file(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of these: the file is there, or is about to go."""
    path = tmp_path / "one"
    original = lease._same if place == "release" else getattr(lease.Lease, place)

    def struck(*given: Any) -> Any:
        found = original(*given)
        signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr(*((lease, "_same") if place == "release" else (lease.Lease, place)), struck)
    with ended() as done, lease.Lease(path, "this"):
        done.append("held")
    assert done == (["held"] if place == "release" else [])
    assert not path.exists()


def test_a_wait_for_a_lease_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / "one"
    with lease.Lease(path, "this"):
        threading.Timer(0.3, signal.raise_signal, (signal.SIGTERM,)).start()
        began = time.monotonic()
        with ended(), lease.Lease(path, "this"):
            pass
        assert time.monotonic() - began < 5
        assert path.exists(), "the other's"


class Trial:
    """A training that receives a signal: in the middle of the steps ``at``, and in the measurements ``within``."""

    def __init__(self, at: tuple[int, ...] = (), within: tuple[int, ...] = ()) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.Tanh(), nn.Linear(16, 1))
        self.at, self.within, self.measured = at, within, 0
        self.steps: list[int] = []

    def backward(self, step: int) -> dict[str, float]:
        self.steps.append(step)
        x = torch.randn(32, 6, generator=torch.Generator().manual_seed(step))
        loss = (self.model(x)[:, 0] - x.sum(1).sin()).square().mean()
        if step in self.at:
            signal.raise_signal(signal.SIGTERM)
        loss.backward()
        return {"loss": float(loss.detach())}

    def measure(self) -> float:
        torch.randn(7)  # draws that training must not feel
        self.measured += 1
        if self.measured - 1 in self.within:
            signal.raise_signal(signal.SIGTERM)
        return float(self.model(torch.ones(1, 6)))

    def fit(self, folder: Path | None) -> FitReport:
        """No checkpoint is due before the end."""
        validation = Validation(self.measure, "high", evaluations=4)
        with signals.caught():
            return fit(self.model, self.backward, SCHEDULE, Work(3, "toy", folder), validation=validation)


@pytest.mark.parametrize(
    ("at", "within", "steps"),
    [
        ((), (0,), [0]),  # before the first step
        ((0,), (), [1]),
        ((7,), (), [8]),
        ((), (2,), [10]),  # after step 10 it is measured for the third time
        ((19,), (), [20]),
        ((3, 12), (), [4, 13]),
    ],
)
def test_a_training_ends_after_its_step_with_a_checkpoint_and_goes_on_exactly(
    at: tuple[int, ...], within: tuple[int, ...], steps: list[int], tmp_path: Path
) -> None:
    straight = Trial()
    whole = straight.fit(None)
    for number, step in enumerate(steps):
        with pytest.raises(signals.Ended):
            Trial(at[number : number + 1], within).fit(tmp_path)
        again = Trial()
        resumed = again.fit(shutil.copytree(tmp_path, tmp_path / f"copy{number}"))
        assert again.steps == list(range(step, SCHEDULE.steps))
    for one, two in zip(straight.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert (resumed.curves, resumed.validation, resumed.best_step) == (whole.curves, whole.validation, whole.best_step)


def test_without_a_folder_a_training_just_ends() -> None:
    with pytest.raises(signals.Ended):
        Trial(at=(7,)).fit(None)


def test_an_interrupt_that_is_no_caught_signal_keeps_nothing(tmp_path: Path) -> None:
    """It may come in the middle of a step: in a notebook, say."""
    trial = Trial()

    def backward(step: int) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(trial.model, backward, SCHEDULE, Work(3, "toy", tmp_path))
    assert list(tmp_path.iterdir()) == []
