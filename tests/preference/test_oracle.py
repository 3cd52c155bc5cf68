"""The oracle: no model judges a user it saw, τ is found again, and ε is the formula."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import HoldoutView, TrainView
from rosepo_bench.preference import calibration
from rosepo_bench.preference.oracles import cross_fit as oracle
from rosepo_bench.recommenders import sasrec
from rosepo_bench.recommenders.base import State
from rosepo_bench.recommenders.popularity import Popularity
from rosepo_bench.recommenders.sasrec import SASRec

SMALL = SASRec(hidden=16, layers=1, heads=1, dropout=0.0, length=8, epochs=2, lr=1e-2, batch=8)


def logistic_pairs(tau: float, n: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    """Pairs from the model itself: of two items with utilities s/τ and a sampler's law, which is chosen?"""
    draw = np.random.default_rng(1)
    first_minus_second, law = draw.normal(0, 3, n), draw.normal(0, 1, n)
    chosen = draw.random(n) < 1 / (1 + np.exp(-(first_minus_second / tau + law)))
    sign = np.where(chosen, -1, 1)  # delta and law are those of the rejected item against the chosen one
    return sign * first_minus_second, sign * law


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_tau_is_found_again(tau: float) -> None:
    delta, law = logistic_pairs(tau)
    assert calibration.likeliest_tau(delta, law) == pytest.approx(tau, rel=0.06)
    fit = calibration.fit_temperature(delta, law, np.zeros(len(delta)), seed=0)
    assert fit.calibration_error < 0.01
    assert fit.log_loss < fit.constant_log_loss == pytest.approx(math.log(2))
    assert not fit.bounded


def test_tau_needs_the_law() -> None:
    """Without the correction the same pairs give another temperature and a worse loss."""
    delta, law = logistic_pairs(1.0)
    with_law = calibration.fit_temperature(delta, law, delta, seed=0)
    without = calibration.fit_temperature(delta, np.zeros_like(law), delta, seed=0)
    assert without.log_loss > with_law.log_loss + 0.01


def test_tau_maximises_the_likelihood_whatever_the_orientation() -> None:
    delta, law = logistic_pairs(1.4, 300)
    tau = calibration.likeliest_tau(delta, law)

    def loss(value: float, sign: np.ndarray) -> float:
        """Mean log-loss of turned pairs, from the definition: label 1 with the probability σ(logit)."""
        logit, label = sign * (delta / value + law), sign < 0
        probability = 1 / (1 + np.exp(-logit))
        return float(-np.mean(np.log(np.where(label, probability, 1 - probability))))

    for seed in range(3):
        sign = np.where(np.random.default_rng(seed).random(len(delta)) < 0.5, -1.0, 1.0)
        assert loss(tau, sign) == pytest.approx(loss(tau, -np.ones(len(delta))), rel=1e-12)
        assert loss(tau, sign) < min(loss(0.98 * tau, sign), loss(1.02 * tau, sign))


def test_tau_stays_in_its_range() -> None:
    right, nothing = np.full(50, -3.0), np.zeros(50)
    assert calibration.likeliest_tau(right, nothing) == calibration.TAU_RANGE[0]
    assert calibration.likeliest_tau(-right, nothing) == calibration.TAU_RANGE[1]
    assert calibration.fit_temperature(-right, nothing, nothing, seed=0).bounded


def test_orientation_denies_a_useless_oracle_its_score() -> None:
    """Scores that tie say nothing: right by chance, where unturned pairs would call every tie right."""
    nothing = np.zeros(4000)
    fit = calibration.fit_temperature(nothing, nothing, nothing, seed=0)
    assert fit.low < 0.5 < fit.high
    assert fit.popularity_accuracy == pytest.approx(0.5, abs=0.03)
    assert fit.log_loss == pytest.approx(fit.constant_log_loss)


def test_accuracy_and_its_interval() -> None:
    delta = np.array([-1.0] * 80 + [1.0] * 20)
    fit = calibration.fit_temperature(delta, np.zeros(100), -delta, seed=4)
    assert fit.accuracy == 0.8
    assert fit.popularity_accuracy == 0.2
    assert (fit.low, fit.high) == pytest.approx((0.7112, 0.8666), abs=1e-4)  # Wilson, 80 of 100


def test_epsilon_is_the_formula() -> None:
    delta, law = np.array([-2.0, 0.0, 3.0, 1.0]), np.array([0.5, -1.0, 0.0, -np.inf])
    wanted = [1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(1.0)), 0.45, 0.0]
    np.testing.assert_allclose(calibration.epsilon(delta, law, 2.0, 0.45), wanted, rtol=1e-12)
    by_pair = calibration.epsilon(delta, law, np.array([2.0, 1.0, 1.0, 1.0]), 0.5)
    np.testing.assert_allclose(by_pair, [*wanted[:2], 0.5, 0.0], rtol=1e-12)
    with pytest.raises(AssertionError, match="flips"):
        calibration.epsilon(delta, law, 1.0, 0.6)


def test_summary_and_gap() -> None:
    values = np.array([0.0, 0.04, 0.05, 0.5, 0.5])
    found = calibration.summary(values)
    assert found["counts"] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found["edges"] == [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]
    assert (found["mean"], found["sd"]) == pytest.approx((values.mean(), values.std()))
    found = calibration.epsilon_gap(np.array([0.3, 0.1]), np.array([0.1, 0.1, 0.0, 0.2]), np.array([0, 0, 5, 5]))
    assert found.value == pytest.approx(0.1)
    assert found.high - found.value == pytest.approx(1.959964 * np.sqrt(0.01 / 2))


def test_folds_are_even_and_drawn() -> None:
    fold = oracle.assign_folds(11, 3, seed=0)
    assert sorted(np.bincount(fold)) == [3, 4, 4]
    assert (fold != oracle.assign_folds(11, 3, seed=1)).any()
    with pytest.raises(UserError, match="folds"):
        oracle.assign_folds(1, 2, seed=0)


def users(n: int = 12) -> list[np.ndarray]:
    """User u's history is recognisable: items 2u and 2u + 1 in turn."""
    return [np.array([2 * user, 2 * user + 1] * 4, dtype=np.int32) for user in range(n)]


def view(sequences: list[np.ndarray], items: int) -> TrainView:
    """All of the sequences, for training."""
    return TrainView(tuple(sequences), np.arange(len(sequences)), ("",) * items, ((),) * items)


def queries(user: np.ndarray, histories: list[np.ndarray]) -> Queries:
    """Prompts without candidates."""
    step = np.array([len(history) for history in histories])
    return Queries(user, step, np.zeros_like(step), np.empty((len(user), 0), np.int32), tuple(histories))


def test_no_fold_is_trained_on_its_own_users(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []
    seeds: list[int] = []
    train = sasrec.train

    def spy(sequences: list[np.ndarray], items: int, config: SASRec, work: Work, holdout: Any) -> sasrec.Network:
        seeds.append(work.seed)
        seen.append({int(item) // 2 for sequence in sequences for item in sequence})
        return train(sequences, items, config, work, holdout)

    monkeypatch.setattr(sasrec, "train", spy)
    fitted = oracle.cross_fit(SMALL, view(users(), 24), 3, Work(seed=0), None)
    assert len(seen) == len(set(seeds)) == 3
    for number, trained_on in enumerate(seen):
        assert trained_on == set(np.flatnonzero(fitted.fold != number).tolist())
    assert set.union(*seen) == set(range(12))


def test_no_fold_is_stopped_by_the_users_it_judges() -> None:
    """Of the validation part each fold sees that of its own users, rows in step."""
    seen: list[HoldoutView | None] = []

    class Spy(Popularity):
        def fit(self, view: TrainView, work: Work, holdout: HoldoutView | None) -> State:
            seen.append(holdout)
            return super().fit(view, work, holdout)

    user, target = np.array([7, 2, 11, 0, 5]), np.array([70, 20, 110, 0, 50])
    given = HoldoutView(queries(user, [users()[u][:3] for u in user]), target, user % 4, lambda s, h: 0.0, "high")
    fitted = oracle.cross_fit(Spy(), view(users(), 24), 3, Work(seed=0), given)
    for number, part in enumerate(seen):
        assert part is not None
        assert part.queries.user.tolist() == [u for u in user if fitted.fold[u] != number]
        assert part.target.tolist() == (10 * part.queries.user).tolist()
        assert part.position.tolist() == (part.queries.user % 4).tolist()
        assert [history[0] // 2 for history in part.queries.histories] == part.queries.user.tolist()
    assert len(seen) == 3
    assert min(len(part.target) for part in seen if part) < 5


def test_a_fold_that_diverges_stops_the_fit_by_name(tmp_path: Path) -> None:
    """The message names the fold; no fold that diverged is kept as finished."""
    with pytest.raises(UserError, match=r"oracle 1/2: .* at step \d+ .*lower lr \(1e\+30\)"):
        oracle.cross_fit(replace(SMALL, lr=1e30), view(users(), 24), 2, Work(0, "oracle", tmp_path), None)
    assert not list(tmp_path.glob("*.npz"))


def test_scores_come_from_the_users_own_fold() -> None:
    fitted = oracle.cross_fit(SMALL, view(users(), 24), 2, Work(seed=0), None)
    user = np.array([3, 0, 7, 3, 11])
    histories = [users()[number][:3] for number in user]
    candidates = np.random.default_rng(0).integers(24, size=(5, 4))
    found = fitted.scores(queries(user, histories), candidates)
    networks = [SMALL.network(state) for state in fitted.states]
    for row, number in enumerate(user):
        alone = sasrec.scores(networks[fitted.fold[number]], [histories[row]], candidates[[row]])[0]
        np.testing.assert_allclose(found[row], alone, atol=1e-5)
    first, second = (sasrec.scores(network, histories, candidates) for network in networks)
    assert np.abs(first - second).max() > 1e-3, "the folds' models are one"


def test_memorised_pairs_show_in_the_gap() -> None:
    """Random histories: nothing to learn, all to memorise. An oracle that saw a pair is sure of it, a
    cross-fitted is not."""
    draw = np.random.default_rng(0)
    sequences = [draw.integers(30, size=9).astype(np.int32) for _ in range(24)]
    config = replace(SMALL, hidden=32, epochs=60)
    prompts = queries(np.arange(24), [sequence[:-1] for sequence in sequences])
    chosen = np.array([sequence[-1] for sequence in sequences])
    candidates = np.stack([(chosen + 7) % 30, chosen], axis=1)
    folded = oracle.cross_fit(config, view(sequences, 30), 2, Work(seed=0), None).scores(prompts, candidates)
    unfolded = config.scores(config.fit(view(sequences, 30), Work(seed=0), None), prompts, candidates)
    none = np.zeros(24)
    sure, unsure = (calibration.epsilon(s[:, 0] - s[:, 1], none, 1.0, 0.5).mean() for s in (unfolded, folded))
    assert sure < 0.05
    assert unsure > 0.15


def test_interrupted_cross_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = oracle.cross_fit(SMALL, view(users(), 24), 2, Work(seed=0), None)
    oracle.cross_fit(SMALL, view(users(), 24), 2, Work(0, "oracle", tmp_path), None)
    (tmp_path / "fold1.npz").unlink()
    trained: list[str] = []
    train = sasrec.train

    def spy(sequences: list[np.ndarray], items: int, config: SASRec, work: Work, holdout: Any) -> sasrec.Network:
        trained.append(work.label)
        return train(sequences, items, config, work, holdout)

    monkeypatch.setattr(sasrec, "train", spy)
    again = oracle.cross_fit(SMALL, view(users(), 24), 2, Work(0, "oracle", tmp_path), None)
    assert trained == ["oracle 2/2"], "a finished fold was trained again"
    for one, two in zip(whole.states, again.states, strict=True):
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[name], two[name]) for name in one)
