"""Oracles that know the truth, or its opposite, in the place of the trained one: which way every sign points. And the
ε of methods without an oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from by_hand import cell, judged_by, run, sets, watched

from rosepo_bench.data.types import Queries
from rosepo_bench.preference.oracles.cross_fit import CrossFitted
from rosepo_bench.recommenders import sasrec
from rosepo_bench.runs import diagnostics, record
from rosepo_bench.runs.cells import Cell

Scores = Callable[[Queries, np.ndarray], np.ndarray]


def planted(made: Cell, sign: float) -> Scores:
    """Scores that call the item taken next the best one (``sign`` 1) or the worst (-1), for any user and history."""

    def scores(queries: Queries, items: np.ndarray) -> np.ndarray:
        sequences = made.task.data.sequences
        taken = np.array([sequences[u][len(h)] for u, h in zip(queries.user, queries.histories, strict=True)])
        return (sign * (items == taken[:, None])).astype(np.float64)

    return scores


def plant(monkeypatch: pytest.MonkeyPatch, made: Cell, sign: float) -> None:
    """For the cross-fitted oracle; the one without folds keeps its own scores."""
    scores = planted(made, sign)
    monkeypatch.setattr(CrossFitted, "scores", lambda self, *given: scores(*given))


@pytest.mark.parametrize("sampler", ["uniform", "self_hard", "popularity", "mixed"])
def test_an_oracle_that_knows_what_came_next_makes_epsilon_small(
    sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One utility apart and τ at its lower bound 1/4: ε = σ(-4) for every pair; for the opposite oracle τ goes to its
    upper bound 8, ε = σ(1/8), and is cut to 1/2."""
    made = cell(tmp_path, judged_by(sampler), "smoothings.predicted.correct_for_sampler=false")
    plant(monkeypatch, made, 1)
    with watched() as given:
        made.task.stages.get(made.trained)
    for epsilon in (given[0].epsilon, made.smoothed.epsilon("validation")):
        np.testing.assert_allclose(epsilon, 1 / (1 + np.exp(4)), rtol=1e-6)
    wrong = cell(tmp_path / "wrong", judged_by(sampler), "smoothings.predicted.correct_for_sampler=false")
    plant(monkeypatch, wrong, -1)
    for part in ("train", "validation"):
        np.testing.assert_array_equal(wrong.smoothed.epsilon(part), 0.5)


@pytest.mark.parametrize(("sign", "accuracy", "tau"), [(1, 1, 0.25), (-1, 0, 8)])
def test_the_record_says_what_a_planted_oracle_is_worth(
    sign: float, accuracy: float, tau: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cell(tmp_path, judged_by("self_hard"))
    plant(monkeypatch, made, sign)
    record.run(made)
    found = diagnostics.oracle(made)
    assert found is not None
    fit = found["temperatures"]["self_hard"]
    assert (found["accuracy"]["value"], fit["accuracy"], fit["tau"]) == (accuracy, accuracy, tau)
    assert found["uniform"]["tau"] == tau
    gaps = (found["epsilon_gap"], found["uniform"]["epsilon_gap"])
    assert [gap["value"] for gap in gaps] == pytest.approx([0, 0], abs=1e-12), "both parts are known alike"


def test_an_oracle_that_has_memorised_training_shows_a_gap_above_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that know the training step and guess at validation: ε of validation minus ε of training. Cross-fitted in
    one cell, without folds in the other: each has its own line in the record."""

    def memory(made: Cell) -> Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]:
        trained = [sequence[:-2] for sequence in made.task.data.sequences]
        next_item = {s[:step].tobytes(): int(s[step]) for s in trained for step in range(1, len(s))}

        def scores(histories: Sequence[np.ndarray], items: np.ndarray) -> np.ndarray:
            known = [next_item.get(history.tobytes(), -1) for history in histories]
            return (items == np.array(known)[:, None]).astype(np.float32)

        return scores

    gaps = []
    for number, memorised in enumerate(("folds", "everybody")):
        made = cell(tmp_path / str(number), judged_by("uniform"))
        scores = memory(made)
        with monkeypatch.context() as patch:
            if memorised == "folds":
                patch.setattr(
                    CrossFitted, "scores", lambda self, q, items, f=scores: f(q.histories, items).astype(float)
                )
                patch.setattr(sasrec, "scores", lambda model, h, items: np.zeros(items.shape, np.float32))
            else:
                patch.setattr(CrossFitted, "scores", lambda self, q, items: np.zeros(items.shape))
                patch.setattr(sasrec, "scores", lambda model, h, items, scores=scores: scores(h, items))
            record.run(made)
            found = diagnostics.oracle(made)
        assert found is not None
        gaps.append([found[key]["value"] for key in ("epsilon_gap", "epsilon_gap_without_folds")])
        gaps[-1] += [found["uniform"][key]["value"] for key in ("epsilon_gap", "epsilon_gap_without_folds")]
    assert np.array(gaps[0])[[0, 2]].min() > 0.01
    assert np.array(gaps[1])[[1, 3]].min() > 0.01
    np.testing.assert_array_equal(np.array(gaps)[[0, 0, 1, 1], [1, 3, 0, 2]], 0)


def test_constant_and_zero_reach_training_as_they_were_said(tmp_path: Path) -> None:
    with watched() as given:
        run(tmp_path, "--methods", "dpo,cdpo", *sets("smoothings.constant.value=0.3", "method.cdpo.training.pairs=70"))
        run(tmp_path, "--methods", "cdpo", *sets("smoothings.constant.value=0.3", "method.cdpo.smoothing.value=0.125"))
    dpo, common, own = (pairs.epsilon for pairs in given)
    np.testing.assert_array_equal(dpo, np.zeros((120, 1)))
    np.testing.assert_array_equal(common, np.full((70, 1), 0.3))
    np.testing.assert_array_equal(own, np.full((120, 1), 0.125))
