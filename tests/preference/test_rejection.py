"""Samplers: who is eligible, and each law against enumeration on a catalogue of nine items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Dataset, Examples, Source, Split
from rosepo_bench.preference.samplers import semantic
from rosepo_bench.preference.samplers.law import by_law
from rosepo_bench.preference.samplers.sampler import MIXTURE, Sampler
from rosepo_bench.preference.samplers.self_hard import Pool, Rejected

TITLES = ("Alien", "Aliens", "Heat", "Heathers", "Star Wars", "Star Trek", "Fargo", "Big", "Big Night")
GENRES = (("Horror",), ("Horror",), ("Crime",), ("Comedy",), ("War",), ("War",), ("Crime",), ("Comedy",), ())
SEQUENCES = ([0, 4, 1, 5, 2], [4, 0, 6, 1], [5, 4, 7, 0, 3, 8], [2, 6, 4, 1], [4, 1, 4, 3, 0], [7, 1, 8, 0])
HISTORY, TEMPERATURE, EXPONENT = 2, 0.3, 0.7
Law = Callable[[int, int, int, int], float]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    sequences = tuple(np.array(sequence, dtype=np.int32) for sequence in SEQUENCES)
    times = tuple(np.arange(len(sequence)) for sequence in SEQUENCES)
    return Dataset("tiny", Source("tiny", "synthetic"), TITLES, GENRES, sequences, times)


@pytest.fixture(scope="module")
def split() -> Split:
    length = np.array([len(sequence) for sequence in SEQUENCES])
    return Split("leave_one_out", length - 2, length - 2, length - 1)


def make(dataset: Dataset, split: Split, **settings: object) -> Sampler:
    given = {"semantic_temperature": TEMPERATURE, "popularity_exponent": EXPONENT, **settings}
    config = PreferenceConfig.model_validate(given)
    return Sampler.of(dataset, split, config, history=HISTORY)


def prompts(steps: Iterable[tuple[int, int]]) -> Examples:
    """Each step with every item as a candidate."""
    user, step = (np.array(column, dtype=np.int64) for column in zip(*steps, strict=True))
    target = np.array([SEQUENCES[u][s] for u, s in zip(user, step, strict=True)], dtype=np.int64)
    candidates = np.tile(np.arange(len(TITLES), dtype=np.int32), (len(user), 1))
    return Examples(user, step, target, candidates, target)


EVERY_STEP = [(user, step) for user, sequence in enumerate(SEQUENCES) for step in range(1, len(sequence))]


def enumerated(weight: Callable[[int, int, int, int], float]) -> Law:
    """q(item | x, chosen) from a weight(user, step, chosen, item), by the definition."""

    def law(user: int, step: int, chosen: int, item: int) -> float:
        eligible = set(range(len(TITLES))) - set(SEQUENCES[user][:step]) - {chosen}
        total = sum(weight(user, step, chosen, other) for other in eligible)
        return weight(user, step, chosen, item) / total if item in eligible else 0.0

    return law


def uniform_law(sampler: Sampler) -> Law:
    return enumerated(lambda user, step, chosen, item: 1.0)


def popularity_law(sampler: Sampler) -> Law:
    """Counts of the training interactions other than the example's own."""

    def weight(user: int, step: int, chosen: int, item: int) -> float:
        training = [(u, s) for u, sequence in enumerate(SEQUENCES) for s in range(len(sequence) - 2)]
        others = [SEQUENCES[u][s] for u, s in training if (u, s) != (user, step)]
        return float(others.count(item) ** EXPONENT)

    return enumerated(weight)


def semantic_law(sampler: Sampler) -> Law:
    rows = semantic.encode(TITLES, GENRES).toarray()

    def weight(user: int, step: int, chosen: int, item: int) -> float:
        anchor = rows[chosen]
        if sampler.config.semantic_anchor == "history":
            anchor = np.sum([rows[past] for past in SEQUENCES[user][:step][-HISTORY:]], axis=0)
        return math.exp(float(rows[item] @ anchor) / float(np.linalg.norm(anchor)) / TEMPERATURE)

    return enumerated(weight)


CASES = pytest.mark.parametrize(
    ("name", "settings", "truth"),
    [
        ("uniform", {}, uniform_law),
        ("popularity", {}, popularity_law),
        ("semantic", {"semantic_anchor": "history"}, semantic_law),
        ("semantic", {"semantic_anchor": "target"}, semantic_law),
    ],
)


@CASES
def test_draws_follow_the_law(
    dataset: Dataset, split: Split, name: str, settings: dict[str, str], truth: Callable[[Sampler], Law]
) -> None:
    sampler = make(dataset, split, **settings)
    law, quantiles = truth(sampler), 4000
    for user, step in [(0, 2), (2, 1), (2, 5), (4, 2)]:
        examples = prompts([(user, step)] * quantiles)
        weights = getattr(sampler, f"_{name}")(examples)
        grid = (np.arange(quantiles) + 0.5) / quantiles
        items, _ = by_law(dataset, examples, weights, grid, np.empty((quantiles, 0), dtype=np.int64))
        share = np.bincount(items, minlength=len(TITLES)) / quantiles
        wanted = [law(user, step, SEQUENCES[user][step], item) for item in range(len(TITLES))]
        np.testing.assert_allclose(share, wanted, atol=1 / quantiles)


@CASES
def test_law_is_that_of_swapped_roles(
    dataset: Dataset, split: Split, name: str, settings: dict[str, str], truth: Callable[[Sampler], Law]
) -> None:
    sampler = make(dataset, split, **settings)
    law, seen = truth(sampler), set()
    steps = [step for step in EVERY_STEP if step != (4, 2)]  # its target is in the past as well: see below
    for seed in range(12):
        drawn = sampler.draw(name, prompts(steps), seed=seed)
        for (user, step), item, found in zip(steps, drawn.items, drawn.law, strict=True):
            chosen, other = SEQUENCES[user][step], int(item)
            back, forth = law(user, step, other, chosen), law(user, step, chosen, other)
            wanted = math.log(back) - math.log(forth) if back else -math.inf
            assert found == pytest.approx(wanted, abs=1e-9)
            seen.add((user, step, other))
    assert len(seen) > 3 * len(steps), "too few different pairs were checked"


@pytest.mark.parametrize("name", ["uniform", "popularity", "semantic"])
def test_an_item_taken_twice_could_not_have_been_rejected(dataset: Dataset, split: Split, name: str) -> None:
    drawn = make(dataset, split).draw(name, prompts([(4, 2)]), seed=0)
    assert drawn.law[0] == -np.inf


def test_uniform_law_is_exactly_zero(dataset: Dataset, split: Split) -> None:
    steps = [step for step in EVERY_STEP if step != (4, 2)]
    assert (make(dataset, split).draw("uniform", prompts(steps), seed=1).law == 0).all()


def pool_for(examples: Examples) -> Pool:
    scores = np.random.default_rng(5).normal(size=examples.candidates.shape)
    return Pool(examples.candidates, scores)


@pytest.mark.parametrize("name", ["uniform", "self_hard", "semantic", "popularity", "mixed"])
def test_only_the_future_may_be_rejected(dataset: Dataset, split: Split, name: str) -> None:
    sampler, examples, future = make(dataset, split), prompts(EVERY_STEP), 0
    for seed in range(20):
        drawn = sampler.draw(name, examples, seed=seed, pool=pool_for(examples))
        assert drawn.items.dtype == np.int32
        for (user, step), item in zip(EVERY_STEP, drawn.items, strict=True):
            assert item not in SEQUENCES[user][: step + 1]
            future += item in SEQUENCES[user][step + 1 :]
    assert future > 0, "a user's future was never rejected"


def test_self_hard_takes_the_best_wrong_item(dataset: Dataset, split: Split) -> None:
    examples = prompts([(0, 1), (2, 3)])
    scores = np.zeros((2, len(TITLES)))
    scores[0, [4, 0, 6]] = 3, 2, 1  # 4 is the target, 0 the past
    scores[1, [0, 5, 8]] = 9, 8, 7  # 0 is the target, 5 the past
    drawn = make(dataset, split).draw("self_hard", examples, seed=0, pool=Pool(examples.candidates, scores))
    assert drawn.items.tolist() == [6, 8]
    assert (drawn.law == 0).all()


def test_self_hard_takes_a_top_list_of_the_catalogue(dataset: Dataset, split: Split) -> None:
    examples = prompts([(0, 1)])
    top = Pool(np.array([[4, 0, 8]], dtype=np.int32), np.array([[3.0, 2.0, 1.0]]))
    assert make(dataset, split).draw("self_hard", examples, seed=0, pool=top).items.tolist() == [8]
    with pytest.raises(UserError, match="user 0"):
        make(dataset, split).draw("self_hard", examples, seed=0, pool=Pool(top.items[:, :2], top.scores[:, :2]))


def test_mixed_draws_each_pairs_sampler(dataset: Dataset, split: Split) -> None:
    examples = prompts([step for step in EVERY_STEP if step != (4, 2)] * 20)
    sampler, pool = make(dataset, split), pool_for(examples)
    drawn = sampler.draw("mixed", examples, seed=3, pool=pool)
    kinds, counts = np.unique(drawn.kind, return_counts=True)
    assert sorted(kinds) == sorted(MIXTURE)
    assert counts.min() > len(examples) / 5
    assert (drawn.law[drawn.kind == "self_hard"] == 0).all()
    laws = {"popularity": popularity_law(sampler), "semantic": semantic_law(sampler)}
    for row in np.flatnonzero(drawn.kind != "self_hard"):
        user, step = int(examples.user[row]), int(examples.step[row])
        chosen, other, law = SEQUENCES[user][step], int(drawn.items[row]), laws[str(drawn.kind[row])]
        back = law(user, step, other, chosen)
        wanted = math.log(back) - math.log(law(user, step, chosen, other)) if back else -math.inf
        assert drawn.law[row] == pytest.approx(wanted, abs=1e-9)
    hard = sampler.draw("self_hard", examples, seed=3, pool=pool)
    assert (drawn.items == hard.items)[drawn.kind == "self_hard"].all()


@pytest.mark.parametrize("name", ["uniform", "self_hard", "semantic", "mixed"])
def test_lists_hold_distinct_items(dataset: Dataset, split: Split, name: str) -> None:
    examples = prompts(EVERY_STEP)
    drawn = make(dataset, split).draw_list(name, examples, 3, seed=0, pool=pool_for(examples))
    assert drawn.items.shape == drawn.law.shape == drawn.kind.shape == (len(examples), 3)
    assert all(len(set(row)) == 3 for row in drawn.items.tolist())
    assert (drawn.items != examples.target[:, None]).all()


def test_seed_decides_all_and_batching_nothing(dataset: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, examples = make(dataset, split), prompts(EVERY_STEP * 5)

    def draw(seed: int) -> Rejected:
        return sampler.draw("semantic", examples, seed=seed)

    first = draw(1)
    assert (first.items != draw(2).items).any()
    monkeypatch.setattr("rosepo_bench.preference.samplers.law.CELLS", 1)
    assert (first.items == draw(1).items).all()
    np.testing.assert_allclose(first.law, draw(1).law, rtol=1e-12)


def test_what_cannot_be_drawn_is_refused(dataset: Dataset, split: Split) -> None:
    sampler, examples = make(dataset, split), prompts([(0, 1)])
    with pytest.raises(UserError, match="did you mean 'self_hard'"):
        sampler.draw("selfhard", examples, seed=0)
    rest = np.array([[item for item in range(len(TITLES)) if item not in (0, 4)]])
    with pytest.raises(UserError, match="user 0: no eligible item"):
        sampler.draw("uniform", examples, seed=0, exclude=rest)
