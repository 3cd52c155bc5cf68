"""SASRec (Kang and McAuley, arXiv 1808.09781): a small causal transformer over item ids.

Two deliberate differences from the paper. The loss is the full softmax cross-entropy over the catalogue, so that a
score is log p(item | history) up to a constant per history, as the preference oracle needs. And windows start at
position 0 and are padded on the right, so that causal attention alone keeps padding out of every real position.

Item indices are 0-based outside this module and 1-based inside it, where 0 is padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int, Int64
from torch import Tensor, nn

from rosepo_bench.base.component import setting
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.base.work import Work
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import HoldoutView, TrainView
from rosepo_bench.recommenders.base import State, TrainedOracle

SCORING_TOKENS = 16384


class SASRec(TrainedOracle):
    """SASRec as a component: the settings of the network and of its training."""

    name = "sasrec"
    about = "self-attention over item ids, full softmax over the catalogue"
    paper = "arXiv 1808.09781"

    hidden: int = setting(64, ge=8, about="width")
    layers: int = setting(2, ge=1, about="number of blocks")
    heads: int = setting(2, ge=1, about="attention heads")
    dropout: float = setting(0.2, ge=0, lt=1, about="dropout of embeddings, attention and feed-forward")
    length: int = setting(50, ge=2, about="longest history, in items")

    def check(self) -> None:
        super().check()
        if self.hidden % self.heads:
            raise UserError(f"sasrec.hidden = {self.hidden} must be a multiple of heads = {self.heads}")

    def fit(self, view: TrainView, work: Work, holdout: HoldoutView | None) -> State:
        network = train(view.sequences, view.items, self, work, holdout)
        return {name: tensor.numpy() for name, tensor in network.state_dict().items()}

    def scores(self, state: State, queries: Queries, items: Int[np.ndarray, "n R"]) -> Float32[np.ndarray, "n R"]:
        """log p(item | history) up to a constant per row."""
        return scores(self.network(state), queries.histories, items)

    def network(self, state: State) -> Network:
        """The network that ``fit`` trained."""
        network = Network(len(state["bias"]), self)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        return network.eval()


class Block(nn.Module):
    """Self-attention and a point-wise feed-forward net, each with layer norm and residual connection (section 3.2)."""

    def __init__(self, config: SASRec) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.attention_norm = nn.LayerNorm(config.hidden)
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.out = nn.Linear(config.hidden, config.hidden)
        self.forward_norm = nn.LayerNorm(config.hidden)
        self.up = nn.Linear(config.hidden, config.hidden)
        self.down = nn.Linear(config.hidden, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, D]`` to ``[B, T, D]``; position t attends to positions up to t."""
        rate = self.dropout if self.training else 0.0
        batch, length, hidden = x.shape
        heads = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], dropout_p=rate, is_causal=True)
        x = x + F.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, hidden)), rate, self.training)
        return x + F.dropout(self.down(F.relu(self.up(self.forward_norm(x)))), rate, self.training)


class Network(nn.Module):
    """From histories of 1-based item ids to hidden states; ``logits`` turns these into scores of all items."""

    def __init__(self, items: int, config: SASRec) -> None:
        super().__init__()
        self.items, self.config = items, config
        self.item = nn.Embedding(items + 1, config.hidden, padding_idx=0)
        self.position = nn.Embedding(config.length, config.hidden)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden)
        self.bias = nn.Parameter(torch.zeros(items))
        nn.init.normal_(self.item.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """From ``ids`` int64 ``[B, T]``, padded with 0 on the right, to hidden states ``[B, T, D]``, meaningless at
        padding."""
        x = self.item(ids) * math.sqrt(self.config.hidden) + self.position.weight[: ids.shape[1]]
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """``[N, D]`` to ``[N, items]``: the head is the item embedding (tied, as in the paper) with a bias per item."""
        return F.linear(hidden, self.item.weight[1:], self.bias)


def windows(sequences: Sequence[Int[np.ndarray, " _"]], length: int) -> list[Int[np.ndarray, " _"]]:
    """Training windows of at most ``length`` + 1 items. Adjacent windows share one item, so every item but a user's
    first is predicted exactly once. Only a user's earliest window may be shorter."""
    cut: list[Int[np.ndarray, " _"]] = []
    for sequence in sequences:
        for end in range(len(sequence), 1, -length):
            cut.append(sequence[max(0, end - length - 1) : end])
    return cut


def epoch_batches(
    lengths: Int64[np.ndarray, " windows"], batch: int, seed: int, epoch: int
) -> list[Int64[np.ndarray, " _"]]:
    """Indices of the windows of each step of one epoch. Windows of similar length are batched together, to limit
    padding; the draw and the order depend on ``seed`` and ``epoch`` alone."""
    draw = generator(seed, "sasrec", "epoch", epoch)
    shuffled = draw.permutation(len(lengths))
    ordered = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    steps = [ordered[start : start + batch] for start in range(0, len(ordered), batch)]
    return [steps[index] for index in draw.permutation(len(steps))]


def pad(histories: Sequence[Int[np.ndarray, " _"]]) -> Tensor:
    """int64 ``[n, longest]`` of 1-based ids, 0 on the right."""
    ids = np.zeros((len(histories), max(len(history) for history in histories)), dtype=np.int64)
    for row, history in enumerate(histories):
        ids[row, : len(history)] = np.asarray(history) + 1
    return torch.from_numpy(ids)


def window_loss(model: Network, ids: Tensor) -> Tensor:
    """Mean cross-entropy over the next items of right-padded windows ``ids`` ``[B, T + 1]``."""
    targets = ids[:, 1:]
    real = targets > 0
    return F.cross_entropy(model.logits(model(ids[:, :-1])[real]), targets[real] - 1)


def _backward(
    model: Network, cut: list[Int[np.ndarray, " _"]], batch: int, seed: int
) -> Callable[[int], dict[str, float]]:
    """Step k's loss and gradient, a pure function of (seed, k): a resumed run takes the windows in the same order."""
    lengths = np.array([len(window) for window in cut])
    per_epoch = -(-len(cut) // batch)
    order: dict[int, list[Int64[np.ndarray, " _"]]] = {}

    def backward(step: int) -> dict[str, float]:
        epoch, place = divmod(step, per_epoch)
        if epoch not in order:
            order.clear()
            order[epoch] = epoch_batches(lengths, batch, seed, epoch)
        loss = window_loss(model, pad([cut[index] for index in order[epoch][place]]))
        loss.backward()
        return {"loss": float(loss.detach())}

    return backward


def train(
    sequences: Sequence[Int[np.ndarray, " _"]],
    items: int,
    config: SASRec,
    work: Work,
    holdout: HoldoutView | None = None,
) -> Network:
    """Trains on the training parts of the users' histories (0-based items); with ``holdout`` the weights are kept that
    rank its candidates best. Raises UserError if no history has two items, and if training diverges."""
    from rosepo_bench.engine.training.loop import Schedule, Validation, fit

    cut = windows(sequences, config.length)
    if not cut:
        raise UserError(f"{work.label}: no training history has two items; lower dataset.core or give more data")
    with torch.random.fork_rng(devices=[]):  # layers draw their initial weights from the global generator
        torch.manual_seed(derive(work.seed, "sasrec", "weights"))
        model = Network(items, config)
    validation = None
    if holdout is not None and config.evaluations:
        histories, listed = holdout.queries.histories, holdout.queries.candidates
        validation = Validation(
            lambda: holdout.measure(scores(model, histories, listed)),
            holdout.better,
            config.evaluations,
            config.patience,
        )
    steps = config.steps or config.epochs * -(-len(cut) // config.batch)
    backward, schedule = _backward(model, cut, config.batch, work.seed), Schedule.of(config, steps)
    own = replace(work, seed=derive(work.seed, "sasrec", "dropout"))
    fit(model, backward, schedule, own, validation=validation)
    return model.eval()


@torch.inference_mode()
def catalogue_scores(model: Network, histories: Sequence[Int[np.ndarray, " _"]]) -> Float32[np.ndarray, "n items"]:
    """Scores of all items: log p(item | history) up to a constant per row. A history must not be empty; only its last
    ``config.length`` items are read."""
    assert all(len(history) for history in histories), "SASRec scores no empty history"
    model.eval()
    recent = [history[-model.config.length :] for history in histories]
    lengths = np.array([len(history) for history in recent], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    found = np.empty((len(recent), model.items), dtype=np.float32)
    rows = max(1, SCORING_TOKENS // model.config.length)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        hidden = model(pad([recent[row] for row in chosen]))
        last = hidden[torch.arange(len(chosen)), torch.from_numpy(lengths[chosen] - 1)]
        found[chosen] = model.logits(last).numpy()
    return found


def scores(
    model: Network, histories: Sequence[Int[np.ndarray, " _"]], candidates: Int[np.ndarray, "n size"]
) -> Float32[np.ndarray, "n size"]:
    """Scores of ``candidates`` (0-based), as in `catalogue_scores`."""
    assert len(histories) == len(candidates), "one row of candidates per history"
    step = 1024  # bounds the n x items array of a large catalogue
    parts = [
        np.take_along_axis(
            catalogue_scores(model, histories[start : start + step]), candidates[start : start + step], 1
        )
        for start in range(0, len(histories), step)
    ]
    return np.concatenate(parts) if parts else np.empty(candidates.shape, dtype=np.float32)
