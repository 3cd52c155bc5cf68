"""SASRec: it learns order, looks only back, and scores the same in any company."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import HoldoutView, TrainView
from rosepo_bench.recommenders import sasrec
from rosepo_bench.recommenders.sasrec import SASRec

CONFIG = SASRec(hidden=32, layers=2, heads=2, dropout=0.1, length=10, epochs=30, lr=5e-3, batch=16)
ITEMS = 12


def cycles() -> list[np.ndarray]:
    """Users walk a ring of items in steps of 1 (even users) or 5 (odd users): one item does not tell which,
    two do."""
    lengths = 4 + np.arange(48) % 19
    return [
        np.array([(user + (5 if user % 2 else 1) * place) % ITEMS for place in range(length)], dtype=np.int32)
        for user, length in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def model() -> sasrec.Network:
    return sasrec.train(cycles(), ITEMS, CONFIG, Work(seed=0))


def test_learns_a_deterministic_cycle(model: sasrec.Network) -> None:
    starts = np.arange(ITEMS)
    histories = [(start + step * np.arange(5)) % ITEMS for start in starts for step in (1, 5)]
    wanted = [(start + step * 5) % ITEMS for start in starts for step in (1, 5)]
    found = sasrec.catalogue_scores(model, histories).argmax(axis=1)
    assert (found == wanted).mean() > 0.95


def test_scores_are_log_probabilities_up_to_a_constant(model: sasrec.Network) -> None:
    """What training minimised is the cross-entropy of the very scores that are given out."""
    history = cycles()[3][:6]
    ids = torch.from_numpy(history[None].astype(np.int64) + 1)
    scores = torch.from_numpy(sasrec.catalogue_scores(model, [history[:-1]]))
    with torch.no_grad():
        hidden = model(ids[:, :-1])
        loss = sum(
            F.cross_entropy(model.logits(hidden[0, place : place + 1]), ids[0, place + 1 : place + 2] - 1)
            for place in range(5)
        )
        assert float(sasrec.window_loss(model, ids)) == pytest.approx(float(loss) / 5, rel=1e-5)
        torch.testing.assert_close(scores[0], model.logits(hidden[:, -1])[0], atol=1e-5, rtol=1e-5)


def test_scores_do_not_depend_on_company(model: sasrec.Network, monkeypatch: pytest.MonkeyPatch) -> None:
    histories = [sequence[:-1] for sequence in cycles()]
    candidates = np.random.default_rng(0).integers(ITEMS, size=(len(histories), 5))
    together = sasrec.scores(model, histories, candidates)
    monkeypatch.setattr(sasrec, "SCORING_TOKENS", 1)
    alone = sasrec.scores(model, histories, candidates)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    every = sasrec.catalogue_scores(model, histories)
    np.testing.assert_allclose(together, np.take_along_axis(every, candidates, 1), atol=1e-5)


def test_only_the_last_items_are_read(model: sasrec.Network) -> None:
    history = np.arange(25) % ITEMS
    long, cut = (sasrec.catalogue_scores(model, [items]) for items in (history, history[-CONFIG.length :]))
    np.testing.assert_array_equal(long, cut)
    with pytest.raises(AssertionError, match="empty"):
        sasrec.catalogue_scores(model, [history[:0]])


def test_no_position_sees_the_future(model: sasrec.Network) -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 9, 0]])
    with torch.no_grad():
        hidden = model(ids)
    torch.testing.assert_close(hidden[0, :3], hidden[1, :3])
    assert not torch.allclose(hidden[0, 3], hidden[1, 3])


@pytest.mark.parametrize("length", [2, 3, 10, 50])
def test_windows_predict_every_item_once(length: int) -> None:
    sequence = np.arange(23)
    cut = sasrec.windows([sequence, np.array([7]), np.array([], dtype=np.int64)], length)
    predicted = sorted(int(item) for window in cut for item in window[1:])
    assert predicted == list(range(1, 23))
    assert all(2 <= len(window) <= length + 1 for window in cut)
    assert all((np.diff(window) == 1).all() for window in cut)
    assert max(len(window) for window in cut if window[-1] == 22) == min(length + 1, 23), "the last window is full"


def test_an_epoch_takes_each_window_once_with_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(2, 52, size=1000)
    batches = sasrec.epoch_batches(lengths, 32, seed=0, epoch=3)
    assert sorted(np.concatenate(batches)) == list(range(1000))
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    assert padded < 1.06 * lengths.sum()
    again, other = (sasrec.epoch_batches(lengths, 32, seed=0, epoch=epoch) for epoch in (3, 4))
    assert all((one == two).all() for one, two in zip(batches, again, strict=True))
    assert any((one != two).any() for one, two in zip(batches, other, strict=True) if len(one) == len(two))


def weights(seed: int, folder: Path | None = None) -> list[torch.Tensor]:
    config = replace(CONFIG, epochs=2)
    trained = sasrec.train(cycles(), ITEMS, config, Work(seed, folder=folder, checkpoint_seconds=0.0))
    return [parameter.detach() for parameter in trained.parameters()]


def test_seed_decides_all_and_no_other_draw() -> None:
    first = weights(0)
    torch.manual_seed(123)
    assert all(torch.equal(one, two) for one, two in zip(first, weights(0), strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(first, weights(1), strict=True))


def test_a_killed_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, loss, calls = weights(0), sasrec.window_loss, 0

    def killed(model: sasrec.Network, ids: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:  # five optimizer steps are done, and each left a checkpoint
            raise KeyboardInterrupt
        return loss(model, ids)

    monkeypatch.setattr(sasrec, "window_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        weights(0, tmp_path)
    resumed, steps = weights(0, tmp_path), 2 * -(-len(sasrec.windows(cycles(), 10)) // 16)
    assert all(torch.equal(one, two) for one, two in zip(whole, resumed, strict=True))
    assert calls - 6 == steps - 5, "finished steps were done again"


@pytest.mark.parametrize("bad", [0, 3, 5])
def test_a_gradient_that_is_not_finite_stops_training(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six steps the first, one between, the last: the loss itself is finite in all of them."""
    loss, calls = sasrec.window_loss, iter(range(6))

    def planted(model: sasrec.Network, ids: torch.Tensor) -> torch.Tensor:
        zero = 0 * model.bias.sum()  # the square root of 0 has an infinite slope, times 0
        return loss(model, ids) + (zero.sqrt() if next(calls) == bad else zero)

    monkeypatch.setattr(sasrec, "window_loss", planted)
    with pytest.raises(UserError, match=f"sasrec: the gradient norm is nan at step {bad} "):
        sasrec.train(cycles(), ITEMS, replace(CONFIG, epochs=2), Work(0, "sasrec"))


def view() -> TrainView:
    titles = tuple(f"item {number}" for number in range(ITEMS))
    return TrainView(tuple(cycles()), np.arange(48), titles, ((),) * ITEMS)


def queries(rows: range) -> Queries:
    histories = tuple(cycles()[row][:-1] for row in rows)
    n = len(histories)
    listed = np.tile(np.arange(ITEMS, dtype=np.int32), (n, 1))
    step = np.array([len(history) for history in histories])
    return Queries(np.array(rows), step, np.zeros(n, np.int64), listed, histories)


def test_arrays_keep_all(model: sasrec.Network) -> None:
    """What `fit` returns scores as the network that it trained."""
    state = CONFIG.fit(view(), Work(seed=0), None)
    asked = queries(range(48))
    wanted = sasrec.scores(model, asked.histories, asked.candidates)
    np.testing.assert_array_equal(CONFIG.scores(state, asked, asked.candidates), wanted)
    assert all(isinstance(array, np.ndarray) for array in state.values())


def test_watched_training_keeps_the_weights_that_rank_the_holdout_best() -> None:
    """A measure that says at each evaluation what is planted; it is given the scores of the holdout's candidates."""
    planted, seen = iter([0.1, 0.2, 0.9, 0.3, 0.4]), []

    def metric(scores: np.ndarray, held: HoldoutView) -> float:
        assert scores.shape == held.queries.candidates.shape
        seen.append(scores)
        return next(planted)

    asked = queries(range(6))
    held = HoldoutView(asked, np.zeros(6, np.int64), np.zeros(6, np.int64), metric, "high")
    config = replace(CONFIG, epochs=4, evaluations=4)
    state = config.fit(view(), Work(seed=0), held)
    np.testing.assert_array_equal(config.scores(state, asked, asked.candidates), seen[2])


def held(values: list[float], better: str = "high") -> HoldoutView:
    """Its metric says what is planted."""
    planted, asked = iter(values), queries(range(6))
    none = np.zeros(6, np.int64)
    return HoldoutView(asked, none, none, lambda scores, rows: next(planted), better)


def test_patience_ends_a_watched_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty steps, measured after every fourth: the second value is the best, the lowest."""
    counted, loss = [], sasrec.window_loss
    monkeypatch.setattr(sasrec, "window_loss", lambda *given: counted.append(1) or loss(*given))
    config = replace(CONFIG, steps=20, evaluations=5, patience=2)
    config.fit(view(), Work(seed=0), held([0.5, 0.1, 0.2, 0.1], "low"))
    assert len(counted) == 12


def test_without_evaluations_the_holdout_is_not_looked_at() -> None:
    config = replace(CONFIG, steps=6)
    assert not config.reads_holdout
    assert replace(config, evaluations=1).reads_holdout
    one, two = (config.fit(view(), Work(seed=0), given) for given in (None, held([])))
    assert all((array == two[name]).all() for name, array in one.items())
    with pytest.raises(UserError, match=r"sasrec.patience = 3 has no effect with evaluations = 0; set evaluations"):
        SASRec(patience=3)


def test_watching_changes_no_bit_of_the_training() -> None:
    """The last weights are the best ones: those of a training that nobody watches."""
    config = replace(CONFIG, steps=9)
    plain = config.fit(view(), Work(seed=0), None)
    watched = replace(config, evaluations=3).fit(view(), Work(seed=0), held([0.1, 0.2, 0.3, 0.4]))
    assert all((array == watched[name]).all() for name, array in plain.items())


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(UserError, match="two items"):
        sasrec.train([np.array([1])], ITEMS, CONFIG, Work(seed=0))
    with pytest.raises(ValueError, match="multiple"):
        SASRec(hidden=33)


def test_steps_stand_above_epochs() -> None:
    """One pass has five steps: two steps are not two passes."""
    counted, loss = [], sasrec.window_loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sasrec, "window_loss", lambda *given: counted.append(1) or loss(*given))
        sasrec.train(cycles(), ITEMS, replace(CONFIG, epochs=9, steps=2), Work(seed=0))
    assert len(counted) == 2
