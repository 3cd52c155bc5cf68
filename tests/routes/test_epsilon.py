"""ε of every pair by hand, from what a run has stored: the fold that did not see the user, the score difference, the
sampler's law, the temperature, the cap; and that it is what training is given, pair by pair."""

from __future__ import annotations

import functools
import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import by_hand
import numpy as np
import pytest
from by_hand import LEARNED, cell, judged_by, likeliest, sasrec_scores, sigmoid, watched

from rosepo_bench.base import store
from rosepo_bench.base.config import SASRecConfig
from rosepo_bench.base.work import Work
from rosepo_bench.engine.training.preference import TrainingPairs
from rosepo_bench.recommenders import sasrec
from rosepo_bench.runs.cells import Cell


class Pairs(NamedTuple):
    """One part's pairs, and what the formulas read of each: histories, score differences, laws, kinds."""

    user: np.ndarray
    histories: list[np.ndarray]
    chosen: np.ndarray
    rejected: np.ndarray
    kind: np.ndarray
    delta: np.ndarray
    unfolded: np.ndarray
    law: np.ndarray


class Run(NamedTuple):
    """One trained cell: what training was given, and both parts by hand."""

    cell: Cell
    given: TrainingPairs
    parts: dict[str, Pairs]


CASES = {
    "uniform": ("uniform", ()),
    "popularity": ("popularity", ("preference.popularity_exponent=0.7", "sasrec.length=3")),
    "semantic": ("semantic", ("preference.semantic_temperature=0.2", "prompt.history=4")),
    "semantic, near the target": ("semantic", ("preference.semantic_anchor=target",)),
    "semantic, without the law": ("semantic", ("oracle.correct_for_sampler=false",)),
    "self-hard": ("self_hard", ("preference.epsilon_max=0.2",)),
    "mixed": ("mixed", ("oracle.folds=3", "preference.epsilon_max=0.35", "preference.pairs=90")),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all cases: they share what they may."""
    return tmp_path_factory.mktemp("epsilon")


@pytest.fixture(scope="module", params=CASES)
def made(request: pytest.FixtureRequest, out: Path) -> Run:
    """A trained cell of each case."""
    sampler, settings = CASES[request.param]
    trained = cell(out, judged_by(sampler), *LEARNED, *settings)
    with watched() as given:
        trained.pipeline.stages.get(trained.trained)
    (pairs,) = given
    return Run(trained, pairs, {part: by_hand_pairs(trained, part) for part in ("train", "validation")})


def by_hand_pairs(made: Cell, part: str) -> Pairs:
    """One part's pairs with score differences from the stored weights, fold by fold."""
    data, folder = made.pipeline.data, made.pipeline.stages.folder
    drawn = store.read_npz(folder(made.pairing.rejected) / f"{part}.npz")
    oracle, baseline = folder(made.smoothing.oracle), folder(made.pipeline.sasrec) / "weights.safetensors"
    fold = store.read_npz(oracle / "folds.npz")["fold"]
    examples = made.pairing.examples[part]
    histories = [data.sequences[u][:s] for u, s in zip(examples.user, examples.step, strict=True)]
    chosen = np.array([data.sequences[u][s] for u, s in zip(examples.user, examples.step, strict=True)])
    rejected = drawn["rejected"]
    folded, unfolded = [], []
    for user, history, won, lost in zip(examples.user, histories, chosen, rejected, strict=True):
        scores = sasrec_scores(oracle / f"fold{fold[user]}.safetensors", history)
        folded.append(scores[lost] - scores[won])
        scores = sasrec_scores(baseline, history)
        unfolded.append(scores[lost] - scores[won])
    rows = zip(examples.user, examples.step, chosen, rejected, drawn["kind"], strict=True)
    law = np.array([brute_law(made, part, *row) for row in rows])
    corrected = made.pipeline.config.oracle.correct_for_sampler
    return Pairs(
        examples.user, histories, chosen, rejected, drawn["kind"], np.array(folded), np.array(unfolded), law * corrected
    )


def brute_law(made: Cell, part: str, user: int, step: int, chosen: int, rejected: int, kind: str) -> float:
    """log q(chosen | history, rejected) − log q(rejected | history, chosen), summing over every eligible item."""
    if kind == "self_hard":
        return 0.0
    data, settings = made.pipeline.data, made.pairing.settings
    past = data.sequences[user][:step].tolist()
    taken = Counter(int(item) for sequence in made.pipeline.training for item in sequence)
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
        near = [anchor] if settings.semantic_anchor == "target" else past[-made.pipeline.config.prompt.history :]
        mean = centre(*near)
        length = math.sqrt(sum(value**2 for value in mean.values()))
        return sum(value * mean[gram] for gram, value in texts[item].items()) / length

    def weight(item: int, anchor: int) -> float:
        if kind == "uniform":
            return 1.0
        if kind == "popularity":
            return float(taken[item] ** settings.popularity_exponent)
        return math.exp(cosine(item, anchor) / settings.semantic_temperature)

    def log_q(item: int, other: int) -> float:
        weights = {i: weight(i, other) for i in range(data.items) if i not in past and i != other}
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
    found = np.empty(len(pairs.user))
    for kind in set(pairs.kind):
        fitted, rows = judged.kind == kind, pairs.kind == kind
        tau = likeliest((judged.unfolded if unfolded else judged.delta)[fitted], judged.law[fitted])
        delta = (pairs.unfolded if unfolded else pairs.delta)[rows]
        found[rows] = sigmoid(delta / tau + pairs.law[rows])
    return np.clip(found, 0, made.cell.pairing.settings.epsilon_max)


def test_training_is_given_the_epsilon_of_its_pairs(made: Run) -> None:
    """Row by row: the same prompt, the same two items, and ε of just these."""
    pairs, given = made.parts["train"], made.given
    np.testing.assert_array_equal(given.examples.user, pairs.user)
    assert [given.examples.step[row] for row in range(len(pairs.user))] == [len(h) for h in pairs.histories]
    np.testing.assert_array_equal(given.titles, np.stack([pairs.chosen, pairs.rejected], axis=1))
    expected = epsilon_by_hand(made, "train")
    np.testing.assert_allclose(given.epsilon, expected, rtol=0, atol=1e-6)
    assert np.ptp(expected) > 0.1, "a truth that says nothing"


def test_validation_pairs_have_theirs(made: Run) -> None:
    found = made.cell.smoothing.epsilon("validation", "oracle")
    np.testing.assert_allclose(found, epsilon_by_hand(made, "validation"), rtol=0, atol=1e-6)


def test_without_folds_the_baselines_scores_judge(made: Run) -> None:
    """Its own temperature too; and it is another oracle than the cross-fitted one."""
    for part in ("train", "validation"):
        found = made.cell.smoothing.oracle_epsilon(part, unfolded=True)
        np.testing.assert_allclose(found, epsilon_by_hand(made, part, unfolded=True), rtol=0, atol=1e-6)
        assert np.abs(found - made.cell.smoothing.oracle_epsilon(part)).max() > 0.05


def test_temperatures_are_of_validation_pairs_of_one_kind(made: Run) -> None:
    pairs, fits = made.parts["validation"], made.cell.pipeline.stages.get(made.cell.smoothing.judged).temperatures
    sampler = made.cell.pairing.sampler
    kinds = {"self_hard", "semantic", "popularity"} if sampler == "mixed" else {sampler}
    assert set(fits) == kinds
    for kind, fit in fits.items():
        rows = pairs.kind == kind
        assert fit.n == rows.sum()
        assert fit.tau == pytest.approx(likeliest(pairs.delta[rows], pairs.law[rows]), rel=1e-5)
        logit = pairs.delta[rows] / fit.tau + pairs.law[rows]
        assert fit.accuracy == pytest.approx((logit < 0).mean())
        assert (fit.low, fit.high) == pytest.approx(by_hand.wilson(int((logit < 0).sum()), rows.sum()))
        assert fit.log_loss == pytest.approx(np.logaddexp(0, logit).mean(), abs=1e-6)


def test_the_cases_are_worth_their_time(made: Run) -> None:
    """Laws, caps and temperatures that would not show could not be tested."""
    pairs = made.parts["train"]
    if made.cell.pairing.sampler in ("popularity", "semantic", "mixed"):
        assert (np.abs(pairs.law).max() > 0.1) == made.cell.pipeline.config.oracle.correct_for_sampler
    fits = made.cell.pipeline.stages.get(made.cell.smoothing.judged).temperatures
    assert not all(fit.bounded for fit in fits.values())
    if made.cell.pairing.sampler in ("mixed", "self_hard"):
        cap = made.cell.pairing.settings.epsilon_max
        assert 0.05 < (made.given.epsilon == cap).mean() < 0.95


@pytest.mark.parametrize("folds", [2, 3])
def test_no_fold_was_trained_on_the_users_it_judges(
    folds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every fold on all others; the baseline on everybody. Histories are training parts: nothing held out."""
    seen: dict[str, Counter[bytes]] = {}
    train = sasrec.train

    def spy(sequences: list[np.ndarray], items: int, config: SASRecConfig, work: Work) -> sasrec.SASRec:
        seen[work.label] = Counter(sequence.astype(np.int64).tobytes() for sequence in sequences)
        return train(sequences, items, config, work)

    monkeypatch.setattr(sasrec, "train", spy)
    made = cell(tmp_path, "rosepo", f"oracle.folds={folds}")
    made.pipeline.stages.get(made.smoothing.judged)
    fold = store.read_npz(by_hand.stage_folder(tmp_path, "steam.oracle") / "folds.npz")["fold"]
    own = [sequence[:-2].astype(np.int64).tobytes() for sequence in made.pipeline.data.sequences]
    everybody = Counter(own)
    assert seen.pop("steam sasrec") == everybody
    assert len(seen) == folds == len(set(fold))
    for number in range(folds):
        judged = Counter(one for one, k in zip(own, fold, strict=True) if k == number)
        assert seen[f"steam oracle {number + 1}/{folds}"] == everybody - judged
