"""From the oracle's models to each pair's ε: whose model, which sign, which temperature, which law."""

from __future__ import annotations

import numpy as np
import planted
import pytest
import torch
from planted import get

from rosepo_bench.data.types import Examples
from rosepo_bench.recommenders.sasrec import SASRec
from rosepo_bench.runs.cells import Cell

SETTINGS = ("preference.epsilon_max=0.4", "preference.validation_pairs=24", "sasrec.epochs=6", "sasrec.lr=0.005")
Run = tuple[Cell, planted.World]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, world = tmp_path_factory.mktemp("oracle"), planted.world()
    cell = planted.cell(folder / "out", world.write(folder), *SETTINGS, method="rosepo")
    get(cell, cell.smoothing.judged)
    return cell, world


@torch.no_grad()
def spoken(model: SASRec, history: list[int], items: list[int]) -> np.ndarray:
    """The scores of items after a history: one row, nothing padded."""
    hidden = model(torch.tensor([[item + 1 for item in history[-model.config.length :]]]))[0, -1]
    embedding = model.item.weight[1:]
    return np.array([float(embedding[item] @ hidden + model.bias[item]) for item in items])


def differences(run: Run, examples: Examples, items: np.ndarray, *, folded: bool = True) -> np.ndarray:
    """s(x, item) − s(x, target) for each of ``items`` ``[n, K]``."""
    cell, world = run
    oracle, everybody = get(cell, cell.smoothing.oracle), get(cell, cell.pipeline.sasrec)
    found = []
    for user, step, row in zip(examples.user.tolist(), examples.step.tolist(), items.tolist(), strict=True):
        model = oracle.models[oracle.fold[user]] if folded else everybody
        history, target = world.histories[user][:step], world.histories[user][step]
        scores = spoken(model, history, [target, *row])
        found.append(scores[1:] - scores[0])
    return np.array(found)


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("folded", [True, False])
def test_deltas_are_rejected_minus_chosen(part: str, folded: bool, run: Run) -> None:
    """By the model that was trained without the pair's user, or by the one of everybody."""
    cell, _ = run
    judged, rejected = get(cell, cell.smoothing.judged), get(cell, cell.pairing.rejected)[part].rejected
    found = (judged.delta if folded else judged.unfolded)[part]
    wanted = differences(run, cell.pairing.examples[part], rejected[:, None], folded=folded)[:, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(wanted).mean() > 0.05
    other = differences(run, cell.pairing.examples[part], rejected[:, None], folded=not folded)[:, 0]
    assert np.abs(found - other).mean() > 1e-3


def test_epsilon_is_the_other_orders_probability(run: Run) -> None:
    """ε = clip(σ(delta/τ + law), 0, ε_max), τ of its own kind: the likelier the rejected, the larger."""
    cell, _ = run
    judged, drawn = get(cell, cell.smoothing.judged), get(cell, cell.pairing.rejected)
    for part in ("train", "validation"):
        tau = np.array([judged.temperatures[str(kind)].tau for kind in drawn[part].kind])
        logit = judged.delta[part] / tau + drawn[part].law
        wanted = np.clip(1 / (1 + np.exp(-logit)), 0, 0.4)
        found = cell.smoothing.epsilon(part, "oracle")
        np.testing.assert_allclose(found, wanted, atol=1e-12)
        assert found.max() == 0.4
    assert np.ptp(found) > 0.2
    with pytest.raises(KeyError):
        cell.smoothing.epsilon("train", "unknown")


def test_other_smoothings(run: Run) -> None:
    cell, _ = run
    assert cell.smoothing.epsilon("train", "zero").tolist() == [0.0] * 50
    assert cell.smoothing.epsilon("validation", "constant").tolist() == [0.1] * 24


def losses(delta: np.ndarray, law: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-loss of σ(−(delta/τ + law)) over a grid of τ within its bounds."""
    grid = np.exp(np.linspace(np.log(0.25), np.log(8), 2001))
    return grid, np.log1p(np.exp(delta[:, None] / grid + law[:, None])).mean(axis=0)


def test_temperatures_are_fitted_on_validation_pairs_of_their_kind(run: Run) -> None:
    cell, _ = run
    judged, drawn = get(cell, cell.smoothing.judged), get(cell, cell.pairing.rejected)
    assert set(judged.temperatures) == {"self_hard", "semantic", "popularity"}
    informative = 0
    for fits, deltas in (
        (judged.temperatures, judged.delta),
        (judged.unfolded_temperatures, judged.unfolded),
    ):
        for kind, fit in fits.items():
            tau = {}
            for part in ("train", "validation"):
                rows = drawn[part].kind == kind
                grid, loss = losses(deltas[part][rows], drawn[part].law[rows])
                tau[part] = grid[loss.argmin()]
            assert fit.tau == pytest.approx(tau["validation"], rel=0.01)
            assert fit.n == (drawn["validation"].kind == kind).sum()
            informative += abs(np.log(tau["train"] / tau["validation"])) > 0.05
    assert informative, "both parts would give the same temperatures: plant another world"


def test_without_the_correction_the_law_is_left_out(run: Run) -> None:
    cell, _ = run
    out = cell.pipeline.stages.out
    prefix = out.parent / planted.NAME
    plain = planted.cell(out, prefix, *SETTINGS, "oracle.correct_for_sampler=false", method="rosepo")
    judged, drawn = get(plain, plain.smoothing.judged), get(plain, plain.pairing.rejected)["train"]
    tau = np.array([judged.temperatures[str(kind)].tau for kind in drawn.kind])
    wanted = np.clip(1 / (1 + np.exp(-judged.delta["train"] / tau)), 0, 0.4)
    np.testing.assert_allclose(plain.smoothing.epsilon("train", "oracle"), wanted, atol=1e-12)
    assert np.abs(drawn.law[np.isfinite(drawn.law)]).max() > 0.1


def test_the_probe_sets_last_training_steps_beside_validation_steps(run: Run) -> None:
    """Of the same users; mean ε of the former below that of the latter is what was memorised."""
    cell, world = run
    examples = cell.probe._examples()
    validation, train = examples["validation"], examples["train"]
    assert validation.user.tolist() == train.user.tolist() == list(range(planted.USERS))
    assert validation.step.tolist() == [len(own) - 2 for own in world.histories]
    assert train.step.tolist() == [len(own) - 3 for own in world.histories]
    found, gaps = get(cell, cell.probe.stage), []
    for folded, name in ((True, "epsilon_gap"), (False, "epsilon_gap_without_folds")):
        delta = {}
        for part, given in examples.items():
            rows = [[item for item in row if item != t] for row, t in zip(given.candidates, given.target, strict=True)]
            delta[part] = differences(run, given, np.array(rows), folded=folded)
        grid, loss = losses(delta["validation"].ravel(), np.zeros(delta["validation"].size))
        tau = grid[loss.argmin()]
        mean = {part: np.minimum(1 / (1 + np.exp(-d / tau)), 0.5).mean() for part, d in delta.items()}
        gaps.append(mean["validation"] - mean["train"])
        assert found[name]["value"] == pytest.approx(gaps[-1], abs=2e-4)
        if folded:
            assert found["tau"] == pytest.approx(tau, rel=0.01)
            assert found["accuracy"]["value"] == pytest.approx((delta["validation"] < 0).mean(), abs=0.05)
    assert abs(gaps[0] - gaps[1]) > 1e-3
