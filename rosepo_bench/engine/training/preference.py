"""Preference training over the forest. The loss depends on sequence log-probs alone, not on how they are packed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.seeds import generator
from rosepo_bench.base.work import Work
from rosepo_bench.data.types import Examples
from rosepo_bench.engine.forest import Batch
from rosepo_bench.engine.forest.packing import batches
from rosepo_bench.engine.model.dropout import switch_off_dropout
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.model.limits import limits_of
from rosepo_bench.engine.ops import preference_loss, raise_errors
from rosepo_bench.engine.prompts.examples import PlacedTree, grouped
from rosepo_bench.engine.prompts.prompter import Prompter
from rosepo_bench.engine.training.loop import FitReport, Schedule, fit
from rosepo_bench.engine.training.meter import Meter


@dataclass(frozen=True)
class TrainingPairs:
    """Pairs ready for training: ``examples`` are the prompts, ``titles`` their chosen and rejected items, ``reference``
    the log-probs of both under the reference model."""

    examples: Examples
    titles: Int[np.ndarray, "n 2"]
    reference: Float64[np.ndarray, "n 2"]
    epsilon: Float64[np.ndarray, " n"]


def train_preference(
    model: LanguageModel,
    prompter: Prompter,
    sequences: Sequence[Int[np.ndarray, " _"]],
    pairs: TrainingPairs,
    config: PreferenceConfig,
    *,
    meter: Meter,
    batch_tokens: int,
    work: Work,
) -> FitReport:
    """Trains ``model`` from its current weights. Each optimizer step takes the mean loss over about ``config.batch``
    pairs of many users; how they are packed into forward passes changes the result by rounding only. Unless
    ``config.dropout`` is set, dropout is switched off in ``model`` for good, as the reference was computed without."""
    if not config.dropout:
        switch_off_dropout(model.network)
    began = time.monotonic()
    limits = limits_of(model, batch_tokens)
    alone = config.trees == "prompt"
    users = grouped(prompter, sequences, pairs.examples, pairs.titles, limits=limits, compared=True, alone=alone)
    meter.preparation = time.monotonic() - began
    # By user (or pair), however many trees each has: an optimizer step's pairs do not depend on the packing.
    plan = pair_batches([sum(len(group.places) // 2 for group in user) for user in users], config, seed=work.seed)

    def backward(step: int) -> float:
        groups = [group for user in plan[step] for group in users[user]]
        loss = backward_step(model, pairs, groups, config, batch_tokens=batch_tokens, meter=meter)
        raise_errors(model.device)
        return loss

    return fit(model.network, backward, Schedule.of(config, len(plan)), work)


def backward_step(
    model: LanguageModel,
    pairs: TrainingPairs,
    groups: list[PlacedTree],
    config: PreferenceConfig,
    *,
    batch_tokens: int,
    meter: Meter,
) -> float:
    """Adds the gradient of the mean loss over all pairs of ``groups`` and returns that loss, in as many forward passes
    as the budget of ``batch_tokens`` requires."""
    total, loss = sum(len(group.places) for group in groups) // 2, 0.0
    for chosen, batch in batches([group.tree for group in groups], batch_tokens, model.device):
        rows = np.concatenate([groups[g].places for g in chosen])[::2] // 2
        loss += _backward(model, pairs, batch, rows, config, total, meter)
    meter.count(pairs=total)
    return loss


def _backward(
    model: LanguageModel,
    pairs: TrainingPairs,
    batch: Batch,
    rows: Int64[np.ndarray, " rows"],
    config: PreferenceConfig,
    total: int,
    meter: Meter,
) -> float:
    logps = model.logps(batch).view(-1, 2)
    reference = _tensor(pairs.reference[rows], logps)
    losses = preference_loss(
        logps[:, 0],
        logps[:, 1],
        reference[:, 0],
        reference[:, 1],
        epsilon=_tensor(pairs.epsilon[rows], logps),
        beta=config.beta,
        loss=config.form,
        impl=model.impl,
    )
    loss = losses.sum() / total
    loss.backward()
    meter.count(tokens=len(batch))
    return float(loss.detach())


def _tensor(values: Float64[np.ndarray, " rows *_"], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(dtype=like.dtype, device=like.device)


def pair_batches(sizes: Sequence[int], config: PreferenceConfig, *, seed: int) -> list[list[int]]:
    """The users of each optimizer step; user u has ``sizes[u]`` pairs. Shuffled per epoch; at least ``config.batch``
    pairs per step (an epoch's last step may have fewer)."""
    planned = []
    for epoch in range(config.epochs):
        current: list[int] = []
        for group in generator(seed, "pairs", "epoch", epoch).permutation(len(sizes)):
            current.append(int(group))
            if sum(sizes[g] for g in current) >= config.batch:
                planned.append(current)
                current = []
        if current:
            planned.append(current)
    return planned
