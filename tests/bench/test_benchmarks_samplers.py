"""`pytest --benchmark`: drawing rejected items with their law from a large catalogue, by prefix sums and by rows of
weights. Nothing here asserts a time; the two must draw the same items."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import TrainView
from rosepo_bench.preference.samplers.base import Sampler
from rosepo_bench.preference.samplers.popularity import Popularity
from rosepo_bench.preference.samplers.uniform import Uniform

pytestmark = pytest.mark.bench

ITEMS, PROMPTS, PAST = 200_000, 2000, 50
SOME = 200  # prompts of the plain computation, which takes milliseconds for each
SAMPLERS = (Uniform(), Popularity())


class World(NamedTuple):
    view: TrainView
    prompts: Queries
    chosen: np.ndarray


@pytest.fixture(scope="module")
def world() -> World:
    """As many users as prompts; an item's share falls with its number, as 1 / number."""
    taken = (ITEMS ** np.random.default_rng(0).random((PROMPTS, PAST + 10))).astype(np.int32)
    user, step = np.arange(PROMPTS), np.full(PROMPTS, PAST)
    view = TrainView(tuple(taken), user, ("",) * ITEMS, ((),) * ITEMS)
    assert view.counts.sum() == taken.size, "counted here, not in a benchmark"
    prompts = Queries(user, step, 0 * step, np.zeros((PROMPTS, 0), np.int32), tuple(taken[:, :PAST]))
    return World(view, prompts, taken[:, PAST].astype(np.int64))


def by_rows(sampler: Sampler) -> Sampler:
    """The same sampler, whose weights stand in a row for each prompt."""

    class Rows(type(sampler)):  # type: ignore[misc]
        def log_weights(self, view: TrainView, prompts: Queries, chosen: np.ndarray) -> np.ndarray:
            return np.tile(super().log_weights(view, prompts, chosen), (len(prompts), 1))

    return Rows()


def measure(benchmark: Any, sampler: Sampler, world: World, name: str, *, k: int, rounds: int) -> None:
    benchmark.group = f"sampler {name} {len(world.prompts)}x{ITEMS} K={k}"
    drawn = benchmark.pedantic(lambda: sampler.draw(*world, k, 0), rounds=rounds, warmup_rounds=1)
    spread = np.percentile(benchmark.stats.stats.data, (20, 50, 80)) * 1e3 / drawn.items.size
    benchmark.extra_info.update(dict(zip(("p20", "p50", "p80"), spread.round(5), strict=True)), unit="ms a pair")


@pytest.mark.parametrize("k", [1, 8])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda one: one.name)
def test_prefix_sums(sampler: Sampler, k: int, world: World, benchmark: Any) -> None:
    measure(benchmark, sampler, world, sampler.name, k=k, rounds=30)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda one: one.name)
def test_rows(sampler: Sampler, world: World, benchmark: Any) -> None:
    plain, rows = by_rows(sampler), np.arange(SOME)
    some = World(world.view, world.prompts.take(rows), world.chosen[rows])
    measure(benchmark, plain, some, sampler.name, k=1, rounds=5)
    assert (plain.draw(*some, 1, 1).items == sampler.draw(*some, 1, 1).items).all()
