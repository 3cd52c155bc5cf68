"""From the oracle's models to each pair's ε: whose model, which sign, which temperature, which law."""

from __future__ import annotations

import numpy as np
import planted
import pytest
import torch
from planted import get

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Examples
from rosepo_bench.pipeline.smoothing import Judging
from rosepo_bench.recommenders.sasrec import Network
from rosepo_bench.runs.cells import Cell

SETTINGS = (
    "smoothings.predicted.cap=0.4",
    "preference.validation_pairs=24",
    "oracles.sasrec.epochs=6",
    "oracles.sasrec.lr=0.005",
)
Run = tuple[Cell, planted.World]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, world = tmp_path_factory.mktemp("oracle"), planted.world()
    cell = planted.cell(folder / "out", world.write(folder), *SETTINGS, method="rosepo")
    get(cell, judging(cell).stage)
    return cell, world


def judging(cell: Cell) -> Judging:
    assert cell.smoothed.judging is not None
    return cell.smoothed.judging


@torch.no_grad()
def spoken(model: Network, history: list[int], items: list[int]) -> np.ndarray:
    """The scores of items after a history: one row, nothing padded."""
    hidden = model(torch.tensor([[item + 1 for item in history[-model.config.length :]]]))[0, -1]
    embedding = model.item.weight[1:]
    return np.array([float(embedding[item] @ hidden + model.bias[item]) for item in items])


def differences(run: Run, examples: Examples, items: np.ndarray, *, folded: bool = True) -> np.ndarray:
    """s(x, item) − s(x, target) for each of ``items`` ``[n, K]``."""
    cell, world = run
    fitted, oracle = get(cell, judging(cell).crossfit), judging(cell).smoothing.oracle
    folds, everybody = (
        [oracle.network(state) for state in fitted.states],
        oracle.network(get(cell, judging(cell).everybody)),
    )
    found = []
    for user, step, row in zip(examples.user.tolist(), examples.step.tolist(), items.tolist(), strict=True):
        model = folds[fitted.fold[user]] if folded else everybody
        history, target = world.histories[user][:step], world.histories[user][step]
        scores = spoken(model, history, [target, *row])
        found.append(scores[1:] - scores[0])
    return np.array(found)


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("folded", [True, False])
def test_deltas_are_rejected_minus_chosen(part: str, folded: bool, run: Run) -> None:
    """By the model that was trained without the pair's user, or by the one of everybody."""
    cell, _ = run
    judged, rejected = get(cell, judging(cell).stage), get(cell, cell.pairing.rejected)[part].items
    assert rejected.shape[1] == 1
    found = (judged.delta if folded else judged.unfolded)[part]
    wanted = differences(run, cell.pairing.examples[part], rejected, folded=folded)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(wanted).mean() > 0.05
    other = differences(run, cell.pairing.examples[part], rejected, folded=not folded)
    assert np.abs(found - other).mean() > 1e-3


def test_epsilon_is_the_other_orders_probability(run: Run) -> None:
    """ε = clip(σ(delta/τ + law), 0, ε_max), τ of its own kind: the likelier the rejected, the larger."""
    cell, _ = run
    judged, drawn = get(cell, judging(cell).stage), get(cell, cell.pairing.rejected)
    for part in ("train", "validation"):
        tau = np.array([[judged.temperatures[str(kind)].tau for kind in row] for row in drawn[part].kind])
        logit = judged.delta[part] / tau + drawn[part].law
        wanted = np.clip(1 / (1 + np.exp(-logit)), 0, 0.4)
        found = cell.smoothed.epsilon(part)
        np.testing.assert_allclose(found, wanted, atol=1e-12)
        assert found.max() == 0.4
    assert np.ptp(found) > 0.2
    with pytest.raises(UserError, match="unknown smoothing 'unknown'"):
        smoothed_by("unknown", cell)


def smoothed_by(smoothing: str, cell: Cell, *more: str) -> Cell:
    """The same cell with another smoothing."""
    out = cell.task.stages.out
    return planted.cell(
        out, out.parent / planted.NAME, *SETTINGS, *more, f"method.rosepo.smoothing={smoothing}", method="rosepo"
    )


def test_other_smoothings(run: Run) -> None:
    """On the same pairs: they share the stage of the rejected items."""
    cell, _ = run
    zero, constant = (smoothed_by(name, cell) for name in ("zero", "constant"))
    assert zero.pairing.rejected.key == constant.pairing.rejected.key == cell.pairing.rejected.key
    assert zero.smoothed.epsilon("train").tolist() == [[0.0]] * 50
    assert constant.smoothed.epsilon("validation").tolist() == [[0.1]] * 24
    said = smoothed_by("constant", cell, "smoothings.constant.value=0.3")  # the section reaches the one put in place
    assert said.smoothed.epsilon("validation").tolist() == [[0.3]] * 24


def losses(delta: np.ndarray, law: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-loss of σ(−(delta/τ + law)) over a grid of τ within its bounds."""
    grid = np.exp(np.linspace(np.log(0.25), np.log(8), 2001))
    return grid, np.log1p(np.exp(delta[:, None] / grid + law[:, None])).mean(axis=0)


def test_temperatures_are_fitted_on_validation_pairs_of_their_kind(run: Run) -> None:
    cell, _ = run
    judged, drawn = get(cell, judging(cell).stage), get(cell, cell.pairing.rejected)
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
    out = cell.task.stages.out
    prefix = out.parent / planted.NAME
    plain = planted.cell(out, prefix, *SETTINGS, "smoothings.predicted.correct_for_sampler=false", method="rosepo")
    judged, drawn = get(plain, judging(plain).stage), get(plain, plain.pairing.rejected)["train"]
    tau = np.array([[judged.temperatures[str(kind)].tau for kind in row] for row in drawn.kind])
    wanted = np.clip(1 / (1 + np.exp(-judged.delta["train"] / tau)), 0, 0.4)
    np.testing.assert_allclose(plain.smoothed.epsilon("train"), wanted, atol=1e-12)
    assert np.abs(drawn.law[np.isfinite(drawn.law)]).max() > 0.1


def test_the_probe_sets_last_training_steps_beside_validation_steps(run: Run) -> None:
    """Of the same users; mean ε of the former below that of the latter is what was memorised."""
    cell, world = run
    assert cell.probe is not None
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
