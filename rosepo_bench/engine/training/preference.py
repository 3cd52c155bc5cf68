"""Preference training over the forest. The loss depends on sequence log-probs alone, not on how they are packed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.base.work import Work
from rosepo_bench.engine.model.dropout import has_dropout, switch_off_dropout
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.model.limits import limits_of
from rosepo_bench.engine.ops import raise_errors
from rosepo_bench.engine.prompts.examples import Histories, PlacedTree, grouped
from rosepo_bench.engine.prompts.prompter import Prompter
from rosepo_bench.engine.training.loop import FitReport, Schedule, Validation, fit
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.engine.training.steps import Steps, TrainingPairs
from rosepo_bench.engine.training.whole_step import WholeStep
from rosepo_bench.losses.base import Columns, Loss


def train_preference(
    model: LanguageModel,
    prompter: Prompter,
    sequences: Histories,
    pairs: TrainingPairs,
    config: PreferenceConfig,
    loss: Loss,
    *,
    meter: Meter,
    batch_tokens: int,
    work: Work,
    validation: Validation | None = None,
) -> FitReport:
    """Trains ``model`` from its current weights. Each optimizer step takes the mean loss over about ``config.batch``
    pairs of many users; how they are packed into forward passes changes the result by rounding only. Unless
    ``config.dropout`` is set, dropout is switched off in ``model`` for good, as the reference was computed without."""
    pairs.check(loss)
    if not config.dropout:
        switch_off_dropout(model.network)
    elif loss.of_whole_step and has_dropout(model.network):
        raise UserError(f"loss {loss.label()!r} looks at a whole step without dropout; set preference.dropout = false")
    began = time.monotonic()
    limits, alone = limits_of(model, batch_tokens), config.trees == "prompt"
    users = grouped(prompter, sequences, pairs.examples, pairs.titles, limits=limits, compared=True, alone=alone)
    lengths = np.array([len(title) for title in prompter.titles], dtype=np.int64)
    steps = Steps(model, pairs, loss, lengths, batch_tokens, meter)
    whole = None
    if loss.of_whole_step:
        whole = WholeStep.of(steps, prompter, sequences, limits, work.seed, alone=alone)
    meter.preparation = time.monotonic() - began
    plan, memory = planned_batches(users, config, seed=work.seed), dict[str, float]()

    def backward(step: int) -> dict[str, float]:
        groups = [group for user in plan[step] for group in users[user]]
        columns = whole.columns(groups, step, memory) if whole else Columns()
        found = steps.backward(groups, columns)
        raise_errors(model.device)
        return found

    schedule = Schedule.of(config, len(plan))
    report = fit(model.network, backward, schedule, work, validation=validation, memory=memory)
    meter.pairs_seen = sum(group.examples for step in plan[: report.steps] for user in step for group in users[user])
    return report


def planned_batches(users: Sequence[Sequence[PlacedTree]], config: PreferenceConfig, *, seed: int) -> list[list[int]]:
    """The users of each optimizer step. By user (or pair), however many trees each has: a step's pairs do not depend on
    the packing."""
    return pair_batches([sum(group.examples for group in user) for user in users], config, seed=seed)


def pair_batches(sizes: Sequence[int], config: PreferenceConfig, *, seed: int) -> list[list[int]]:
    """The users of each optimizer step; user u has ``sizes[u]`` pairs. Shuffled per epoch; at least ``config.batch``
    pairs per step (an epoch's last step may have fewer). As many steps as ``config.steps``, or, where that is 0, as
    ``config.epochs`` take."""
    planned: list[list[int]] = []
    epoch = 0
    while len(planned) < config.steps if config.steps else epoch < config.epochs:
        current: list[int] = []
        for group in generator(seed, "pairs", "epoch", epoch).permutation(len(sizes)):
            current.append(int(group))
            if sum(sizes[g] for g in current) >= config.batch:
                planned.append(current)
                current = []
        if current:
            planned.append(current)
        epoch += 1
    return planned[: config.steps] if config.steps else planned
