"""Which item is rejected: each sampler's settings reach the draw, shown where the answer is known."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import planted
import pytest
from planted import get

from rosepo_bench.base.plugins import registry
from rosepo_bench.losses.compiled import DPO
from rosepo_bench.preference.samplers.base import Sampler
from rosepo_bench.runs.cells import Cell
from rosepo_bench.runs.methods import Preference

Run = tuple[Cell, planted.World]


def made(folder: Path, sampler: str, *settings: str) -> Run:
    """A cell of one sampler without smoothing."""
    world = planted.world()
    method = Preference(name="planted", about="one sampler", loss=DPO(), sampler=registry(Sampler)[sampler]())
    return planted.cell(folder / "out", world.write(folder), *settings, method=method), world


def rows(cell: Cell, part: str) -> list[tuple[int, int, int]]:
    """(user, step, rejected item) of each pair."""
    given, drawn = cell.pairing.examples[part], get(cell, cell.pairing.rejected)[part]
    assert drawn.items.shape == (len(given), 1)
    return list(zip(given.user.tolist(), given.step.tolist(), drawn.items[:, 0].tolist(), strict=True))


def eligible(world: planted.World, user: int, step: int) -> list[int]:
    """All but the past and the item taken next."""
    return [item for item in range(planted.ITEMS) if item not in world.histories[user][: step + 1]]


@pytest.mark.parametrize("sampler", ["uniform", "semantic", "popularity", "self_hard", "mixed"])
def test_never_chosen_nor_past_but_the_future_is_open(sampler: str, tmp_path: Path) -> None:
    cell, world = made(tmp_path, sampler, "samplers.semantic.temperature=1.0", "preference.pairs=80")
    future = 0
    for part in ("train", "validation"):
        assert all(item in eligible(world, user, step) for user, step, item in rows(cell, part))
        future += sum(item in world.histories[user][step + 1 :] for user, step, item in rows(cell, part))
    assert future > 0


def test_a_large_exponent_rejects_the_most_popular_of_training(tmp_path: Path) -> None:
    cell, world = made(tmp_path, "popularity", "samplers.popularity.exponent=200.0")
    training, everything = (
        Counter(item for own in histories for item in own) for histories in (world.training(), world.histories)
    )
    crossed = 0
    for part in ("train", "validation"):
        for user, step, item in rows(cell, part):
            others = eligible(world, user, step)
            assert training[item] == max(training[other] for other in others)
            crossed += everything[item] != max(everything[other] for other in others)
    assert crossed, "counts of all interactions would choose the same items: plant another world"


def test_an_exponent_of_zero_rejects_the_unpopular_too(tmp_path: Path) -> None:
    cell, _ = made(tmp_path, "popularity", "samplers.popularity.exponent=0.0", "preference.pairs=80")
    assert {item for _, _, item in rows(cell, "train")} >= set(planted.NEVER_TRAINED)


def cosines(world: planted.World) -> np.ndarray:
    """TF-IDF vectors of length 1 over the 3- and 4-grams of each word of title and genre, dense ``[items, grams]``."""
    texts = [f"{title} {genre}".lower() for title, genre in zip(world.titles, world.genres, strict=True)]
    bags = []
    for text in texts:
        padded = [f" {word} " for word in text.split()]
        bags.append(Counter(word[at : at + n] for word in padded for n in (3, 4) for at in range(len(word) - n + 1)))
    known = sorted(set().union(*bags))
    tf = np.array([[bag[gram] for gram in known] for bag in bags], dtype=float)
    idf = np.log((1 + len(texts)) / (1 + (tf > 0).sum(axis=0))) + 1
    vectors = np.where(tf > 0, 1 + np.log(np.maximum(tf, 1)), 0) * idf
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize("anchor", ["history", "target"])
def test_a_small_temperature_rejects_the_nearest(anchor: str, tmp_path: Path) -> None:
    """To the last items of the history, as many as the prompt has, or to the item taken next."""
    cell, world = made(tmp_path, "semantic", "samplers.semantic.temperature=1e-5", f"samplers.semantic.anchor={anchor}")
    vectors = cosines(world)
    for part in ("train", "validation"):
        for user, step, item in rows(cell, part):
            own = world.histories[user]
            near = [own[step]] if anchor == "target" else own[max(0, step - planted.HISTORY) : step]
            likeness = vectors @ vectors[near].sum(axis=0)
            best = max(likeness[other] for other in eligible(world, user, step))
            assert likeness[item] == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("anchor", ["history", "target"])
def test_the_law_of_a_pair_turns_it_round(anchor: str, tmp_path: Path) -> None:
    """log q(chosen | rejected was chosen) − log q(rejected | chosen was chosen), each a softmax over what is eligible
    then: it reaches ε beside the oracle's scores."""
    temperature = 0.3
    settings = (f"samplers.semantic.temperature={temperature}", f"samplers.semantic.anchor={anchor}")
    cell, world = made(tmp_path, "semantic", *settings)
    vectors, laws = cosines(world), get(cell, cell.pairing.rejected)["train"].law[:, 0]

    def logq(user: int, step: int, drawn: int, chosen: int) -> float:
        past = world.histories[user][:step]
        near = [chosen] if anchor == "target" else past[-planted.HISTORY :]
        around = vectors[near].sum(axis=0)
        likeness = vectors @ around / np.linalg.norm(around) / temperature
        others = [item for item in range(planted.ITEMS) if item not in past and item != chosen]
        return float(likeness[drawn] - np.log(np.exp(likeness[others]).sum()))

    for law, (user, step, item) in zip(laws, rows(cell, "train"), strict=True):
        target = world.histories[user][step]
        assert law == pytest.approx(logq(user, step, target, item) - logq(user, step, item, target), abs=1e-9)
    assert np.abs(laws).max() > 0.1


def test_a_large_temperature_rejects_anything(tmp_path: Path) -> None:
    cell, _ = made(tmp_path, "semantic", "samplers.semantic.temperature=1e4", "preference.pairs=80")
    assert len({item for _, _, item in rows(cell, "train")}) > 15


@pytest.mark.parametrize("pool", ["candidates", "catalogue"])
def test_self_hard_rejects_the_sft_models_first_choice(pool: str, tmp_path: Path) -> None:
    """Among the prompt's own candidates, or all items: by transformers' forward passes under SFT's weights."""
    cell, world = made(tmp_path, "self_hard", f"samplers.self_hard.items={pool}", "preference.pairs=20")
    network, everything = planted.network(cell, cell.sft), np.arange(planted.ITEMS)
    for part in ("train", "validation"):
        given = cell.pairing.examples[part]
        prompts = planted.prompts_of(cell, world, given)
        pools = given.candidates if pool == "candidates" else np.tile(everything, (len(given), 1))
        scores = planted.sums(network, cell, world, prompts, pools)
        for row, (user, step, item) in enumerate(rows(cell, part)):
            allowed = set(eligible(world, user, step))
            said = {int(other): score for other, score in zip(pools[row], scores[row], strict=True) if other in allowed}
            assert said[item] > max(said.values()) - 1e-4


def test_a_mixture_draws_thirds_and_each_by_its_own_rule(tmp_path: Path) -> None:
    limits = ("samplers.popularity.exponent=200.0", "samplers.semantic.temperature=1e-5", "preference.pairs=96")
    cell, world = made(tmp_path, "mixed", *limits, "preference.steps_per_user=4")
    training = Counter(item for own in world.training() for item in own)
    vectors, pools = cosines(world), get(cell, cell.pairing.mining.stage)["train"]
    kinds = get(cell, cell.pairing.rejected)["train"].kind[:, 0]
    n, third = len(kinds), len(kinds) / 3
    assert n == 96 or n == sum(min(4, len(own) - 1) for own in world.training())
    for kind in ("self_hard", "semantic", "popularity"):
        assert abs((kinds == kind).sum() - third) < 4 * (n * 2 / 9) ** 0.5
    for row, (user, step, item) in enumerate(rows(cell, "train")):
        others, own = eligible(world, user, step), world.histories[user]
        if kinds[row] == "popularity":
            assert training[item] == max(training[other] for other in others)
        elif kinds[row] == "semantic":
            likeness = vectors @ vectors[own[max(0, step - planted.HISTORY) : step]].sum(axis=0)
            assert likeness[item] == pytest.approx(max(likeness[other] for other in others), abs=1e-9)
        else:
            scores = dict(zip(pools["scored"][row].tolist(), pools["scores"][row].tolist(), strict=True))
            assert scores[item] == max(score for other, score in scores.items() if other in others)
