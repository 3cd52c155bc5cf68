"""Which weights speak where: the reference is SFT's, the policy begins there, and what is measured afterwards is the
trained model. Log-probs by transformers' forward pass over separate rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch
from planted import get
from safetensors.torch import load_file

from rosepo_bench.base import store
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.pipeline import alignment
from rosepo_bench.runs.cells import Cell


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, planted.World, dict[str, torch.Tensor]]:
    """RosePO, and the weights that its training began with."""
    folder, world, begun = tmp_path_factory.mktemp("reference"), planted.world(), {}
    cell = planted.cell(folder / "out", world.write(folder), "preference.lr=3e-3", method="rosepo")
    train = alignment.train_preference

    def watched(model: LanguageModel, *arguments: Any, **options: Any) -> Any:
        begun.update({name: p.detach().clone() for name, p in model.trained().items()})
        return train(model, *arguments, **options)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(alignment, "train_preference", watched)
        for stage in cell.stages:
            get(cell, stage)
    return cell, world, begun


def close(one: np.ndarray, two: np.ndarray) -> None:
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-4)


def test_policy_begins_at_sft(run: tuple[Cell, planted.World, dict[str, torch.Tensor]]) -> None:
    cell, _, begun = run
    sft = load_file(get(cell, cell.language.sft).weights)
    assert begun.keys() == sft.keys()
    assert all(torch.equal(begun[name], sft[name]) for name in sft)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_reference_is_sft_for_every_pair(part: str, run: tuple[Cell, planted.World, Any]) -> None:
    cell, world, _ = run
    examples, titles = cell.pairing.prompts(part), cell.pairing.titles(part)
    prompts = planted.prompts_of(cell, world, examples)
    found = get(cell, cell.pairing.reference)[part]
    assert found.shape == (50 if part == "train" else 20, 2)
    close(found, planted.sums(planted.network(cell, cell.language.sft), cell, world, prompts, titles))
    untrained = planted.sums(planted.network(cell, None), cell, world, prompts, titles)
    assert np.abs(found - untrained).min() > 1e-3


def test_margins_afterwards_are_the_trained_models(run: tuple[Cell, planted.World, Any]) -> None:
    cell, world, _ = run
    assert cell.trained is not None
    found = get(cell, cell.pairing.pair_logps("rosepo", cell.trained, ("validation",)))["validation"]
    prompts = planted.prompts_of(cell, world, cell.pairing.prompts("validation"))
    network = planted.network(cell, cell.trained)
    close(found, planted.sums(network, cell, world, prompts, cell.pairing.titles("validation")))
    assert np.abs(found - get(cell, cell.pairing.reference)["validation"]).max() > 1e-2


@pytest.mark.parametrize("weights", ["none", "sft", "method"])
def test_scores_are_those_of_the_weights_they_are_named_by(weights: str, run: tuple[Cell, planted.World, Any]) -> None:
    cell, world, _ = run
    trained = {"none": None, "sft": cell.language.sft, "method": cell.trained}[weights]
    found = get(cell, cell.scored if weights == "method" else cell.language.scores(weights, trained)).scores
    test = cell.pipeline.test
    prompts = planted.prompts_of(cell, world, test)
    close(found, planted.sums(planted.network(cell, trained), cell, world, prompts, test.candidates))


@pytest.mark.parametrize("trees", ["user", "prompt"])
def test_reference_and_epsilon_reach_their_own_pair(trees: str, tmp_path: Path) -> None:
    """References are planted that differ from SFT's; the loss that training reports before its first step is the one
    computed by hand, and another order of ε or of references would make another one."""
    world, draw = planted.world(), np.random.default_rng(5)
    settings = ("preference.batch=1000", f"preference.trees={trees}", "preference.beta=0.6")
    where = tmp_path / "out", world.write(tmp_path)
    cell = planted.cell(*where, *settings, method="rosepo")
    policy = get(cell, cell.pairing.reference)["train"]
    file = cell.pipeline.stages.folder(cell.pairing.reference) / "logps.npz"
    other = policy + draw.normal(0, 3, policy.shape)
    store.write_npz(file, **{**get(cell, cell.pairing.reference), "train": other})
    cell = planted.cell(*where, *settings, method="rosepo")  # reads what was planted
    assert cell.trained is not None
    epsilon = cell.smoothing.epsilon("train", "oracle")

    def loss(reference: np.ndarray, eps: np.ndarray) -> float:
        margin = 0.6 * ((policy - reference)[:, 0] - (policy - reference)[:, 1])
        return float(np.mean((1 - eps) * np.log1p(np.exp(-margin)) + eps * np.log1p(np.exp(margin))))

    wanted, found = loss(other, epsilon), get(cell, cell.trained).report["first_loss"]
    assert found == pytest.approx(wanted, rel=1e-5)
    for crossed in (loss(other[::-1], epsilon), loss(other, epsilon[::-1]), loss(other[:, ::-1], epsilon)):
        assert abs(crossed - wanted) > 1e-2
    assert abs(loss(other, np.roll(epsilon, 1)) - wanted) > 1e-3
