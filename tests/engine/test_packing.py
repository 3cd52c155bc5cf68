"""Packing: cheap, within the budget, and without a trace in the numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import language_model, network

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.data.types import Examples
from rosepo_bench.engine.forest import Limits
from rosepo_bench.engine.forest.packing import pack
from rosepo_bench.engine.model.limits import counted_square_cost, limits_of
from rosepo_bench.engine.prompts.examples import check_budget, grouped
from rosepo_bench.engine.prompts.prompter import TEMPLATES, Prompter
from rosepo_bench.engine.prompts.tokens import train_tiny
from rosepo_bench.engine.ranking.scoring import title_logps
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.engine.training.steps import Steps, TrainingPairs
from rosepo_bench.losses.base import Columns
from rosepo_bench.losses.compiled import CDPO


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 300), max_size=200), st.integers(300, 3000))
def test_every_tree_once_in_few_passes_within_the_budget(lengths: list[int], budget: int) -> None:
    passes = pack(lengths, budget)
    assert sorted(t for trees in passes for t in trees) == list(range(len(lengths)))
    sizes = [sum(lengths[t] for t in trees) for trees in passes]
    assert all(0 < size <= budget for size in sizes)
    # Longest first to the least loaded: no pass is longer than another one by more than its last tree.
    assert max(sizes, default=0) - min(sizes, default=0) <= max(lengths, default=0)
    least = -(-sum(lengths) // budget)
    # Where n passes do not do, more than (n + 1) / 2 budgets are to be placed; then one is added, of many some.
    assert len(passes) <= max(least, 2 * least - 1 + (least - 1) // 8)
    assert pack(lengths, budget) == passes


def test_passes_are_alike() -> None:
    assert pack([90, 60, 30], 300) == [[0, 1, 2]]
    assert pack([10, 60, 50, 40], 100) == [[0, 1], [2, 3]]
    assert pack([60, 60, 60], 100) == [[0], [1], [2]]
    assert pack([], 300) == []
    many = pack([100] * 20_000, 4096)  # 40 fit a pass
    assert 500 <= len(many) < 540


def test_a_tree_over_the_budget_is_refused_with_what_to_set() -> None:
    with pytest.raises(UserError, match="tree 1 has 301 tokens, a pass takes 300: raise batch_tokens"):
        pack([5, 301], 300)


def test_the_cost_is_counted_from_the_shape_or_given() -> None:
    model = network("qwen3", torch.float32)
    counted = counted_square_cost(model)
    linear = 2 * (32 * (32 + 16 + 16) + 32 * 32 + 3 * 32 * 64)  # 2 layers: q, k, v of 4 and 2 heads, o, feed-forward
    assert counted == pytest.approx(4 * 2 * 4 * 8 / (2 * linear))
    given = language_model(model)
    assert limits_of(given, 200) == Limits(64, 61, 200, counted)
    given.square_cost = 0.5
    assert limits_of(given, 200) == Limits(64, 61, 200, 0.5)


# --- one optimizer step, however it is packed -----------------------------------------------------------------------

TITLES = ["Iron Harbor", "Iron Harbor II", "Glass Orchard", "Quiet Ember", "Glass Harbor", "Quiet Orchard II"]
ENCODER = train_tiny([*TITLES, *TEMPLATES["movies"].words()], 320)
PROMPTER = Prompter(TEMPLATES["movies"], ENCODER, TITLES, history=6, candidates=False)


def training_pairs(users: int, steps: int) -> tuple[list[np.ndarray], TrainingPairs]:
    draw = generator(0, "pairs")
    sequences = [draw.integers(0, len(TITLES), size=12).astype(np.int32) for _ in range(users)]
    step = np.concatenate([np.sort(draw.permutation(np.arange(1, 12))[:steps]) for _ in range(users)])
    user = np.repeat(np.arange(users), steps)
    chosen = np.array([sequences[u][s] for u, s in zip(user, step, strict=True)], dtype=np.int64)
    rejected = (chosen + draw.integers(1, len(TITLES), size=len(user))) % len(TITLES)
    n, none = len(user), np.zeros((len(user), 1), np.int32)
    examples = Examples(user, step, np.maximum(0, step - 6), none, chosen, np.zeros(n, np.int64))
    titles, reference = np.stack([chosen, rejected], axis=1), draw.normal(-20, 3, size=(n, 2))
    return sequences, TrainingPairs(examples, titles, reference, draw.uniform(0, 0.5, size=(n, 1)))


PACKINGS = {"one pass": (10_000, 0.0), "several passes": (120, 0.0), "trees cut": (400, 0.1)}


def test_a_training_step_does_not_depend_on_the_packing() -> None:
    """Loss and every gradient in fp64, whatever the budget and the cost that packed it."""
    model = language_model(network("llama", torch.float64, vocab_size=ENCODER.size, max_position_embeddings=256))
    sequences, pairs = training_pairs(users=5, steps=4)
    packed, results = {}, []
    for name, (budget, square) in PACKINGS.items():
        limits = Limits(256, ENCODER.size, budget, square)
        users = grouped(PROMPTER, sequences, pairs.examples, pairs.titles, limits=limits, compared=True)
        groups = [group for user in users for group in user]
        packed[name] = len(groups), len(pack([len(group.tree) for group in groups], budget))
        model.network.zero_grad()
        lengths = np.array([len(title) for title in PROMPTER.titles])
        told = Steps(model, pairs, CDPO(), lengths, budget, Meter()).backward(groups, Columns())
        results.append(
            {"loss": torch.tensor(told["loss"]), **{n: p.grad.clone() for n, p in model.network.named_parameters()}}
        )
    assert packed["one pass"] == (5, 1)
    assert packed["several passes"][1] > 2
    assert packed["trees cut"][0] > 5
    for found in results[1:]:
        for name, value in results[0].items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10, msg=name)


def test_pairs_that_no_tree_can_hold_are_refused_by_user_and_step() -> None:
    sequences, pairs = training_pairs(users=2, steps=3)
    limits = Limits(256, ENCODER.size, 20)
    with pytest.raises(UserError, match=r"user 0, step \d+, item \d: its tree alone has \d+ tokens, a pass takes 20"):
        grouped(PROMPTER, sequences, pairs.examples, pairs.titles, limits=limits, compared=True)
    same = pairs.titles.copy()
    same[4, 1] = same[4, 0]
    user, step, item = pairs.examples.user[4], pairs.examples.step[4], same[4, 0]
    with pytest.raises(UserError, match=f"user {user}, step {step}, item {item}: another response .* same tokens"):
        grouped(PROMPTER, sequences, pairs.examples, same, limits=Limits(256), compared=True)
    grouped(PROMPTER, sequences, pairs.examples, same, limits=Limits(256))


@pytest.mark.parametrize("item", [-2, len(TITLES)])
def test_an_item_outside_the_catalogue_is_refused(item: int) -> None:
    sequences, pairs = training_pairs(users=2, steps=3)
    titles = pairs.titles.copy()
    titles[4, 1] = item
    user, step = pairs.examples.user[4], pairs.examples.step[4]
    with pytest.raises(
        UserError, match=f"user {user}, step {step}: response 1 is item {item}, .* 0 to {len(TITLES) - 1}"
    ):
        grouped(PROMPTER, sequences, pairs.examples, titles, limits=Limits(256))


@pytest.mark.parametrize("budget", [0, -5])
def test_a_pass_of_no_tokens_is_refused(budget: int) -> None:
    model, (sequences, pairs) = language_model(network("llama", torch.float32)), training_pairs(users=2, steps=3)
    with pytest.raises(UserError, match=f"batch_tokens is {budget}: a pass takes 1 token or more"):
        title_logps(model, PROMPTER, sequences, pairs.examples, pairs.titles, batch_tokens=budget, label="test")


def test_a_budget_too_small_for_the_catalogue_is_refused_before_any_work() -> None:
    needed = PROMPTER.longest(0) + max(map(len, PROMPTER.titles))
    check_budget(PROMPTER, 0, 2, needed, "batch_tokens")
    message = f"2 responses can need {needed} tokens, a pass takes batch_tokens = {needed - 1}; raise batch_tokens"
    with pytest.raises(UserError, match=message):
        check_budget(PROMPTER, 0, 2, needed - 1, "batch_tokens")
