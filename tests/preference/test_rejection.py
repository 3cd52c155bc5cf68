"""Samplers: who is eligible, each law against enumeration on a catalogue of nine items, and lists."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import tiny_world as tiny
from tiny_world import EVERY_STEP, EXPONENT, HISTORY, ONCE, SEQUENCES, TEMPERATURE, TITLES

from rosepo_bench.base.component import flat
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.plugins import registry
from rosepo_bench.base.seeds import derive
from rosepo_bench.data.types import Prompts, Queries
from rosepo_bench.data.views import TrainView
from rosepo_bench.preference.samplers.base import Rejected, Sampler, ScoredQueries
from rosepo_bench.preference.samplers.law import by_law
from rosepo_bench.preference.samplers.mixed import Mixed
from rosepo_bench.preference.samplers.popularity import Popularity
from rosepo_bench.preference.samplers.self_hard import SelfHard
from rosepo_bench.preference.samplers.semantic import Semantic
from rosepo_bench.preference.samplers.uniform import Uniform

POPULARITY = Popularity(exponent=EXPONENT)
NEAR_HISTORY = Semantic(temperature=TEMPERATURE, history=HISTORY)
NEAR_TARGET = Semantic(temperature=TEMPERATURE, anchor="target")
MIXED = Mixed(semantic=NEAR_HISTORY, popularity=POPULARITY)
ALL: list[Sampler] = [Uniform(), POPULARITY, NEAR_HISTORY, NEAR_TARGET, SelfHard(), MIXED]
CASES = pytest.mark.parametrize(
    ("sampler", "law"),
    [
        (Uniform(), tiny.uniform_law()),
        (POPULARITY, tiny.popularity_law()),
        (NEAR_HISTORY, tiny.semantic_law("history")),
        (NEAR_TARGET, tiny.semantic_law("target")),
    ],
    ids=["uniform", "popularity", "history", "target"],
)
EACH = pytest.mark.parametrize("sampler", ALL, ids=["uniform", "popularity", "history", "target", "self_hard", "mixed"])


@pytest.fixture(scope="module")
def view() -> TrainView:
    return tiny.view()


def draw(sampler: Sampler, view: TrainView, steps: list[tuple[int, int]], *, k: int = 1, seed: int = 0) -> Rejected:
    prompts, chosen = tiny.asked(steps)
    return sampler.draw(view, tiny.scored(prompts) if sampler.pool else prompts, chosen, k, seed)


@CASES
def test_draws_follow_the_law(view: TrainView, sampler: Sampler, law: tiny.Law) -> None:
    quantiles = 4000
    grid = (np.arange(quantiles) + 0.5) / quantiles
    for user, step in [(0, 2), (2, 1), (2, 5), (4, 2)]:
        prompts, chosen = tiny.asked([(user, step)] * quantiles)
        found = by_law(sampler, view, prompts, chosen, np.empty((quantiles, 0), dtype=np.int64), grid)
        share = np.bincount(found.items, minlength=len(TITLES)) / quantiles
        wanted = [law(user, step, SEQUENCES[user][step], item) for item in range(len(TITLES))]
        np.testing.assert_allclose(share, wanted, atol=1 / quantiles)


@CASES
def test_law_is_that_of_swapped_roles(view: TrainView, sampler: Sampler, law: tiny.Law) -> None:
    seen = set()
    for seed in range(12):
        drawn = draw(sampler, view, ONCE, seed=seed)
        for user, step, item, found in tiny.rows(ONCE, drawn.items[:, 0], drawn.law[:, 0]):
            assert found == pytest.approx(tiny.log_ratio(law, user, step, int(item)), abs=1e-9)
            seen.add((user, step, int(item)))
    assert len(seen) > 3 * len(ONCE), "too few different pairs were checked"


@pytest.mark.parametrize("sampler", [Uniform(), POPULARITY, NEAR_HISTORY, NEAR_TARGET])
def test_an_item_taken_twice_could_not_have_been_rejected(view: TrainView, sampler: Sampler) -> None:
    assert draw(sampler, view, [tiny.TAKEN_TWICE]).law.item() == -np.inf


def test_uniform_law_is_exactly_zero(view: TrainView) -> None:
    assert (draw(Uniform(), view, ONCE, k=3, seed=1).law == 0).all()


@EACH
def test_only_the_future_may_be_rejected(view: TrainView, sampler: Sampler) -> None:
    future = 0
    for seed in range(20):
        drawn = draw(sampler, view, EVERY_STEP, seed=seed)
        assert drawn.items.dtype == np.int32
        for user, step, item in tiny.rows(EVERY_STEP, drawn.items[:, 0]):
            assert item not in SEQUENCES[user][: step + 1]
            future += item in SEQUENCES[user][step + 1 :]
    assert future > 0, "a user's future was never rejected"


BEFORE = {  # of the code before samplers became components: steps twice over, seed 7
    "uniform": (Uniform(), "35381281181651738678547233712133664777022643", -18.0),
    "popularity": (POPULARITY, "16276550016210706266447526715761111006077054", -105.16611684067111),
    "alike": (Popularity(exponent=0), "15287551038230727568538333825883213136288254", -18.0),
    "history": (NEAR_HISTORY, "18763171331131755728055333518616161337065003", -18.19817518557102),
    "target": (NEAR_TARGET, "58761281312145305724056233128621161506076003", -25.763862405091572),
    "self_hard": (SelfHard(), "85765521611603802872561376787832823508086232", 0.0),
    "mixed": (MIXED, "75665571016111002872541576513831213778066242", -53.83617273977019),
}


@pytest.mark.parametrize("case", BEFORE)
def test_first_items_are_those_of_before(view: TrainView, case: str) -> None:
    sampler, items, law = BEFORE[case]
    drawn = draw(sampler, view, EVERY_STEP * 2, seed=7)
    assert "".join(map(str, drawn.items[:, 0])) == items
    assert np.where(np.isfinite(drawn.law), drawn.law, -9).sum() == pytest.approx(law, abs=1e-9)


def larger() -> tuple[TrainView, ScoredQueries, np.ndarray]:
    """300 items and 80 users with three prompts each."""
    rng, n = np.random.default_rng(11), 300
    words = rng.choice(["Star", "Night", "Heat", "Big", "Alien", "Fargo"], n)
    genres = tuple((str(genre),) for genre in rng.choice(["War", "Crime", "Comedy"], n))
    taken = tuple(rng.permutation(n)[:size].astype(np.int32) for size in rng.integers(4, 60, 80))
    titles = tuple(f"{word} {number}" for number, word in enumerate(words))
    view = TrainView(tuple(items[:-2] for items in taken), np.arange(80), titles, genres)
    user = np.repeat(np.arange(80), 3)
    step = np.concatenate([[1, len(items) - 3, len(items) - 1] for items in taken])
    pool = np.stack([rng.permutation(n)[:100] for _ in user]).astype(np.int32)
    pasts = tuple(taken[u][:s] for u, s in zip(user, step, strict=True))
    chosen = np.array([taken[u][s] for u, s in zip(user, step, strict=True)], dtype=np.int64)
    return view, ScoredQueries(user, step, 0 * step, pool, pasts, pool, rng.normal(size=pool.shape)), chosen


@pytest.mark.parametrize(
    ("sampler", "sha256", "law"),
    [
        (Uniform(), "51c8c9aafa05e5f7", 0.0),
        (Popularity(), "c91923c422e509ac", -15.91861396107927),
        (Semantic(), "59b6b8a6c3e1ffb8", -1077.4271305065758),
        (Semantic(anchor="target"), "54d03425e1ca9111", -155.6860346590192),
        (SelfHard(), "cb1b69f618f02d39", 0.0),
        (Mixed(), "537b0cd3376100f2", -326.35980670583956),
    ],
)
def test_draws_from_a_larger_catalogue_are_those_of_before(sampler: Sampler, sha256: str, law: float) -> None:
    drawn = sampler.draw(*larger(), k=1, seed=123)
    assert hashlib.sha256(drawn.items.astype("<i4").tobytes()).hexdigest().startswith(sha256)
    assert np.where(np.isfinite(drawn.law), drawn.law, -9).sum() == pytest.approx(law, abs=1e-9)


def test_self_hard_takes_the_best_wrong_items(view: TrainView) -> None:
    prompts, chosen = tiny.asked([(0, 1), (2, 3)])
    scores = np.zeros((2, len(TITLES)))
    scores[0, [4, 0, 6, 1]] = 3, 2, 1, 0.5  # 4 is the target, 0 the past
    scores[1, [0, 5, 8, 2]] = 9, 8, 7, 6  # 0 is the target, 5 the past
    drawn = SelfHard().draw(view, replace(tiny.scored(prompts), scores=scores), chosen, 2, seed=0)
    assert drawn.items.tolist() == [[6, 1], [8, 2]]
    assert (drawn.law == 0).all()


def test_self_hard_takes_a_top_list_of_the_catalogue(view: TrainView) -> None:
    prompts, chosen = tiny.asked([(0, 1)])
    top = {"scored": np.array([[4, 0, 8, 2]], dtype=np.int32), "scores": np.array([[3.0, 2.0, 1.0, 0.0]])}
    found = SelfHard(items="catalogue").draw(view, ScoredQueries(**vars(prompts), **top), chosen, 3, seed=0)
    assert (found.items.tolist(), found.mask.tolist()) == ([[8, 2, -1]], [[True, True, False]])
    short = {name: column[:, :2] for name, column in top.items()}
    with pytest.raises(UserError, match="user 0: no eligible item is left for sampler self_hard"):
        SelfHard().draw(view, ScoredQueries(**vars(prompts), **short), chosen, 1, seed=0)


def test_pools_are_asked_for_by_those_who_read_them() -> None:
    catalogue = SelfHard(items="catalogue")
    assert [one.pool for one in ALL] == ["", "", "", "", "candidates", "candidates"]
    assert catalogue.pool == Mixed(self_hard=catalogue).pool == "catalogue"


def test_mixed_draws_each_items_sampler(view: TrainView) -> None:
    steps = ONCE * 20
    drawn, hard = draw(MIXED, view, steps, seed=3), draw(SelfHard(), view, steps, seed=3)
    kinds, counts = np.unique(drawn.kind, return_counts=True)
    assert kinds.tolist() == ["popularity", "self_hard", "semantic"]
    assert counts.min() > len(steps) / 5
    laws = {"popularity": tiny.popularity_law(), "semantic": tiny.semantic_law("history")}
    for user, step, item, kind, found, best in tiny.rows(
        steps, drawn.items[:, 0], drawn.kind[:, 0], drawn.law[:, 0], hard.items[:, 0]
    ):
        if kind == "self_hard":
            assert (item, found) == (best, 0)
        else:
            assert found == pytest.approx(tiny.log_ratio(laws[kind], user, step, int(item)), abs=1e-9)


@EACH
def test_lists_hold_distinct_items_and_begin_alike(view: TrainView, sampler: Sampler) -> None:
    """Also their ends: nine items less the past and the chosen one are fewer than eight for every prompt."""
    whole = draw(sampler, view, EVERY_STEP, k=8)
    _, chosen = tiny.asked(EVERY_STEP)
    for items, mask, target in zip(whole.items, whole.mask, chosen, strict=True):
        assert (items >= 0).tolist() == mask.tolist() == sorted(mask, reverse=True)
        assert len({*items[mask], target}) == mask.sum() + 1
    assert not whole.mask[:, -1].any()
    for k in (1, 3):
        start = draw(sampler, view, EVERY_STEP, k=k)
        for name in ("items", "law", "kind", "mask"):
            assert (getattr(start, name) == getattr(whole, name)[:, :k]).all()


def test_each_place_of_a_list_has_a_stream_of_its_own(view: TrainView) -> None:
    """Of one stream, an item's neighbours in the catalogue would stand beside it."""
    prompts, chosen = tiny.asked(ONCE)
    drawn = draw(Uniform(), view, ONCE, k=3, seed=6)
    for place in (1, 2):
        alone = Uniform().one(view, prompts, chosen, drawn.items[:, :place], derive(6, "list", place))
        assert (alone.items[alone.mask] == drawn.items[:, [place]][drawn.mask[:, [place]]]).all()


@EACH
def test_where_no_item_is_left_one_says_so(view: TrainView, sampler: Sampler) -> None:
    prompts, chosen = tiny.asked(EVERY_STEP)
    everything = np.tile(np.arange(len(TITLES)), (len(chosen), 1))
    found = sampler.one(view, tiny.scored(prompts), chosen, everything, seed=0)
    assert not found.mask.any()
    assert ((found.items == -1) & (found.law == 0)).all()


def test_lists_run_to_the_last_eligible_item(view: TrainView) -> None:
    drawn = draw(Uniform(), view, EVERY_STEP, k=9)
    left = [len(TITLES) - len(set(SEQUENCES[user][: step + 1])) for user, step in EVERY_STEP]
    assert drawn.mask.sum(axis=1).tolist() == left


@CASES
def test_the_law_of_later_places_knows_those_before(view: TrainView, sampler: Sampler, law: tiny.Law) -> None:
    """Without replacement: q among what is left."""
    drawn = draw(sampler, view, ONCE, k=2, seed=4)
    for user, step, (first, item), (_, found), (_, there) in tiny.rows(ONCE, drawn.items, drawn.law, drawn.mask):
        chosen = SEQUENCES[user][step]
        back, forth = law(user, step, item, chosen), law(user, step, chosen, item)
        if there and back:
            back /= 1 - law(user, step, item, first)
            forth /= 1 - law(user, step, chosen, first)
            assert found == pytest.approx(np.log(back) - np.log(forth), abs=1e-9)


@pytest.mark.parametrize("sampler", [Popularity(), NEAR_HISTORY, NEAR_TARGET])
def test_seed_decides_all_and_batching_nothing(
    view: TrainView, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = (draw(sampler, view, EVERY_STEP * 5, seed=seed) for seed in (1, 2))
    assert (first.items != other.items).any()
    monkeypatch.setattr("rosepo_bench.preference.samplers.dense.CELLS", 1)
    again = draw(sampler, view, EVERY_STEP * 5, seed=1)
    assert (first.items == again.items).all()
    np.testing.assert_allclose(first.law, again.law, rtol=1e-12)


def test_popularity_of_a_part_of_the_users() -> None:
    """Rows of a restricted view are not users' numbers; a user outside it has no interaction of their own in it."""
    view = tiny.view()
    part = view.of([4, 0, 2])
    steps = [(0, 1), (2, 2), (4, 2), (1, 1), (3, 1), (5, 1)]
    prompts, chosen = tiny.asked(steps)
    found = Popularity().chosen_log_weights(part, prompts, chosen)
    # 4 is in the training of users 0, 2 and, twice, 4; 7 in that of 2 alone; the others are targets of users outside.
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found, np.log([4 - 1, 1 - 1, 4 - 1, 2, 0, 2]))
    assert part.counts[[4, 7, 0, 6, 1]].tolist() == [4, 1, 2, 0, 2]


def test_what_nobody_took_in_training_is_popular_at_exponent_zero_alone(view: TrainView) -> None:
    never = np.flatnonzero(view.counts == 0)
    assert len(never)
    assert not np.isin(draw(Popularity(), view, EVERY_STEP * 20).items, never).any()
    assert np.isin(draw(Popularity(exponent=0), view, EVERY_STEP * 20).items, never).any()


class Rarest(Sampler):
    name = "rarest"
    about = "items in inverse proportion to their count"

    def log_weights(self, view: TrainView, prompts: Queries, chosen: np.ndarray) -> np.ndarray:
        return -np.log1p(view.counts)


def test_a_sampler_of_ones_own_is_its_weights(view: TrainView) -> None:
    law = tiny.enumerated(lambda user, step, chosen, item: 1 / (1 + int(view.counts[item])))
    drawn = draw(Rarest(), view, ONCE, k=3, seed=2)
    assert drawn.items.shape == (len(ONCE), 3)
    assert (drawn.kind == "rarest").all()
    for user, step, item, found in tiny.rows(ONCE, drawn.items[:, 0], drawn.law[:, 0]):
        assert found == pytest.approx(tiny.log_ratio(law, user, step, int(item)), abs=1e-9)


def test_samplers_are_found_by_name() -> None:
    known = registry(Sampler)
    assert known.names() == ["mixed", "popularity", "self_hard", "semantic", "uniform"]
    assert all(known[name].about for name in known.names())
    with pytest.raises(UserError, match="did you mean 'self_hard'"):
        known["selfhard"]
    assert dict(flat(Mixed()))["semantic.temperature"] == 0.05


def test_no_prompts_no_items(view: TrainView) -> None:
    prompts, chosen = tiny.asked(EVERY_STEP)
    nothing: Prompts = tiny.scored(prompts).take(np.arange(0))
    for sampler in ALL:
        assert sampler.draw(view, nothing, chosen[:0], 2, seed=0).items.shape == (0, 2)
