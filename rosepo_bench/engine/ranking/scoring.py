"""Log-probs of given titles, through the forest: the one path for candidate lists, pairs and references."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Int

from rosepo_bench.base import progress
from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Prompts
from rosepo_bench.engine.forest.packing import batches
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.model.limits import limits_of
from rosepo_bench.engine.prompts.examples import Histories, grouped
from rosepo_bench.engine.prompts.prompter import Prompter


def title_logps(
    model: LanguageModel,
    prompter: Prompter,
    sequences: Histories,
    examples: Prompts,
    responses: Int[np.ndarray, "n R"],
    *,
    batch_tokens: int,
    label: str,
) -> Float64[np.ndarray, "n R"]:
    """Summed log-probs of the titles ``responses`` (item indices; 0 where a row ends with -1) under the examples'
    prompts.

    Without gradient. UserError where a log-prob is not finite.
    """
    made = grouped(prompter, sequences, examples, responses, limits=limits_of(model, batch_tokens))
    groups = [group for user in made for group in user]
    result = np.where(responses < 0, 0.0, np.nan)
    done = 0
    with torch.no_grad():
        for chosen, batch in batches([group.tree for group in groups], batch_tokens, model.device):
            places = np.concatenate([groups[g].places for g in chosen])
            result.reshape(-1)[places] = model.logps(batch).double().cpu().numpy()
            done += len(chosen)
            progress.advance(label, done, len(groups))
    if not np.isfinite(result).all():
        bad = int(np.flatnonzero(~np.isfinite(result).all(axis=1))[0])
        raise UserError(
            f"{label}: the log-probs of example {bad} (user {examples.user[bad]}) are not finite; "
            "the model has diverged; lower the learning rate of its training"
        )
    return result


def title_scores(
    model: LanguageModel,
    prompter: Prompter,
    sequences: Histories,
    examples: Prompts,
    responses: Int[np.ndarray, "n R"],
    *,
    score: str,
    batch_tokens: int,
    label: str,
) -> Float64[np.ndarray, "n R"]:
    """Scores by the protocol's rule of the titles ``responses`` ``[n, R]``: the ``sum`` of a title's token log-probs,
    or their ``mean``. Whatever ranks or chooses items scores them by this; losses and their references are defined on
    sums and take :func:`title_logps`."""
    logps = title_logps(model, prompter, sequences, examples, responses, batch_tokens=batch_tokens, label=label)
    if score == "mean":
        lengths = np.array([len(title) for title in prompter.titles])
        return logps / lengths[responses]
    assert score == "sum", score
    return logps
