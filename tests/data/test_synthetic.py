"""The replicas: repeatable, calibrated, and drawn from the laws that their ground truth states."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.data import sequences
from rosepo_bench.data.describe import describe
from rosepo_bench.data.synthetic import replica as synthetic
from rosepo_bench.data.synthetic.calibration import CALIBRATED, FACTS, TOLERANCE
from rosepo_bench.data.synthetic.replica import LAWS, generate, ground_truth
from rosepo_bench.data.synthetic.truth import GroundTruth
from rosepo_bench.data.types import Dataset, RawInteractions

KINDS: tuple[str, ...] = ("steam", "goodreads")
kinds = pytest.mark.parametrize("kind", KINDS)

CORE = 5  # what the facts were measured on


def truth_of(kind: str) -> GroundTruth:
    return ground_truth(kind, 800 if kind == "steam" else 120, 3)


def sample(truth: GroundTruth, n: int, seed: int) -> list[tuple[int, int]]:
    """``n`` places (user, step)."""
    rng = np.random.default_rng(seed)
    users = rng.integers(len(truth.sequences), size=n)
    return [(int(user), int(rng.integers(len(truth.sequences[user])))) for user in users]


def replica(kind: str, users: int, seed: int = 0) -> Dataset:
    return sequences.prepare(generate(kind, users, seed), CORE)


def rows(raw: RawInteractions) -> tuple[object, ...]:
    return raw.user.tobytes(), raw.item.tobytes(), raw.time.tobytes(), raw.titles, raw.genres, raw.user_ids


@kinds
def test_a_seed_is_one_replica(kind: str) -> None:
    first = rows(generate(kind, 60, 5))
    ground_truth.cache_clear()
    assert rows(generate(kind, 60, 5)) == first
    other = rows(generate(kind, 60, 6))
    assert all(here != there for here, there in zip(first[1:5], other[1:5], strict=True))


@kinds
def test_rows_are_the_ground_truth(kind: str) -> None:
    raw, truth = generate(kind, 60, 1), ground_truth(kind, 60, 1)
    assert raw.source.kind == "synthetic"
    assert "synthetic" in raw.source.note
    assert raw.titles == truth.world.titles
    for user, items in enumerate(truth.sequences):
        mine = raw.user == user
        assert np.array_equal(raw.item[mine], items)
        assert len(set(items.tolist())) == len(items)
        assert np.all(np.diff(raw.time[mine]) >= 0)


@kinds
@pytest.mark.parametrize("users", [600, 800, 1500])
def test_calibrated_facts_hold(kind: str, users: int) -> None:
    dataset = replica(kind, users)
    facts = describe(dataset, sequences.split(dataset, "leave_one_out"))
    for name in CALIBRATED:
        assert facts[name] == pytest.approx(FACTS[kind][name].value, rel=TOLERANCE), name
    assert dataset.users > 0.85 * users


@kinds
def test_titles_are_distinct(kind: str) -> None:
    titles = [title.casefold() for title in generate(kind, 1500 if kind == "steam" else 800, 0).titles]
    assert all(title == title.strip() != "" for title in titles)
    assert len(set(titles)) == len(titles)


@kinds
def test_no_title_is_real(kind: str, shared_data: Path) -> None:
    real = set()
    for path in ("steam/reviews.csv", "goodreads/goodbooks_titles.csv", "movielens/movies.csv"):
        with (shared_data / path).open(encoding="utf-8", newline="") as file:
            real |= {row["title"].split(" (")[0].casefold() for row in csv.DictReader(file)}
    assert len(real) > 10_000
    for seed in range(3):
        invented = {title.split(" (")[0].casefold() for title in truth_titles(kind, seed)}
        assert not invented & real


def truth_titles(kind: str, seed: int) -> tuple[str, ...]:
    return ground_truth(kind, 800 if kind == "steam" else 200, seed).world.titles


@kinds
def test_choices_are_drawn_from_the_softmax_over_the_slate(kind: str) -> None:
    """Sums of log-prob and of next volumes taken, less their expectations, within 4 standard errors."""
    truth = truth_of(kind)
    excess, variance = np.zeros((2, 2))
    for user, step in sample(truth, 5000, 0):
        slate = truth.slate(user, step)
        utility = truth.utility(user, step, slate)
        logp = utility - np.logaddexp.reduce(utility)
        follows = np.isin(truth.world.predecessor[slate], truth.sequences[user][:step])
        p, chosen = np.exp(logp), slate == truth.sequences[user][step]
        assert chosen.sum() == 1
        for place, value in enumerate((logp, follows.astype(float))):
            mean = float(p @ value)
            excess[place] += float(value[chosen][0]) - mean
            variance[place] += float(p @ (value - mean) ** 2)
    assert variance.min() > 100  # the slates leave something to choose
    assert np.all(np.abs(excess) < 4 * np.sqrt(variance))


@kinds
def test_utility_is_taste_quality_and_series(kind: str) -> None:
    truth, laws, world = truth_of(kind), LAWS[kind], truth_of(kind).world
    everything, seen = np.arange(world.items), set()
    for user, step in sample(truth, 200, 4):
        taken = {int(item): place for place, item in enumerate(truth.sequences[user][:step])}
        rest = truth.utility(user, step, everything) - world.quality
        rest -= world.vectors @ truth.tastes[user][step]
        for item, before in enumerate(world.predecessor.tolist()):
            expected = 0.0 if before < 0 else -laws.penalty
            if before in taken:
                gap = step - taken[before]  # 1: taken just now
                expected = laws.bonus * np.exp(-(gap - 1) / laws.memory)
                seen.add(gap)
            assert rest[item] == pytest.approx(expected, abs=1e-9)
    assert {1, 2, 3} <= seen


@kinds
def test_slates_are_drawn_from_the_exposure_law(kind: str) -> None:
    truth = truth_of(kind)
    shown, expected, variance = np.zeros((3, truth.world.items))
    for user, step in sample(truth, 3000, 1):
        probability, slate = truth.exposure(user, step), truth.slate(user, step)
        assert not set(slate.tolist()) & set(truth.sequences[user][:step].tolist())
        shown[slate] += 1
        expected += probability
        variance += probability * (1 - probability)
    score = (shown - expected) / np.sqrt(variance)
    assert abs((shown - expected).sum()) < 4 * np.sqrt(variance.sum())
    assert np.abs(score).max() < 5
    rare, popular = np.argsort(truth.world.weight)[[0, -1]]
    assert shown[popular] > 5 * shown[rare]


def test_choice_probabilities_agree_with_simulated_slates() -> None:
    truth = truth_of("steam")
    user, step = 11, 4
    everything = np.arange(truth.world.items)
    probability = np.exp(truth.log_choice(user, step, everything))
    assert probability.sum() == pytest.approx(1, abs=1e-8)
    assert np.all(probability[truth.sequences[user][:step]] == 0)
    rng, draws = np.random.default_rng(0), 20_000
    utility = truth.utility(user, step, everything)
    shown = rng.random((draws, truth.world.items)) < truth.exposure(user, step)
    shown = shown[shown.any(axis=1)]
    score = np.where(shown, utility + rng.gumbel(size=shown.shape), -np.inf)
    found = np.bincount(score.argmax(axis=1), minlength=truth.world.items)
    spread = np.sqrt(len(shown) * probability * (1 - probability)) + 1
    assert np.all(np.abs(found - len(shown) * probability) < 5 * spread)


@kinds
def test_tastes_walk_without_spreading(kind: str) -> None:
    truth, laws = truth_of(kind), LAWS[kind]
    first = np.array([taste[0] for taste in truth.tastes])
    later = np.array([taste[4] for taste in truth.tastes])
    assert later.std() == pytest.approx(laws.taste, rel=0.06)
    expected = (1 - laws.drift**2) ** 2
    assert np.corrcoef(first.ravel(), later.ravel())[0, 1] == pytest.approx(expected, abs=0.05)


@kinds
def test_sequels_share_words_and_follow(kind: str) -> None:
    truth = truth_of(kind)
    sequels = np.flatnonzero(truth.world.predecessor >= 0)
    assert len(sequels) > 0.2 * truth.world.items
    for item in sequels:
        before = truth.world.predecessor[item]
        words = set(truth.world.titles[item].split()) & set(truth.world.titles[before].split())
        assert any(len(word) > 3 for word in words)
        assert truth.world.genres[item] == truth.world.genres[before]
    followed = taken = 0
    for items in truth.sequences:
        step = {int(item): place for place, item in enumerate(items)}
        own = [(place, truth.world.predecessor[item]) for item, place in step.items()]
        taken += sum(before >= 0 for _, before in own)
        followed += sum(before >= 0 and step.get(int(before), place) < place for place, before in own)
    assert followed > 0.6 * taken > 0


@kinds
def test_semantic_traps_exist(kind: str) -> None:
    """Titles that carry a series' name, belong to another genre and please less."""
    world = truth_of(kind).world
    heads = {before for before in world.predecessor if before >= 0 and world.predecessor[before] < 0}
    names = {
        int(head): world.titles[head] if kind == "steam" else world.titles[head].split(" (")[1].split(",")[0]
        for head in heads
    }
    traps = [
        (head, item)
        for head, name in names.items()
        for item in range(world.items)
        if name in world.titles[item] and world.genres[item][0] != world.genres[head][0]
    ]
    assert len(traps) >= 5
    assert np.mean([world.quality[item] for _, item in traps]) < -1


@kinds
def test_histories_predict_more_than_popularity(kind: str) -> None:
    """HR@1 among 20 uniform candidates; the rival counts what soon followed the recent items in training."""
    dataset = replica(kind, 800)
    training = [items[:-2] for items in dataset.sequences]
    popularity = np.bincount(np.concatenate(training), minlength=dataset.items)
    after = np.zeros((dataset.items, dataset.items))
    for items in training:
        for gap in (1, 2, 3):
            np.add.at(after, (items[:-gap], items[gap:]), 1.0)
    rng, everything = np.random.default_rng(0), np.arange(dataset.items)
    hits = np.zeros(2)
    for items in dataset.sequences:
        drawn = rng.choice(np.setdiff1d(everything, items), 19, replace=False)
        candidates, recent = np.append(items[-1], drawn), items[-8:-1]
        follows = (after[recent][:, candidates] / (popularity[recent] + 5.0)[:, None]).sum(axis=0)
        popular = popularity[candidates] + 0.5 * rng.random(20)
        for place, score in enumerate((popular, follows + 0.3 * popular / popularity.sum())):
            hits[place] += score.argmax() == 0
    popular_hits, sequential_hits = hits / dataset.users
    assert 0.2 < popular_hits < 0.4
    assert sequential_hits > popular_hits + 0.08


@kinds
def test_prepared_positions_are_found_again(kind: str) -> None:
    users = 300 if kind == "steam" else 80
    dataset, truth = replica(kind, users, 2), ground_truth(kind, users, 2)
    owners, steps, items = truth.align(dataset)
    assert len(owners) == dataset.users
    assert np.all(np.diff(owners) > 0)
    for sequence, owner, places in zip(dataset.sequences, owners, steps, strict=True):
        assert np.array_equal(truth.sequences[owner][places], items[sequence])
    with pytest.raises(UserError, match="same users and seed"):
        ground_truth(kind, users, 3).align(dataset)


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'steam'"):
        generate("stream", 100, 0)
    with pytest.raises(UserError, match="at least 50"):
        generate("steam", synthetic.FEWEST_USERS - 1, 0)
    truth = ground_truth("steam", 60, 0)
    with pytest.raises(UserError, match="steps 0 to"):
        truth.utility(0, len(truth.sequences[0]), np.array([0]))
    with pytest.raises(UserError, match="users 0 to 59"):
        truth.slate(60, 0)
