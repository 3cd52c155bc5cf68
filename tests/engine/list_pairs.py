"""Lists of rejected items under a small model, and the plain computation that optimizer steps are compared with: every
response in a row of its own through transformers' forward pass, the loss from its definition, its gradient by
autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from small_models import language_model, network
from torch import Tensor

from rosepo_bench.base.seeds import generator
from rosepo_bench.data.types import Examples
from rosepo_bench.engine.forest import Limits
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.prompts.examples import grouped
from rosepo_bench.engine.prompts.prompter import TEMPLATES, Prompter
from rosepo_bench.engine.prompts.tokens import train_tiny
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.engine.training.steps import Steps, TrainingPairs
from rosepo_bench.engine.training.whole_step import WholeStep
from rosepo_bench.losses.arguments import Pairs
from rosepo_bench.losses.base import Columns, Loss
from rosepo_bench.losses.compiled import CDPO, CPO, DMPO, DPO, IPO, ORPO, SDPO, IPOSum, Robust, RosePO, SimPO

TITLES = ["Iron Harbor", "Iron Harbor II", "Glass Orchard", "Quiet Ember", "Glass Harbor", "Quiet Orchard II"]
ENCODER = train_tiny([*TITLES, *TEMPLATES["movies"].words()], 320)
PROMPTER = Prompter(TEMPLATES["movies"], ENCODER, TITLES, history=6, candidates=False)
LENGTHS = np.array([len(title) for title in PROMPTER.titles])
USERS, STEPS = 4, 3
N = USERS * STEPS


def made(k: int, ragged: bool, most: float) -> tuple[list[np.ndarray], TrainingPairs]:
    """Pairs with K rejected items, in some rows fewer; ``most``: the largest ε."""
    draw = generator(1, "lists")
    sequences = [draw.integers(0, len(TITLES), size=12).astype(np.int32) for _ in range(USERS)]
    step = np.concatenate([np.sort(draw.permutation(np.arange(1, 12))[:STEPS]) for _ in range(USERS)])
    user = np.repeat(np.arange(USERS), STEPS)
    chosen = np.array([sequences[u][s] for u, s in zip(user, step, strict=True)], dtype=np.int64)
    others = np.stack([draw.permutation(np.delete(np.arange(len(TITLES)), c))[:k] for c in chosen])
    titles = np.concatenate([chosen[:, None], others], axis=1)
    if ragged:
        for row in range(N):
            titles[row, 2 + row % k :] = -1
    none = np.zeros((N, 1), np.int32)
    examples = Examples(user, step, np.maximum(0, step - 6), none, chosen, np.zeros(N, np.int64))
    reference, epsilon = draw.normal(-20, 3, size=(N, 1 + k)), draw.uniform(0, most, size=(N, k))
    partner, told = np.roll(chosen, 1), draw.normal(-22, 3, size=N)
    return sequences, TrainingPairs(examples, titles, reference, epsilon, partner, told)


def model() -> LanguageModel:
    """A small one in fp64."""
    return language_model(network("llama", torch.float64, vocab_size=ENCODER.size, max_position_embeddings=256))


def logp(model: LanguageModel, sequences: list[np.ndarray], pairs: TrainingPairs, row: int, item: int) -> Tensor:
    """Of one response, in a row of its own."""
    examples = pairs.examples
    history = sequences[examples.user[row]][examples.start[row] : examples.step[row]]
    given, said = PROMPTER.prompt(history.tolist()), PROMPTER.response(item)
    logits = model.network(torch.from_numpy(np.concatenate([given, said]).astype(np.int64))[None]).logits[0]
    rows = logits[len(given) - 1 : -1].log_softmax(-1)
    return rows.gather(1, torch.from_numpy(said.astype(np.int64))[:, None]).sum()


def rewards(
    model: LanguageModel, sequences: list[np.ndarray], pairs: TrainingPairs, loss: Loss
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of each pair: the chosen reward, the rejected ones, ε, and the chosen log-prob per token."""
    found = []
    for row in range(N):
        items = pairs.titles[row][pairs.titles[row] >= 0]
        said = torch.stack([logp(model, sequences, pairs, row, int(item)) for item in items])
        tokens, value = torch.from_numpy(LENGTHS[items]), said
        if "reference" in loss.needs:
            value = value - torch.from_numpy(pairs.reference[row, : len(items)])
        if "lengths" in loss.needs:
            value = value / tokens
        epsilon = torch.from_numpy(pairs.epsilon[row, : len(items) - 1])
        found.append((value[0], value[1:], epsilon, said[0] / tokens[0]))
    return found


def logistic(z: Tensor, epsilon: Tensor | float) -> Tensor:
    return -(1 - epsilon) * torch.sigmoid(z).log() - epsilon * torch.sigmoid(-z).log()


def categorical(w: Tensor, lost: Tensor, q: Tensor, beta: float) -> Tensor:
    scaled = beta * torch.cat([w[None], lost])
    return -(torch.cat([(1 - q.sum())[None], q]) * (scaled - scaled.exp().sum().log())).sum()


def odds(value: Tensor) -> Tensor:
    return value - (1 - value.exp()).log()


def by_definition(loss: Any, w: Tensor, lost: Tensor, epsilon: Tensor, mean: Tensor) -> Tensor:
    """The loss of one pair, written down once more."""
    kind, beta, delta = type(loss), loss.beta, w - lost.mean()
    if kind in (CDPO, RosePO, DPO, SDPO):
        if getattr(loss, "form", "mean") == "odds":
            ratio = epsilon / (1 - epsilon)
            return categorical(w, lost, ratio / (1 + ratio.sum()), beta)
        share = epsilon / len(lost) if loss.max_epsilon else torch.zeros_like(epsilon)
        return categorical(w, lost, share, beta)
    if kind is Robust:
        z = beta * delta
        both = (1 - epsilon[0]) * -torch.sigmoid(z).log() + epsilon[0] * torch.sigmoid(-z).log()
        return both / (1 - 2 * epsilon[0])
    if kind in (IPO, IPOSum):
        return (delta - 1 / (2 * beta)) ** 2
    if kind is SimPO:
        return logistic(beta * delta - loss.gamma, epsilon.mean())
    if kind is CPO:
        return logistic(beta * delta, epsilon.mean()) - loss.sft_weight * mean
    if kind is ORPO:
        return -w + beta * logistic(odds(w) - odds(lost[0]), epsilon.mean())
    assert kind is DMPO
    return logistic(beta * delta, epsilon.mean())


def taken(model: LanguageModel, sequences: list[np.ndarray], pairs: TrainingPairs, loss: Loss, budget: int) -> Any:
    """One optimizer step: what it reports, every gradient, and the columns of the whole step."""
    limits = Limits(256, ENCODER.size, budget)
    users = grouped(PROMPTER, sequences, pairs.examples, pairs.titles, limits=limits, compared=True)
    groups = [group for user in users for group in user]
    steps = Steps(model, pairs, loss, LENGTHS, budget, Meter())
    columns, memory = Columns(), {}
    if loss.of_whole_step:
        columns = WholeStep.of(steps, PROMPTER, sequences, limits, 3).columns(groups, 0, memory)
    model.network.zero_grad()
    told = steps.backward(groups, columns)
    rows = np.concatenate([group.rows(pairs.titles.shape[1]) for group in groups])
    gradients = {name: p.grad.clone() for name, p in model.network.named_parameters()}
    return told, gradients, columns, rows, memory


def plain(model: LanguageModel, mean: Tensor) -> dict[str, Tensor]:
    model.network.zero_grad()
    mean.backward()
    return {name: p.grad.clone() for name, p in model.network.named_parameters()}


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-7, atol=1e-9, msg=name)


class Mine(Loss):
    """DPO in plain torch, as another package might have it."""

    many = True
    beta: float = 0.3

    def __call__(self, pairs: Pairs) -> Tensor:
        return -torch.nn.functional.logsigmoid(pairs.beta * (pairs.chosen - pairs.rejected)).mean(1, keepdim=True)
