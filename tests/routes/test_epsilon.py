"""ε of every pair by hand, from what a run has stored: the fold that did not see the user, the score difference, the
sampler's law, the temperature, the cap; and that it is what training is given, pair by pair."""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import by_hand
import numpy as np
import pytest
from by_hand import LEARNED, cell, judged_by, likeliest, sasrec_scores, sigmoid, watched

from rosepo_bench.base import store
from rosepo_bench.base.work import Work
from rosepo_bench.engine.training.steps import TrainingPairs
from rosepo_bench.recommenders import sasrec
from rosepo_bench.recommenders.sasrec import SASRec
from rosepo_bench.runs.cells import Cell


class Pairs(NamedTuple):
    """One part's pairs, and what the formulas read of each: histories, and for each of K rejected items score
    differences, laws, kinds, and whether there is one (``mask``)."""

    user: np.ndarray
    histories: list[np.ndarray]
    chosen: np.ndarray
    rejected: np.ndarray
    kind: np.ndarray
    mask: np.ndarray
    delta: np.ndarray
    unfolded: np.ndarray
    law: np.ndarray


class Run(NamedTuple):
    """One trained cell: what training was given, and both parts by hand."""

    cell: Cell
    given: TrainingPairs
    parts: dict[str, Pairs]


LISTS = {"uniform, three": 3, "popularity, three": 3, "self-hard, lists of three for five": 5, "mixed, three": 3}
CASES = {
    "uniform": ("uniform", ()),
    "uniform, three": ("uniform", ()),
    "popularity, three": ("popularity", ()),
    "self-hard, lists of three for five": ("self_hard", ("datasets.steam.candidates=4",)),
    "mixed, three": ("mixed", ()),
    "popularity": ("popularity", ("samplers.popularity.exponent=0.7", "oracles.sasrec.length=3")),
    "semantic": ("semantic", ("samplers.semantic.temperature=0.2", "samplers.semantic.history=4")),
    "semantic, near the target": ("semantic", ("samplers.semantic.anchor=target",)),
    "semantic, without the law": ("semantic", ("smoothings.predicted.correct_for_sampler=false",)),
    "self-hard": ("self_hard", ("smoothings.predicted.cap=0.2",)),
    "mixed": ("mixed", ("smoothings.predicted.folds=3", "smoothings.predicted.cap=0.35", "preference.pairs=90")),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all cases: they share what they may."""
    return tmp_path_factory.mktemp("epsilon")


@pytest.fixture(scope="module", params=CASES)
def made(request: pytest.FixtureRequest, out: Path) -> Run:
    """A trained cell of each case."""
    sampler, settings = CASES[request.param]
    method = replace(judged_by(sampler), rejected=LISTS.get(request.param, 1))
    trained = cell(out, method, *LEARNED, *settings)
    with watched() as given:
        trained.task.stages.get(trained.trained)
    (pairs,) = given
    return Run(trained, pairs, {part: by_hand_pairs(trained, part) for part in ("train", "validation")})


def by_hand_pairs(made: Cell, part: str) -> Pairs:
    """One part's pairs with score differences from the stored weights, fold by fold."""
    data, folder = made.task.data, made.task.stages.folder
    drawn = store.read_npz(folder(made.pairing.rejected) / f"{part}.npz")
    judging = made.smoothed.judging
    assert judging is not None
    oracle, baseline = folder(judging.crossfit), folder(judging.everybody) / "state.npz"
    fold = store.read_npz(oracle / "folds.npz")["fold"]
    examples = made.pairing.examples[part]
    histories = [data.sequences[u][:s] for u, s in zip(examples.user, examples.step, strict=True)]
    chosen = np.array([data.sequences[u][s] for u, s in zip(examples.user, examples.step, strict=True)])
    rejected, kinds, mask = drawn["items"], drawn["kind"], drawn["mask"]
    assert rejected.shape == (len(chosen), made.method.rejected)
    np.testing.assert_array_equal(mask, rejected >= 0)
    folded, unfolded, law = (np.zeros(rejected.shape) for _ in range(3))
    corrected = made.method.smoothing.correct_for_sampler
    for row, (user, history, won) in enumerate(zip(examples.user, histories, chosen, strict=True)):
        lost, places = rejected[row], np.flatnonzero(mask[row])
        for values, weights in ((folded, oracle / f"fold{fold[user]}.npz"), (unfolded, baseline)):
            scores = sasrec_scores(weights, history)
            values[row, places] = scores[lost[places]] - scores[won]
        for place in places if corrected else ():
            kind, before = str(kinds[row, place]), lost[:place].tolist()
            law[row, place] = brute_law(made, part, user, len(history), won, lost[place], kind, before)
    return Pairs(examples.user, histories, chosen, rejected, kinds, mask, folded, unfolded, law)


def brute_law(
    made: Cell, part: str, user: int, step: int, chosen: int, rejected: int, kind: str, before: list[int]
) -> float:
    """log q(chosen | history, rejected) − log q(rejected | history, chosen), summing over every eligible item; what was
    rejected ``before`` is none."""
    if kind == "self_hard":
        return 0.0
    data, sampler = made.task.data, made.method.sampler
    own = getattr(sampler, kind, sampler)  # of a mixture, the part that drew the pair
    assert own.name == kind
    past = data.sequences[user][:step].tolist()
    training = [sequence[:-2] for sequence in data.sequences]
    taken = Counter(int(item) for sequence in training for item in sequence)
    if part == "train":
        taken[chosen] -= 1  # the pair's own interaction would name the chosen item
    texts = text_vectors(data.titles, data.genres) if kind == "semantic" else []

    @functools.cache
    def centre(*items: int) -> Counter[str]:
        mean: Counter[str] = Counter()
        for item in items:
            mean.update(texts[item])
        return mean

    def cosine(item: int, anchor: int) -> float:
        near = [anchor] if own.anchor == "target" else past[-own.history :]
        mean = centre(*near)
        length = math.sqrt(sum(value**2 for value in mean.values()))
        return sum(value * mean[gram] for gram, value in texts[item].items()) / length

    def weight(item: int, anchor: int) -> float:
        if kind == "uniform":
            return 1.0
        if kind == "popularity":
            return float(taken[item] ** own.exponent)
        return math.exp(cosine(item, anchor) / own.temperature)

    def log_q(item: int, other: int) -> float:
        weights = {i: weight(i, other) for i in range(data.items) if i not in past and i not in before and i != other}
        return math.log(weights[item] / sum(weights.values())) if weights[item] else -math.inf

    return log_q(chosen, rejected) - log_q(rejected, chosen)


@functools.lru_cache(maxsize=1)
def text_vectors(titles: tuple[str, ...], genres: tuple[tuple[str, ...], ...]) -> list[Counter[str]]:
    """Unit TF-IDF vectors of character 3- and 4-grams within words, as dictionaries."""
    counted = []
    for title, names in zip(titles, genres, strict=True):
        words = [f" {word} " for word in " ".join([title, *names]).casefold().split()]
        counted.append(Counter(word[a : a + n] for word in words for n in (3, 4) for a in range(len(word) - n + 1)))
    documents = Counter(gram for one in counted for gram in one)
    found = []
    for one in counted:
        raw = {g: (1 + math.log(k)) * (math.log((1 + len(counted)) / (1 + documents[g])) + 1) for g, k in one.items()}
        length = math.sqrt(sum(value**2 for value in raw.values()))
        found.append(Counter({gram: value / length for gram, value in raw.items()}))
    return found


def epsilon_by_hand(made: Run, part: str, *, unfolded: bool = False) -> np.ndarray:
    """ε of a part's pairs; the temperature of a kind from the validation pairs of that kind alone."""
    judged, pairs = made.parts["validation"], made.parts[part]
    found = np.zeros(pairs.mask.shape)
    for kind in np.unique(pairs.kind[pairs.mask]):
        fitted, rows = judged.mask & (judged.kind == kind), pairs.mask & (pairs.kind == kind)
        tau = likeliest((judged.unfolded if unfolded else judged.delta)[fitted], judged.law[fitted])
        delta = (pairs.unfolded if unfolded else pairs.delta)[rows]
        found[rows] = sigmoid(delta / tau + pairs.law[rows])
    return np.clip(found, 0, made.cell.method.smoothing.cap)


def test_training_is_given_the_epsilon_of_its_pairs(made: Run) -> None:
    """Row by row: the same prompt, the same two items, and ε of just these."""
    pairs, given = made.parts["train"], made.given
    np.testing.assert_array_equal(given.examples.user, pairs.user)
    assert [given.examples.step[row] for row in range(len(pairs.user))] == [len(h) for h in pairs.histories]
    np.testing.assert_array_equal(given.titles, np.column_stack([pairs.chosen, pairs.rejected]))
    expected = epsilon_by_hand(made, "train")
    np.testing.assert_allclose(given.epsilon, expected, rtol=0, atol=1e-6)
    assert np.ptp(expected) > 0.1, "a truth that says nothing"


def test_validation_pairs_have_theirs(made: Run) -> None:
    found = made.cell.smoothed.epsilon("validation")
    np.testing.assert_allclose(found, epsilon_by_hand(made, "validation"), rtol=0, atol=1e-6)


def test_without_folds_the_baselines_scores_judge(made: Run) -> None:
    """Its own temperature too; and it is another oracle than the cross-fitted one."""
    for part in ("train", "validation"):
        found = made.cell.smoothed.unfolded_epsilon(part)
        np.testing.assert_allclose(found, epsilon_by_hand(made, part, unfolded=True), rtol=0, atol=1e-6)
        assert np.abs(found - made.cell.smoothed.epsilon(part)).max() > 0.05


def test_temperatures_are_of_validation_pairs_of_one_kind(made: Run) -> None:
    pairs, fits = made.parts["validation"], made.cell.task.stages.get(made.cell.smoothed.judging.stage).temperatures
    sampler = made.cell.method.sampler.name
    kinds = {"self_hard", "semantic", "popularity"} if sampler == "mixed" else {sampler}
    assert set(fits) == kinds
    for kind, fit in fits.items():
        rows = pairs.mask & (pairs.kind == kind)
        assert fit.n == rows.sum()
        assert fit.tau == pytest.approx(likeliest(pairs.delta[rows], pairs.law[rows]), rel=1e-5)
        logit = pairs.delta[rows] / fit.tau + pairs.law[rows]
        assert fit.accuracy == pytest.approx((logit < 0).mean())
        assert (fit.low, fit.high) == pytest.approx(by_hand.wilson(int((logit < 0).sum()), rows.sum()))
        assert fit.log_loss == pytest.approx(np.logaddexp(0, logit).mean(), abs=1e-6)


def test_the_cases_are_worth_their_time(made: Run) -> None:
    """Laws, caps and temperatures that would not show could not be tested."""
    pairs = made.parts["train"]
    if made.cell.method.sampler.name in ("popularity", "semantic", "mixed"):
        assert (np.abs(pairs.law).max() > 0.1) == made.cell.method.smoothing.correct_for_sampler
    fits = made.cell.task.stages.get(made.cell.smoothed.judging.stage).temperatures
    assert not all(fit.bounded for fit in fits.values())
    if made.cell.method.sampler.name in ("mixed", "self_hard"):
        cap = made.cell.method.smoothing.cap
        assert 0.05 < (made.given.epsilon == cap)[pairs.mask].mean() < 0.95
    assert pairs.mask.sum(axis=1).max() == min(made.cell.method.rejected, 3), "lists of five are cut to three"


@pytest.mark.parametrize("folds", [2, 3])
def test_no_fold_was_trained_on_the_users_it_judges(
    folds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every fold on all others; the baseline on everybody. Histories are training parts: nothing held out."""
    seen: dict[str, Counter[bytes]] = {}
    train = sasrec.train

    def spy(sequences: list[np.ndarray], items: int, config: SASRec, work: Work, holdout: object) -> sasrec.Network:
        seen[work.label] = Counter(sequence.astype(np.int64).tobytes() for sequence in sequences)
        assert holdout is None
        return train(sequences, items, config, work, holdout)

    monkeypatch.setattr(sasrec, "train", spy)
    made = cell(tmp_path, "rosepo", f"smoothings.predicted.folds={folds}")
    assert made.smoothed.judging is not None
    made.task.stages.get(made.smoothed.judging.stage)
    fold = store.read_npz(by_hand.stage_folder(tmp_path, "steam.crossfit.sasrec") / "folds.npz")["fold"]
    own = [sequence[:-2].astype(np.int64).tobytes() for sequence in made.task.data.sequences]
    everybody = Counter(own)
    assert seen.pop("steam sasrec") == everybody
    assert len(seen) == folds == len(set(fold))
    for number in range(folds):
        judged = Counter(one for one, k in zip(own, fold, strict=True) if k == number)
        assert seen[f"steam sasrec {number + 1}/{folds}"] == everybody - judged
