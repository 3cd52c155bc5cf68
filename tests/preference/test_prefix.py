"""Draws from prefix sums against the plain computation, which takes the same weights one row for each prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import TrainView
from rosepo_bench.preference.samplers import dense, law
from rosepo_bench.preference.samplers.base import Sampler
from rosepo_bench.preference.samplers.law import by_law
from rosepo_bench.preference.samplers.prefix import Sums, padded

ITEMS, ROWS = 60, 400


@dataclass(frozen=True)
class Case:
    """Prompts with pasts of up to 40 items, some of them twice, and with two barred items."""

    view: TrainView
    prompts: Queries
    chosen: np.ndarray
    barred: np.ndarray
    uniform01: np.ndarray


def case(seed: int, items: int = ITEMS) -> Case:
    rng = np.random.default_rng(seed)
    pasts = tuple(rng.integers(items, size=size).astype(np.int32) for size in rng.integers(0, 40, ROWS))
    chosen, barred = rng.integers(items, size=ROWS), rng.integers(items, size=(ROWS, 2))
    user, none = np.arange(ROWS), np.zeros((ROWS, 0), dtype=np.int32)
    view = TrainView((), np.arange(0), ("",) * items, ((),) * items)
    return Case(view, Queries(user, user, user, none, pasts), chosen, barred, rng.random(ROWS))


def weighted(log_weights: np.ndarray, swapped: np.ndarray | None = None, *, shared: bool = True) -> Sampler:
    """A sampler with these weights of the catalogue, and of each prompt's chosen item (the prompt's user is its row)
    had another one been chosen."""

    class Given(Sampler):
        name = "given"

        def log_weights(self, view: TrainView, prompts: Queries, chosen: np.ndarray) -> np.ndarray:
            return log_weights if shared else np.tile(log_weights, (len(prompts), 1))

        def chosen_log_weights(self, view: TrainView, prompts: Queries, chosen: np.ndarray) -> np.ndarray | None:
            return None if swapped is None else swapped[prompts.user]

    return Given()


def both(given: Case, log_weights: np.ndarray, swapped: np.ndarray | None = None) -> list[dense.Found]:
    """The fast draws, and the plain ones."""
    rest = (given.view, given.prompts, given.chosen, given.barred, given.uniform01)
    return [by_law(weighted(log_weights, swapped, shared=shared), *rest) for shared in (True, False)]


def agree(given: Case, log_weights: np.ndarray, swapped: np.ndarray | None = None) -> dense.Found:
    fast, plain = both(given, log_weights, swapped)
    assert (fast.items == plain.items).all()
    assert (fast.left == plain.left).all()
    np.testing.assert_allclose(fast.law, plain.law, rtol=1e-9, atol=1e-9)
    return fast


def only_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared weights may not be computed by rows."""

    def refuse(*_: object) -> dense.Found:
        raise AssertionError("the plain computation was used")

    monkeypatch.setattr(law.dense, "draw", refuse)


RNG = np.random.default_rng(0)
WEIGHTS = {
    "equal": np.full(ITEMS, -3.7),
    "normal": RNG.normal(size=ITEMS),
    "counts": np.log(RNG.zipf(1.5, ITEMS)),
    "some never": np.where(RNG.random(ITEMS) < 0.3, -np.inf, RNG.normal(size=ITEMS)),
    "far below 0": RNG.normal(size=ITEMS) - 5000,
    "the first alone": np.where(np.arange(ITEMS), -np.inf, 0.0),
    "nothing": np.full(ITEMS, -np.inf),
    "steep": np.linspace(-900, 900, ITEMS)[RNG.permutation(ITEMS)],
    "cliff": np.where(np.arange(ITEMS) % 7, -30.0, 0.0),
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("own", [False, True], ids=["as it stands", "without its own"])
def test_the_same_as_by_rows(name: str, own: bool) -> None:
    for seed in range(5):
        given = case(seed)
        less = np.random.default_rng(seed).choice([0, 0.5, np.inf], ROWS)
        swapped = WEIGHTS[name][given.chosen] - less if own else None
        found = agree(given, WEIGHTS[name], swapped)
        assert found.left.any() == (name != "nothing")
        assert (found.items >= 0).tolist() == found.left.tolist()


@pytest.mark.parametrize("name", ["equal", "normal"])
def test_rows_are_not_needed_where_enough_is_eligible(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = case(1)
    rest = (given.view, given.prompts, given.chosen, given.barred, given.uniform01)
    wanted = by_law(weighted(WEIGHTS[name]), *rest)
    only_fast(monkeypatch)
    assert (by_law(weighted(WEIGHTS[name]), *rest).items == wanted.items).all()


def test_every_edge_between_items() -> None:
    """At the uniform numbers at which an item begins, and close to them: sums of equal weights are exact."""
    given = case(2)
    excluded = zip(given.prompts.histories, given.barred, given.chosen, strict=True)
    eligible = [np.setdiff1d(np.arange(ITEMS), [*past, *more, one]) for past, more, one in excluded]
    left = np.array([len(items) for items in eligible])
    for step in range(ITEMS):
        place = step % left
        exact = np.where(place / left * left == place, place, place + 1e-9)
        for position in (exact, place + 1e-9, np.maximum(place - 1e-9, 0), left * (1 - 2.0**-53)):
            at = replace(given, uniform01=position / left)
            wanted = [items[int(rank)] for items, rank in zip(eligible, position, strict=True)]
            assert agree(at, np.zeros(ITEMS)).items.tolist() == wanted


@pytest.mark.parametrize("share", [1e-4, 1e-7, 1e-12, 1e-20, 1e-300])
def test_a_tiny_eligible_share(share: float) -> None:
    """One item holds all but ``share`` of the weight and is the chosen one of every row: a difference of sums would
    have lost the other items' digits."""
    rng = np.random.default_rng(3)
    log_weights = np.log(share / ITEMS) + rng.normal(size=ITEMS)
    log_weights[17] = 0.0
    found = agree(replace(case(4), chosen=np.full(ROWS, 17)), log_weights)
    assert len(set(found.items.tolist())) > 30


def test_a_share_that_is_tiny_after_the_swap() -> None:
    """The rejected item holds nearly all of the weight, so that little is left once it is the chosen one."""
    log_weights = np.full(ITEMS, -32.0) + np.random.default_rng(3).normal(size=ITEMS)
    log_weights[17] = 0.0
    found = agree(case(5), log_weights)
    assert (found.items == 17).sum() > ROWS / 4


def test_a_catalogue_in_which_sums_round() -> None:
    """Many items, far apart in weight."""
    items = 50_000
    given = case(6, items)
    log_weights = np.random.default_rng(7).normal(scale=3, size=items)
    fast, plain = both(given, log_weights)
    assert (fast.items == plain.items).all()
    np.testing.assert_allclose(fast.law, plain.law, rtol=1e-9, atol=1e-9)


def test_sums() -> None:
    sums = Sums.of(np.log([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(sums.weight, [0.25, 0.5, 1, 0])
    np.testing.assert_allclose(sums.before, [0, 0.25, 0.75, 1.75])
    table = padded([np.array([4, 5]), np.array([], dtype=np.int64), np.array([6])], 9)
    assert table.tolist() == [[4, 5], [9, 9], [6, 9]]
    assert padded([np.array([], dtype=np.int64)], 9).shape == (1, 0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(ITEMS - 1), r"log_weights has the shape \(59,\), not \(60,\) or \(1, 60\)"),
        (np.full(ITEMS, np.nan), "log_weights holds NaN"),
        (np.where(np.arange(ITEMS), 0, np.inf), r"log_weights holds NaN or \+inf"),
    ],
)
def test_weights_that_are_none_are_refused(weights: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=f"sampler given: {message}"):
        both(case(0), weights)


def test_a_chosen_weight_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="sampler given: chosen_log_weights holds NaN"):
        both(case(0), np.zeros(ITEMS), np.full(ROWS, np.nan))
