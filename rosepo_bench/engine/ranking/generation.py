"""Greedy free text after prompts: one title each, up to its end token.

Shape legend: R states, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from rosepo_bench.base import progress
from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.prompts.prompter import Prompter
from rosepo_bench.engine.ranking.prefix import CachedPrompts, check_prompts, prompt_batches

# Rows of logits held at a time.
ROWS = 64


@dataclass(frozen=True)
class Generated:
    """What a model wrote after one prompt, ``tokens`` without the end token. ``finished``: the end token came; if not,
    the limit cut the text, which is then no title."""

    tokens: Int64[np.ndarray, " length"]
    finished: bool

    def title(self, model: LanguageModel) -> str | None:
        """The text as written; None where it is unfinished."""
        return model.encoder.decode(self.tokens.tolist()) if self.finished else None


def generate(
    model: LanguageModel,
    prompter: Prompter,
    prompts: Sequence[Int[np.ndarray, " _"]],
    *,
    limit: int,
    batch_tokens: int,
    label: str,
) -> list[Generated]:
    """Greedy decoding after each prompt until the end token or ``limit`` tokens (the end token counts).

    Without gradient. The text does not depend on the other prompts, except where logits are equal within rounding.
    UserError, before any work, for a limit that would cut a title of the catalogue or exceed the context.
    """
    longest = max(len(title) for title in prompter.titles)
    if limit < longest:
        raise UserError(
            f"limit = {limit} tokens would cut titles, the longest has {longest} with its end token; raise the limit"
        )
    check_prompts(model, prompts, limit)
    result = [Generated(np.zeros(0, dtype=np.int64), False)] * len(prompts)
    done = 0
    for rows in prompt_batches(prompts, limit, batch_tokens):
        for row, found in zip(rows, _written(model, [prompts[row] for row in rows], limit), strict=True):
            result[row] = found
        done += len(rows)
        progress.advance(label, done, len(prompts))
    return result


@torch.no_grad()
def _written(model: LanguageModel, prompts: Sequence[Int[np.ndarray, " _"]], limit: int) -> list[Generated]:
    cached, end = CachedPrompts(model, prompts), model.encoder.end
    tokens = np.full((len(prompts), limit), end)
    finished, open_rows, states = np.zeros(len(prompts), dtype=bool), np.arange(len(prompts)), cached.hidden
    for place in range(limit):
        best = _most_likely(model, states)
        tokens[open_rows, place] = best.cpu().numpy()
        finished[open_rows] = tokens[open_rows, place] == end
        if finished.all() or place == limit - 1:
            break
        still = np.flatnonzero(~finished[open_rows])
        open_rows, chosen = open_rows[still], torch.from_numpy(still).to(model.device)
        cached.select(chosen)
        sees = torch.ones(len(still), 1, place + 1, dtype=torch.bool, device=model.device)
        depth = torch.full((len(still), 1), place, device=model.device)
        states = cached.extend(best[chosen][:, None], depth, sees)[:, 0]
    return [Generated(row[row != end], bool(ended)) for row, ended in zip(tokens, finished, strict=True)]


def _most_likely(model: LanguageModel, hidden: Float[Tensor, "R d"]) -> Int64[Tensor, " R"]:
    """The token of the highest logit at each state. UserError where logits are not finite."""
    found = []
    for part in hidden.split(ROWS):
        top = model.logits(part).max(dim=-1)
        if not bool(top.values.isfinite().all()):
            raise UserError("logits are not finite: the model has diverged; lower the learning rate of its training")
        found.append(top.indices)
    return torch.cat(found)
