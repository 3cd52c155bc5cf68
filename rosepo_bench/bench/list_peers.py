"""The contestants on lists: ours, the same engine with one tree per prompt, and what others do, each response apart.

All get the same token ids and reference log-probs and must give the same numbers. Every call includes making its trees,
rows, masks and tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from rosepo_bench.base.config import RunConfig, ScoringConfig
from rosepo_bench.bench import trl_peer
from rosepo_bench.bench.head import BETA
from rosepo_bench.bench.job import Job
from rosepo_bench.bench.lists import Lists, Tokens
from rosepo_bench.bench.peer import OURS, Peer
from rosepo_bench.bench.timer import Call
from rosepo_bench.engine.forest import Limits, Tree, build_all
from rosepo_bench.engine.forest.packing import batches
from rosepo_bench.engine.model.forest_model import ForestModel
from rosepo_bench.engine.model.limits import limits_of
from rosepo_bench.engine.ops import preference_loss
from rosepo_bench.engine.prompts.examples import by_user

BUDGET = {
    "train": RunConfig.model_fields["batch_tokens"].default,
    "score": ScoringConfig.model_fields["batch_tokens"].default,
}
"""Tokens of one of our passes, as in runs."""

Passes = Iterator[tuple[Any, Tensor, Tensor | None]]


def _forest(by_owner: bool) -> Callable[[Job, str], Call]:
    def prepare(job: Job, mode: str) -> Call:
        model = ForestModel(job.network)
        limits = limits_of(model, BUDGET[mode])

        def passes() -> Passes:
            trees, places = forest(job.lists, limits, by_owner=by_owner, together=mode == "train")
            for chosen, batch in batches(trees, BUDGET[mode], model.device):
                place = torch.from_numpy(np.concatenate([places[t] for t in chosen])).to(model.device)
                values = model.logps(batch)
                yield place, values, _loss(job, values, place) if mode == "train" else None

        return job.call(mode, passes)

    return prepare


def forest(
    lists: Lists, limits: Limits, *, by_owner: bool, together: bool
) -> tuple[list[Tree], list[Int64[np.ndarray, " _"]]]:
    """Trees, one per user or one per prompt, and the indices of their sequences; ``together`` keeps a list in one
    tree."""
    width = lists.reference.shape[1]
    groups = by_user(lists.owner) if by_owner else [np.array([row]) for row in range(len(lists.prompts))]
    pairs = [[(lists.prompts[row], one) for row in rows for one in lists.responses[row]] for rows in groups]
    made = build_all(pairs, limits, unit=width if together else 1, distinct=together)
    places = []
    for rows, trees in zip(groups, made, strict=True):
        place = (rows[:, None] * width + np.arange(width)).ravel()
        places += np.split(place, np.cumsum([tree.sequences for tree in trees])[:-1])
    return [tree for trees in made for tree in trees], places


def _loss(job: Job, values: Tensor, place: Tensor) -> Tensor:
    width = job.size.responses
    policy, reference = values.view(-1, width), job.reference.view(-1)[place].view(-1, width)
    rejected, loss = (1, "dpo") if width == 2 else (slice(1, None), "sdpo")
    losses = preference_loss(
        policy[:, 0], policy[:, rejected], reference[:, 0], reference[:, rejected], beta=BETA, loss=loss
    )
    return losses.sum() / job.size.prompts


def separate(lists_a_pass: int) -> Callable[[Job, str], Call]:
    """Each response after its own copy of the prompt, the head only on rows that predict responses; ``lists_a_pass``
    lists per pass (0: all)."""

    def prepare(job: Job, mode: str) -> Call:
        def values(part: Rows) -> Tensor:
            hidden = job.network.base_model(input_ids=part.tokens, use_cache=False).last_hidden_state
            rows = hidden.flatten(0, 1)[part.rows]
            return part.sums(token_logps(job.network.get_output_embeddings()(rows), part.targets))

        return job.call(mode, _in_parts(job, mode, lists_a_pass, values))

    return prepare


def full_logits(lists_a_pass: int) -> Callable[[Job, str], Call]:
    """As ``separate``, with the logits of every position."""

    def prepare(job: Job, mode: str) -> Call:
        def values(part: Rows) -> Tensor:
            logits = job.network(input_ids=part.tokens, attention_mask=part.real, use_cache=False).logits
            logps = functional.log_softmax(_wide(logits), -1)
            labels = torch.zeros_like(part.tokens).view(-1).index_copy(0, part.rows, part.targets)
            every = logps.gather(-1, labels.view(part.tokens.shape)[:, :, None]).flatten()
            return part.sums(every[part.rows])

        return job.call(mode, _in_parts(job, mode, lists_a_pass, values))

    return prepare


def _in_parts(job: Job, mode: str, lists_a_pass: int, values: Callable[[Rows], Tensor]) -> Callable[[], Passes]:
    width, count = job.size.responses, job.size.prompts

    def passes() -> Passes:
        for start in range(0, count, lists_a_pass or count):
            places = slice(start, min(count, start + (lists_a_pass or count)))
            flat = slice(places.start * width, places.stop * width)
            logps = values(Rows(job.lists.sequences[flat], job.size.device))
            loss = job.losses(logps.view(-1, width), places).sum() / count if mode == "train" else None
            yield flat, logps, loss

    return passes


class Rows:
    """Sequences as padded rows: ``tokens`` and ``real`` ``[S, T]``, without last tokens, which predict nothing; for
    each response token its id, in ``targets``, and in ``rows`` the flat position that predicts it."""

    def __init__(self, sequences: list[tuple[Tokens, Tokens]], device: str) -> None:
        self.count = len(sequences)
        lengths = [len(prompt) + len(response) - 1 for prompt, response in sequences]
        tokens, real = np.zeros((self.count, max(lengths)), np.int64), np.zeros((self.count, max(lengths)), np.int64)
        for row, (prompt, response) in enumerate(sequences):
            tokens[row, : lengths[row]] = np.concatenate([prompt, response[:-1]])
            real[row, : lengths[row]] = 1
        starts = [row * max(lengths) + len(prompt) - 1 for row, (prompt, _) in enumerate(sequences)]
        rows = [np.arange(start, start + len(one)) for start, (_, one) in zip(starts, sequences, strict=True)]
        owner = np.repeat(np.arange(self.count), [len(response) for _, response in sequences])
        targets = np.concatenate([response for _, response in sequences]).astype(np.int64)
        arrays = (tokens, real, np.concatenate(rows), targets, owner)
        self.tokens, self.real, self.rows, self.targets, self.owner = (torch.from_numpy(x).to(device) for x in arrays)

    def sums(self, token: Float[Tensor, " tokens"]) -> Float[Tensor, " S"]:
        return token.new_zeros(self.count).index_add(0, self.owner, token)


def token_logps(logits: Float[Tensor, "rows V"], targets: Int64[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """The log-prob of each row's target."""
    return functional.log_softmax(_wide(logits), -1).gather(1, targets[:, None])[:, 0]


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _cached(prompts_a_pass: int) -> Callable[[Job, str], Call]:
    """Each prompt once through the model, its cache copied for each response; ``prompts_a_pass`` per pass (0: all)."""

    def prepare(job: Job, mode: str) -> Call:
        assert mode == "score", "a cache gives no gradient"
        width, count = job.size.responses, job.size.prompts

        def passes() -> Passes:
            for start in range(0, count, prompts_a_pass or count):
                stop = min(count, start + (prompts_a_pass or count))
                yield slice(start * width, stop * width), _over_a_cache(job, start, stop), None

        return job.call(mode, passes)

    return prepare


def _over_a_cache(job: Job, start: int, stop: int) -> Tensor:
    """Log-probs of the responses to the prompts ``start`` to ``stop``, which are padded on the left."""
    width, device, head = job.size.responses, job.size.device, job.network.get_output_embeddings()
    prompts = job.lists.prompts[start:stop]
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    places = torch.arange(int(lengths.max()), device=device) - (lengths.max() - lengths)[:, None]
    tokens = torch.zeros_like(places)
    tokens[places >= 0] = torch.from_numpy(np.concatenate(prompts).astype(np.int64)).to(device)
    real = (places >= 0).long()
    made = job.network.base_model(
        input_ids=tokens, attention_mask=real, position_ids=places.clamp(min=0), use_cache=True
    )
    first = head(made.last_hidden_state[:, -1]).repeat_interleave(width, 0)
    cache = made.past_key_values
    cache.batch_repeat_interleave(width)
    # A response's first token is predicted by its prompt; the rest are rows with that token as their prompt.
    responses = [one for some in job.lists.responses[start:stop] for one in some]
    rows = Rows([(one[:1], one[1:]) for one in responses], device)
    after = torch.arange(rows.tokens.shape[1], device=device) + lengths.repeat_interleave(width)[:, None]
    hidden = job.network.base_model(
        input_ids=rows.tokens,
        attention_mask=torch.cat([real.repeat_interleave(width, 0), rows.real], 1),
        position_ids=after,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    begun = torch.tensor([int(one[0]) for one in responses], device=device)
    rest = rows.sums(token_logps(head(hidden.flatten(0, 1)[rows.rows]), rows.targets))
    return rest + token_logps(first, begun)


A_PROMPT, SEPARATE = "one tree a prompt", "separate rows"
CACHED, CACHED_ALL = "KV cache", "KV cache in one batch"
FULL, REPEATED, TRL, TRL_KEPT = "full logits", "S-DPO step", "trl", "trl without checkpointing"
_TRAINER = "DPOTrainer.training_step on its collator's batch, precomputed reference log-probs, no autocast on fp32"
_TRAINER_IN = ("trl", "trl.trainer.dpo_trainer")
_ROWS = "a padded row a response"
_CACHE = "forward with a cache, batch_repeat_interleave, forward of the padded responses, head on response rows"

LIST_PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(OURS, "forest: build, pack, collate, logps, preference_loss", _forest(True), OURS, OURS),
        Peer(A_PROMPT, "the same with one tree a prompt", _forest(False), OURS, OURS),
        Peer(SEPARATE, f"{_ROWS}, one batch, linear and log_softmax on response rows", separate(0)),
        Peer(FULL, f"{_ROWS}, one batch, logits and log_softmax of all positions", full_logits(0)),
        Peer(REPEATED, f"{_ROWS}, a list a pass, logits and log_softmax of all positions", full_logits(1)),
        Peer(CACHED, f"prompt by prompt: {_CACHE}", _cached(1)),
        Peer(CACHED_ALL, f"all prompts at once, padded: {_CACHE}", _cached(0)),
        Peer(TRL, f"{_TRAINER}, gradient checkpointing (the default)", trl_peer.prepare(True), *_TRAINER_IN),
        Peer(TRL_KEPT, f"{_TRAINER}, no gradient checkpointing", trl_peer.prepare(False), *_TRAINER_IN),
    )
}
