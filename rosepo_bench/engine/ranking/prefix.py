"""A batch of prompts that a model reads once; later tokens are read over their cached keys and values.

Rows are padded on the right. The prompts do not see padding, as attention is causal, and for later tokens it is masked:
results depend neither on padding nor on which prompts share a batch.

Shape legend: B prompts, S tokens read after them so far, F tokens to read, K of them to keep, L keys in all,
E log-probs, R rows, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ops
from rosepo_bench.engine.model import attention
from rosepo_bench.engine.model.language_model import LanguageModel


class CachedPrompts:
    """``hidden`` ``[B, d]`` are the states of the prompts' last tokens, which predict the next tokens. Attention is
    dense, whatever ``model.attention`` says, as only few queries at a time read the cache."""

    def __init__(self, model: LanguageModel, prompts: Sequence[Int[np.ndarray, " _"]]) -> None:
        from transformers import DynamicCache

        self.model = model
        self.cache: Any = DynamicCache()
        lengths = np.array([len(prompt) for prompt in prompts])
        tokens = np.zeros((len(prompts), int(lengths.max())), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = prompt
        self.lengths = torch.from_numpy(lengths).to(model.device)
        # Without a mask attention is causal.
        states = self._run(torch.from_numpy(tokens).to(model.device))
        self.hidden = states[torch.arange(len(prompts), device=model.device), self.lengths - 1]
        # The positions of the cached tokens, and which of the prompts' are tokens rather than padding.
        self.positions = torch.arange(tokens.shape[1], device=model.device).expand(tokens.shape)
        self.seen = self.positions < self.lengths[:, None]

    def extend(
        self,
        tokens: Int64[Tensor, "B F"],
        depth: Int64[Tensor, "B F"],
        sees: Bool[Tensor, "B F later"],
        *,
        keep: Int64[Tensor, "B K"] | None = None,
    ) -> Float[Tensor, "B F d"]:
        """The hidden states of ``tokens``, which see all of their prompt. ``depth``: how many tokens after it each
        stands, from 0; ``sees`` ``[B, F, S + F]``: which of the tokens after the prompt it sees.

        Only the tokens at ``keep`` (indices among the F) stay in the cache, in that order; None: all of them.
        """
        before, query = self.cache.get_seq_length(), self.lengths[:, None] + depth
        key = torch.cat([self.positions, query], dim=1)
        mask = torch.cat([self.seen[:, None].expand(-1, tokens.shape[1], -1), sees], dim=2)
        masks = attention.for_layers(
            self.model.network.config, mask.shape[2], lambda window: _windowed(mask, query, key, window)[:, None]
        )
        states = self._run(tokens, attention_mask=masks, position_ids=query)
        if keep is None:
            self.positions = key
        else:
            self._forget(before, keep)
            self.positions = torch.cat([self.positions, query.gather(1, keep)], dim=1)
        return states

    def _forget(self, before: int, keep: Int64[Tensor, "B K"]) -> None:
        """Drops from the cache all tokens after the first ``before``, except those at ``keep``."""
        rows = torch.arange(len(keep), device=keep.device)[:, None]
        for layer in self.cache.layers:
            layer.keys, layer.values = (
                torch.cat([x[:, :, :before], x[rows, :, before + keep].transpose(1, 2)], dim=2)
                for x in (layer.keys, layer.values)
            )

    def select(self, rows: Int64[Tensor, " kept"]) -> None:
        """Keeps only the prompts at ``rows``."""
        self.lengths, self.hidden = self.lengths[rows], self.hidden[rows]
        self.positions, self.seen = self.positions[rows], self.seen[rows]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]

    def _run(self, tokens: Int64[Tensor, "B F"], **arguments: Any) -> Float[Tensor, "B F d"]:
        return self.model.states(input_ids=tokens, past_key_values=self.cache, use_cache=True, **arguments)


def _windowed(
    mask: Bool[Tensor, "B F L"], query: Int64[Tensor, "B F"], key: Int64[Tensor, "B L"], window: int
) -> Bool[Tensor, "B F L"]:
    """The mask of a layer with a ``window`` (0: none), from the positions of queries and keys."""
    return mask & (query[:, :, None] - window < key[:, None, :]) if window else mask


def token_logps(
    model: LanguageModel, hidden: Float[Tensor, "R d"], row: Int64[np.ndarray, " E"], token: Int64[np.ndarray, " E"]
) -> Float64[np.ndarray, " E"]:
    """Log-probs over the whole vocabulary of ``token`` at the states ``hidden[row]``; each row of ``hidden`` goes
    through the head once. UserError where one is not finite."""
    row_of, target, own = torch.from_numpy(np.stack([row, token, np.arange(len(token))])).to(hidden.device)
    found = model.sums(hidden, target, row_of, own, len(token))
    ops.raise_errors(model.device)
    return found.double().cpu().numpy()


def prompt_batches(prompts: Sequence[Int[np.ndarray, " _"]], more: int, batch_tokens: int) -> Iterator[list[int]]:
    """Rows of prompts that are read together, shortest first: the padded prompts stay within ``batch_tokens``, and so
    do ``more`` tokens after each. A prompt is read alone where ``more`` alone exceeds it. UserError, before the first
    batch, for a prompt longer than ``batch_tokens``."""
    rows = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), row))
    if rows and len(prompts[rows[-1]]) > batch_tokens:
        raise UserError(
            f"prompt {rows[-1]} has {len(prompts[rows[-1]])} tokens, a pass takes batch_tokens = {batch_tokens}: raise "
            "it, or lower prompt.history"
        )
    while rows:
        taken = 1
        while taken < len(rows) and (taken + 1) * max(more, len(prompts[rows[taken]])) <= batch_tokens:
            taken += 1
        yield rows[:taken]
        rows = rows[taken:]


def check_prompts(model: LanguageModel, prompts: Sequence[Int[np.ndarray, " _"]], more: int) -> None:
    """Raises UserError, before any work, for an empty prompt, one after which ``more`` tokens exceed the model's
    context, and ids outside its vocabulary."""
    known = model.network.get_input_embeddings().weight.shape[0]
    for number, prompt in enumerate(prompts):
        if not len(prompt):
            raise UserError(f"prompt {number} is empty; a prompt needs at least one token")
        if len(prompt) + more > model.context:
            raise UserError(
                f"prompt {number} has {len(prompt)} tokens; with up to {more} after it that is longer than the "
                f"model's context of {model.context}: lower prompt.history or raise model.context"
            )
        if prompt.min() < 0 or prompt.max() >= known:
            raise UserError(f"prompt {number} has ids outside [0, {known}), the model's vocabulary; encode it with the "
                            "model's own tokenizer")  # fmt: skip
