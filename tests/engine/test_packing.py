"""Packing: cheap, within the budget, and without a trace in the numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import language_model, network

from rosepo_bench.config import PreferenceConfig
from rosepo_bench.data.types import Examples
from rosepo_bench.engine.aligning import TrainingPairs, backward_step
from rosepo_bench.engine.examples import check_budget, grouped
from rosepo_bench.engine.forest import Limits
from rosepo_bench.engine.meter import Meter
from rosepo_bench.engine.packing import Cost, Pass, cost_of, counted_cost, limits_of, measured_cost, pack
from rosepo_bench.engine.prompts import TEMPLATES, Prompter
from rosepo_bench.engine.scoring import title_logps
from rosepo_bench.engine.tokens import train_tiny
from rosepo_bench.errors import UserError
from rosepo_bench.seeds import generator

COSTS = (Cost(0.0, 0.0), Cost(0.0, 100.0), Cost(4e-5, 500.0), Cost(1.3e-3, 150.0), Cost(1e-2, 20.0))


def rows_of(made: Pass) -> list[list[int]]:
    places = [0, *itertools.accumulate(made.rows)]
    return [made.trees[a:b] for a, b in itertools.pairwise(places)]


def price(passes: list[Pass], lengths: list[int], cost: Cost) -> float:
    widths = [max(sum(lengths[t] for t in row) for row in rows_of(made)) for made in passes]
    return sum(cost.of(len(made.rows), width) for made, width in zip(passes, widths, strict=True))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 300), max_size=60), st.sampled_from(COSTS), st.integers(300, 3000))
def test_every_tree_once_within_the_budget(lengths: list[int], cost: Cost, budget: int) -> None:
    passes = pack(lengths, budget, cost)
    assert sorted(t for made in passes for t in made.trees) == list(range(len(lengths)))
    for made in passes:
        assert sum(made.rows) == len(made.trees)
        assert len(made.rows) * max(sum(lengths[t] for t in row) for row in rows_of(made)) <= budget
    assert pack(lengths, budget, cost) == passes


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for k in range(len(rest)):
            yield [*rest[:k], [items[0], *rest[k]], *rest[k + 1 :]]


def cheapest(lengths: list[int], budget: int, cost: Cost) -> float:
    """The lowest cost of all layouts there are."""

    @cache
    def one_pass(trees: tuple[int, ...]) -> float:
        found = [float("inf")]
        for rows in partitions(list(trees)):
            width = max(sum(lengths[t] for t in row) for row in rows)
            if len(rows) * width <= budget:
                found.append(cost.of(len(rows), width))
        return min(found)

    plans = partitions(list(range(len(lengths))))
    return min(sum(one_pass(tuple(trees)) for trees in plan) for plan in plans)


def test_the_cost_is_near_the_lowest_there_is() -> None:
    draw = generator(0, "cheapest")
    ratios = []
    for trial in range(60):
        lengths = draw.integers(5, (50, 300, 1000)[trial % 3], size=int(draw.integers(2, 7))).tolist()
        cost, budget = COSTS[trial % len(COSTS)], max(lengths) * int(draw.choice([1, 2, 8]))
        found, lowest = price(pack(lengths, budget, cost), lengths, cost), cheapest(lengths, budget, cost)
        assert found >= lowest * (1 - 1e-12)
        ratios.append(found / lowest)
    assert np.median(ratios) < 1 + 1e-9
    assert np.mean(ratios) < 1.03


def test_padding_attention_and_passes_are_weighed() -> None:
    assert pack([90, 60, 30], 300, Cost(0.0, 10.0)) == [Pass([0, 1, 2], [1, 2])]  # no padding: 90 beside 60 + 30
    assert pack([90, 60, 30], 300, Cost(0.1, 0.0)) == [Pass([0], [1]), Pass([1], [1]), Pass([2], [1])]
    assert pack([90, 90, 30, 30], 300, Cost(0.1, 20.0)) == [Pass([0, 1], [1, 1]), Pass([2, 3], [1, 1])]
    assert pack([], 300, Cost(0.1, 20.0)) == []


def test_a_tree_over_the_budget_is_refused_with_what_to_set() -> None:
    with pytest.raises(UserError, match="tree 1 has 301 tokens, a pass takes 300: raise batch_tokens"):
        pack([5, 301], 300, COSTS[0])
    with pytest.raises(ValueError, match="every length must be at least 1"):
        pack([5, 0], 300, COSTS[0])
    for cost in (Cost(-1.0, 0.0), Cost(0.0, float("nan")), Cost(float("inf"), 0.0)):
        with pytest.raises(ValueError, match="must be finite and not negative"):
            pack([5], 300, cost)


def test_the_cost_is_counted_from_the_shape_or_given() -> None:
    model = network("qwen3", torch.float32)
    counted = counted_cost(model, torch.device("cpu"))
    linear = 2 * (32 * (32 + 16 + 16) + 32 * 32 + 3 * 32 * 64)  # 2 layers: q, k, v of 4 and 2 heads, o, feed-forward
    assert counted.square == pytest.approx(4 * 2 * 4 * 8 / (2 * linear))
    given = language_model(model)
    assert cost_of(given) == counted
    given.cost = Cost(0.5, 0.0)
    assert cost_of(given) == Cost(0.5, counted.fixed)
    assert limits_of(given, 200) == Limits(64, 61, 200, 0.5)


def test_the_cost_can_be_measured() -> None:
    found = measured_cost(language_model(network("llama", torch.float32)), 2048, repeats=3)
    assert np.isfinite([found.square, found.fixed]).all()
    assert min(found.square, found.fixed) >= 0


# --- one optimizer step, however it is packed -----------------------------------------------------------------------

TITLES = ["Iron Harbor", "Iron Harbor II", "Glass Orchard", "Quiet Ember", "Glass Harbor", "Quiet Orchard II"]
ENCODER = train_tiny([*TITLES, *TEMPLATES["movies"].words()], 320)
PROMPTER = Prompter(TEMPLATES["movies"], ENCODER, TITLES, history=6, candidates=False)


def training_pairs(users: int, steps: int) -> tuple[list[np.ndarray], TrainingPairs]:
    draw = generator(0, "pairs")
    sequences = [draw.integers(0, len(TITLES), size=12).astype(np.int32) for _ in range(users)]
    step = np.concatenate([np.sort(draw.permutation(np.arange(1, 12))[:steps]) for _ in range(users)])
    user = np.repeat(np.arange(users), steps)
    chosen = np.array([sequences[u][s] for u, s in zip(user, step, strict=True)])
    rejected = (chosen + draw.integers(1, len(TITLES), size=len(user))) % len(TITLES)
    n, none = len(user), np.zeros((len(user), 1), np.int32)
    examples = Examples(user, step, chosen, none, np.zeros(n, np.int64))
    titles, reference = np.stack([chosen, rejected], axis=1), draw.normal(-20, 3, size=(n, 2))
    return sequences, TrainingPairs(examples, titles, reference, draw.uniform(0, 0.5, size=n))


PACKINGS = {
    "one pass, one row": (10_000, Cost(0.0, 1e6)),
    "one tree a pass": (10_000, Cost(0.0, 0.0)),
    "several passes of several rows": (250, Cost(1e-3, 10.0)),
    "rows of several trees": (200, Cost(1e-3, 30.0)),
    "trees cut": (400, Cost(0.1, 50.0)),
}


def test_a_training_step_does_not_depend_on_the_packing() -> None:
    """Loss and every gradient in fp64, whatever the budget and the cost that packed it."""
    model = language_model(network("llama", torch.float64, vocab_size=ENCODER.size, max_position_embeddings=256))
    sequences, pairs = training_pairs(users=5, steps=4)
    packed, results = {}, []
    for name, (budget, cost) in PACKINGS.items():
        limits = Limits(256, ENCODER.size, budget, cost.square)
        users = grouped(PROMPTER, sequences, pairs.examples, pairs.titles, limits=limits, compared=True)
        groups = [group for user in users for group in user]
        packed[name] = len(groups), [made.rows for made in pack([len(group.tree) for group in groups], budget, cost)]
        model.network.zero_grad()
        loss = backward_step(model, pairs, groups, PreferenceConfig(), batch_tokens=budget, cost=cost, meter=Meter())
        results.append({"loss": torch.tensor(loss), **{n: p.grad.clone() for n, p in model.network.named_parameters()}})
    assert packed["one pass, one row"] == (5, [[5]])
    assert packed["one tree a pass"] == (5, [[1]] * 5)
    assert len(packed["several passes of several rows"][1]) > 1
    assert max(len(rows) for rows in packed["several passes of several rows"][1]) > 1
    assert 1 < max(max(rows) for rows in packed["rows of several trees"][1]) < 5
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


@pytest.mark.parametrize("item", [-1, len(TITLES)])
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
