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

from rosepo_bench.base import manifest, store
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.training.steps import TrainingPairs
from rosepo_bench.pipeline import alignment
from rosepo_bench.pipeline.evaluating import of_titles
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
    sft = load_file(get(cell, cell.sft).weights)
    assert begun.keys() == sft.keys()
    assert all(torch.equal(begun[name], sft[name]) for name in sft)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_reference_is_sft_for_every_pair(part: str, run: tuple[Cell, planted.World, Any]) -> None:
    cell, world, _ = run
    examples, titles = cell.pairing.prompts(part), cell.pairing.titles(part)
    prompts = planted.prompts_of(cell, world, examples)
    found = get(cell, cell.reference)[part]
    assert found.shape == (50 if part == "train" else 20, 2)
    close(found, planted.sums(planted.network(cell, cell.sft), cell, world, prompts, titles))
    untrained = planted.sums(planted.network(cell, None), cell, world, prompts, titles)
    assert np.abs(found - untrained).min() > 1e-3


def test_margins_afterwards_are_the_trained_models(run: tuple[Cell, planted.World, Any]) -> None:
    cell, world, _ = run
    assert cell.trained is not None
    found = get(cell, cell.after)["validation"]
    prompts = planted.prompts_of(cell, world, cell.pairing.prompts("validation"))
    network = planted.network(cell, cell.trained)
    close(found, planted.sums(network, cell, world, prompts, cell.pairing.titles("validation")))
    assert np.abs(found - get(cell, cell.reference)["validation"]).max() > 1e-2


@pytest.mark.parametrize("weights", ["none", "sft", "method"])
def test_scores_are_those_of_the_weights_they_are_named_by(weights: str, run: tuple[Cell, planted.World, Any]) -> None:
    cell, world, _ = run
    trained = {"none": None, "sft": cell.sft, "method": cell.trained}[weights]
    (protocol,), (own,) = cell.shared.protocols, cell.answered.values()
    stages = {"none": of_titles(cell.language, "none", None, protocol), "sft": cell.sft_answered, "method": own}
    found = get(cell, stages[weights]).answers["scores"]
    test = cell.task.test
    prompts = planted.prompts_of(cell, world, test)
    close(found, planted.sums(planted.network(cell, trained), cell, world, prompts, test.candidates))


@pytest.mark.parametrize("trees", ["user", "prompt"])
def test_reference_and_epsilon_reach_their_own_pair(trees: str, tmp_path: Path) -> None:
    """References are planted that differ from SFT's; the loss that training reports before its first step is the one
    computed by hand, and another order of ε or of references would make another one."""
    world, draw = planted.world(), np.random.default_rng(5)
    settings = ("preference.batch=1000", f"preference.trees={trees}", "method.*.loss.beta=0.6")
    where = tmp_path / "out", world.write(tmp_path)
    cell = planted.cell(*where, *settings, method="rosepo")
    policy = get(cell, cell.reference)["train"]
    folder = cell.task.stages.folder(cell.reference)
    other = policy + draw.normal(0, 3, policy.shape)
    store.write_npz(folder / "logps.npz", **{**get(cell, cell.reference), "train": other})
    manifest.write(folder, manifest.read(folder))  # the planted file passes for what was computed
    cell = planted.cell(*where, *settings, method="rosepo")  # reads what was planted
    assert cell.trained is not None
    epsilon = cell.smoothed.epsilon("train")[:, 0]

    def loss(reference: np.ndarray, eps: np.ndarray) -> float:
        margin = 0.6 * ((policy - reference)[:, 0] - (policy - reference)[:, 1])
        return float(np.mean((1 - eps) * np.log1p(np.exp(-margin)) + eps * np.log1p(np.exp(margin))))

    wanted, found = loss(other, epsilon), get(cell, cell.trained).report["first_loss"]
    assert found == pytest.approx(wanted, rel=1e-5)
    for crossed in (loss(other[::-1], epsilon), loss(other, epsilon[::-1]), loss(other[:, ::-1], epsilon)):
        assert abs(crossed - wanted) > 1e-2
    assert abs(loss(other, np.roll(epsilon, 1)) - wanted) > 1e-3


def test_a_second_round_begins_at_the_model_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the policy, the reference and the one whose mistakes are rejected; what is measured is the last one."""
    world, begun = planted.world(), []
    settings = ("preference.lr=1e-2", "preference.pairs=20", "method.rosepo-self-hard.rounds=2")
    cell = planted.cell(tmp_path / "out", world.write(tmp_path), *settings, method="rosepo-self-hard")
    train = alignment.train_preference

    def watched(
        model: LanguageModel, prompter: Any, sequences: Any, pairs: TrainingPairs, *rest: Any, **more: Any
    ) -> Any:
        begun.append(({name: p.detach().clone() for name, p in model.trained().items()}, pairs))
        return train(model, prompter, sequences, pairs, *rest, **more)

    monkeypatch.setattr(alignment, "train_preference", watched)
    assert cell.trained is not None
    last = get(cell, cell.trained).weights
    (first, one), (second, two) = cell.rounds
    models = [cell.sft, one]
    assert len(begun) == 2
    for base, (weights, pairs), smoothed in zip(models, begun, (first, second), strict=True):
        stored, network = load_file(get(cell, base).weights), planted.network(cell, base)
        assert all(torch.equal(weights[name], stored[name]) for name in stored)
        prompts = planted.prompts_of(cell, world, pairs.examples)
        close(pairs.reference, planted.sums(network, cell, world, prompts, pairs.titles))
        mined = get(cell, smoothed.pairing.mining.stage)["train"]
        close(mined["scores"], planted.sums(network, cell, world, prompts, mined["scored"]))
        np.testing.assert_array_equal(pairs.titles, smoothed.pairing.titles("train"))
        np.testing.assert_array_equal(pairs.epsilon, smoothed.epsilon("train"))
    assert (begun[0][1].titles != begun[1][1].titles).any(), "another model makes other mistakes"
    assert last == get(cell, two).weights != get(cell, one).weights
    prompts = planted.prompts_of(cell, world, cell.pairing.prompts("validation"))
    titles = first.pairing.titles("validation")
    close(
        get(cell, cell.reference)["validation"],
        planted.sums(planted.network(cell, cell.sft), cell, world, prompts, titles),
    )
    close(get(cell, cell.after)["validation"], planted.sums(planted.network(cell, two), cell, world, prompts, titles))
