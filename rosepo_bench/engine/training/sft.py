"""SFT: every step of a training window is a response, and one pass over the window's tree computes them all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from rosepo_bench.base.config import SFTConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work
from rosepo_bench.engine.forest import Tree
from rosepo_bench.engine.forest.packing import batches
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.ops import raise_errors
from rosepo_bench.engine.prompts.examples import Window, sft_windows
from rosepo_bench.engine.training.loop import FitReport, Schedule, Validation, fit
from rosepo_bench.engine.training.meter import Meter


def train_sft(
    model: LanguageModel,
    train_end: Int64[np.ndarray, " users"],
    trees_of: Callable[[list[Window]], list[Tree]],
    config: SFTConfig,
    *,
    window: int,
    first: int,
    meter: Meter,
    batch_tokens: int,
    work: Work,
    validation: Validation | None = None,
) -> FitReport:
    """Trains ``model`` on the training steps ``[first, train_end[u])`` of all users, cut into windows of ``window``
    items whose trees ``trees_of`` builds. The loss is the mean over the tokens of an optimizer step's responses.
    Dropout is on, where the model has any."""
    plan = window_batches(train_end, config, window=window, first=first, seed=work.seed)

    def backward(step: int) -> dict[str, float]:
        trees = trees_of(plan[step])
        tokens = sum(len(tree.target) for tree in trees)
        loss = 0.0
        for _, batch in batches(trees, batch_tokens, model.device):
            nll = -model.logps(batch).sum() / tokens
            nll.backward()
            loss += float(nll.detach())
            meter.count(tokens=len(batch))
        raise_errors(model.device)
        return {"loss": loss}

    return fit(model.network, backward, Schedule.of(config, len(plan)), work, validation=validation)


def window_batches(
    train_end: Int64[np.ndarray, " users"], config: SFTConfig, *, window: int, first: int = 0, seed: int
) -> list[list[Window]]:
    """Windows of each optimizer step, with at least ``config.batch`` responses, until there are ``config.steps`` of
    them, or, where that is 0, until all training steps were seen ``config.epochs`` times and there are
    ``config.min_steps`` of them."""
    responses = int(np.maximum(train_end - first, 0).sum())
    wanted = config.steps * config.batch * responses if config.steps else round(config.epochs * responses)
    if not wanted:
        raise UserError(f"sft.epochs = {config.epochs} of {responses} training steps is less than one; raise it")
    planned: list[list[Window]] = []
    current: list[Window] = []
    seen, epoch = 0, 0
    while seen < wanted or len(planned) < config.min_steps:
        for candidate in sft_windows(train_end, window, first=first, seed=seed, epoch=epoch):
            current.append(candidate)
            seen += len(candidate)
            if sum(map(len, current)) >= config.batch:
                planned.append(current)
                current = []
            if len(planned) == config.steps > 0:
                return planned
            if seen >= wanted and len(planned) >= config.min_steps:
                break
        epoch += 1
    return [*planned, current] if current else planned
