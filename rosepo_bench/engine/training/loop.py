"""The training loop: AdamW under a schedule, early stopping, and checkpoints from which a killed run resumes
exactly."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from rosepo_bench.base import progress, signals
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work
from rosepo_bench.engine.training import checkpoint, diverging
from rosepo_bench.engine.training.checkpoint import Weights
from rosepo_bench.engine.training.curves import Curves, ends
from rosepo_bench.engine.training.schedule import Schedule


@dataclass(frozen=True)
class Validation:
    """``measure()`` is taken ``evaluations`` times during training, evenly spaced, and once before it; the weights with
    the best value are kept, the earliest of equal ones. With ``patience`` training stops after so many measurements in
    a row without a better one."""

    measure: Callable[[], float]
    better: str
    evaluations: int
    patience: int = 0

    def __post_init__(self) -> None:
        assert self.better in ("high", "low"), self.better
        assert self.evaluations > 0, "without a measurement nothing is validated"

    def points(self, steps: int) -> set[int]:
        """After how many optimizer steps it is measured; 0 is before the first."""
        return {round(steps * part / self.evaluations) for part in range(self.evaluations + 1)}

    def improves(self, value: float, best: float) -> bool:
        return value > best if self.better == "high" else value < best


@dataclass(frozen=True)
class FitReport:
    """Optimizer steps, done and planned; seconds of training, in total over all resumptions and in this process, but
    not those of validation; mean loss over the first and the last tenth of the steps. ``curves`` as in
    ``curves.py``. With validation: its values as [step, value], the step whose weights were kept (0: those from before
    training), and whether training stopped before its planned end."""

    steps: int
    planned_steps: int
    seconds: float
    session_seconds: float
    validation_seconds: float
    first_loss: float
    last_loss: float
    curves: dict[str, list[float]]
    validation: list[tuple[int, float]]
    best_step: int | None
    stopped_early: bool


@dataclass
class _State:
    """What a checkpoint holds besides weights and the optimizer's moments. ``memory``: values that a loss keeps from
    step to step."""

    step: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    validation: list[tuple[int, float]] = field(default_factory=list)
    best_step: int | None = None
    stopped: bool = False
    memory: dict[str, float] = field(default_factory=dict)


def fit(
    module: nn.Module,
    backward: Callable[[int], Mapping[str, float]],
    schedule: Schedule,
    work: Work,
    *,
    validation: Validation | None = None,
    memory: dict[str, float] | None = None,
) -> FitReport:
    """Trains the parameters of ``module`` that require a gradient; they must be float32 or float64.

    ``backward(step)`` accumulates the gradient of optimizer step ``step``, counted from 0, and returns named numbers of
    this step, ``loss`` among them. The data it reads must depend on ``step`` alone, so that a killed run resumes from
    ``work.checkpoint`` with the same numbers; what it keeps from step to step stands in ``memory``, which is part of
    the checkpoint. torch's global generator (dropout) is seeded with ``work.seed``; its state is part of the
    checkpoint, and measuring does not move it.

    A signal that ends the program (see ``base/signals.py``) takes effect at the end of a step or while validation
    measures, after a checkpoint.

    Raises UserError, with the step, for a loss or gradient norm that is not finite, before the optimizer uses it, for
    a validation value of NaN, for weights that are not finite at the end, and for a loss that ends above its start
    without a gradient.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    diverging.refuse_short(trained, work)
    run = _Run(module, trained, schedule, work, validation, memory)
    run.restore()
    before = run.state.seconds
    module.train()
    with signals.held():
        run.train(backward)
    module.eval()
    diverging.refuse_not_finite(trained, schedule, run.state.step - 1, work)
    diverging.refuse_stuck(run.curves, schedule, work)
    run.keep_best()
    return run.report(before)


class _Run:
    """One training while it runs."""

    def __init__(
        self,
        module: nn.Module,
        trained: dict[str, nn.Parameter],
        schedule: Schedule,
        work: Work,
        validation: Validation | None,
        memory: dict[str, float] | None,
    ) -> None:
        self.module, self.trained, self.schedule, self.work, self.validation = (
            module,
            trained,
            schedule,
            work,
            validation,
        )
        self.optimizer, self.curves = schedule.optimizer(trained), Curves(work.curves)
        self.state = _State(memory={} if memory is None else memory)
        self.best: dict[str, Tensor] = {}
        self.points = validation.points(schedule.steps) if validation else set()

    def restore(self) -> None:
        """Goes on from the checkpoint, if there is one. DamagedError, before anything is put back: it is not as it was
        written."""
        torch.manual_seed(self.work.seed)
        path = self.work.checkpoint
        if path is None or not path.exists():
            return
        facts, kept = checkpoint.read(path, self.trained)
        threads, memory = facts.pop("threads"), facts.pop("memory")
        facts["validation"] = [(int(step), float(value)) for step, value in facts["validation"]]
        state = _State(**facts, memory=self.state.memory)
        self.curves.restore(state.step)
        self.best = checkpoint.put_back(kept, self.trained, self.optimizer)
        self.state = state
        self.state.memory.update(memory)
        progress.say(f"  {self.work.label}: goes on at step {state.step} of {self.schedule.steps}")
        if threads != torch.get_num_threads():
            progress.say(
                f"  {self.work.label}: began with {threads} threads, goes on with {torch.get_num_threads()}: sums may "
                "differ in their last digits from an uninterrupted run"
            )

    def train(self, backward: Callable[[int], Mapping[str, float]]) -> None:
        """All steps that are left."""
        try:
            self.measure()
            saved = time.monotonic()
            while self.state.step < self.schedule.steps and not self.state.stopped:
                self.advance(backward)
                signals.check()
                self.measure()
                if time.monotonic() - saved >= self.work.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        except signals.Ended:
            self.save()
            raise

    def save(self) -> None:
        """Writes the checkpoint, if the training has a folder for it."""
        if self.work.checkpoint is None:
            return
        self.curves.save()
        checkpoint.save(self.work.checkpoint, self.trained, self.optimizer, asdict(self.state), self.best)

    def advance(self, backward: Callable[[int], Mapping[str, float]]) -> None:
        """One optimizer step."""
        state, began = self.state, time.monotonic()
        found = _step(backward, self.trained, self.optimizer, self.schedule, state.step, self.work)
        self.curves.add(found)
        state.step += 1
        state.seconds += time.monotonic() - began
        progress.advance(self.work.label, state.step, self.schedule.steps)

    def measure(self) -> None:
        """Takes the validation measure, if it is due after this step, and keeps the weights if it is the best."""
        state, validation = self.state, self.validation
        if validation is None or state.step not in self.points or state.step in dict(state.validation):
            return
        began = time.monotonic()
        with measuring(self.module), signals.released():
            value = float(validation.measure())
        state.validation_seconds += time.monotonic() - began
        if math.isnan(value):
            raise UserError(f"{self.work.label}: the validation metric is NaN after step {state.step}")
        best = dict(state.validation).get(-1 if state.best_step is None else state.best_step)
        state.validation.append((state.step, value))
        if best is None or validation.improves(value, best):
            state.best_step = state.step
            self.best = {name: weight.detach().cpu().clone() for name, weight in self.trained.items()}
        since = sum(step > (state.best_step or 0) for step, _ in state.validation)
        state.stopped = bool(validation.patience) and since >= validation.patience

    def keep_best(self) -> None:
        """Puts the best weights in place of the last ones."""
        if self.state.best_step not in (None, self.state.step):
            with torch.no_grad():
                for name, weight in self.trained.items():
                    weight.copy_(self.best[name])

    def report(self, before: float) -> FitReport:
        """``before``: seconds of training in earlier processes."""
        state, losses = self.state, self.curves.values("loss")
        first_loss, last_loss = ends(losses)
        return FitReport(
            steps=state.step,
            planned_steps=self.schedule.steps,
            seconds=state.seconds,
            session_seconds=state.seconds - before,
            validation_seconds=state.validation_seconds,
            first_loss=first_loss,
            last_loss=last_loss,
            curves=self.curves.thinned(),
            validation=state.validation,
            best_step=state.best_step,
            stopped_early=state.stopped and state.step < self.schedule.steps,
        )


@contextlib.contextmanager
def measuring(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradient, after which mode and random state are as before."""
    training, state = module.training, torch.get_rng_state()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)


def _step(
    backward: Callable[[int], Mapping[str, float]],
    trained: Weights,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    step: int,
    work: Work,
) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(step)
    optimizer.zero_grad(set_to_none=True)
    try:
        found = dict(backward(step))
    except UserError as error:  # an operator met a value before the loss could show it
        said = diverging.said(schedule, step, work) if "finite" in str(error) else f"at step {step} of {schedule.steps}"
        raise UserError(f"{work.label}: {error}, {said}") from error
    norm = float(torch.nn.utils.clip_grad_norm_(trained.values(), schedule.clip))
    for name, value in (("loss", found["loss"]), ("gradient norm", norm)):
        if not math.isfinite(value):
            raise UserError(f"{work.label}: the {name} is {value} {diverging.said(schedule, step, work)}")
    optimizer.step()
    return {**found, "lr": schedule.rate(step), "gradient_norm": norm}
