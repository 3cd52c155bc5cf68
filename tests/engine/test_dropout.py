"""Preference training without dropout: the policy begins where its reference stands, whatever SFT drops."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_models import SHAPES, VOCABULARY, language_model, network
from torch import Tensor, nn

from rosepo_bench.base.config import ModelConfig, PreferenceConfig, SFTConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.work import Work
from rosepo_bench.engine.forest import build, collate
from rosepo_bench.engine.model import language_model as models
from rosepo_bench.engine.model.dropout import switch_off_dropout
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.prompts.examples import PlacedTree
from rosepo_bench.engine.training import preference
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.engine.training.preference import train_preference
from rosepo_bench.engine.training.sft import train_sft
from rosepo_bench.engine.training.steps import TrainingPairs
from rosepo_bench.losses.compiled import DPO

LORA = ModelConfig(training="lora", lora_rank=2, lora_alpha=4, lora_dropout=0.1)
# What the configurations of the supported kinds call it.
DROPS = {
    "gpt2": {"attn_pdrop": 0.1, "resid_pdrop": 0.1, "embd_pdrop": 0.1},
    "gpt_neox": {"attention_dropout": 0.1, "hidden_dropout": 0.1},
}
PAIRS = 6


def model_of(kind: str, training: str, checkpointing: bool) -> LanguageModel:
    """In fp32, dropping a tenth of everything that it can drop."""
    net = network(kind, torch.float32, **DROPS.get(kind, {"attention_dropout": 0.1}))
    if training == "lora":
        torch.manual_seed(3)
        net = models._adapted(net, LORA)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.3)
    if checkpointing:
        models._checkpoint_activations(net)
    return language_model(net.eval())


def groups() -> list[PlacedTree]:
    """Pairs under prompts of their own."""
    draw, made = np.random.default_rng(0), []
    for pair in range(PAIRS):
        prompt, *both = (draw.integers(1, VOCABULARY, size=size) for size in (9, 4, 5))
        made.append(
            PlacedTree(build([(prompt, title) for title in both], context=64), np.array([2 * pair, 2 * pair + 1]), 2)
        )
    return made


def logps(model: LanguageModel) -> Tensor:
    return model.logps(collate([group.tree for group in groups()])).detach()


def first_loss(model: LanguageModel, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> float:
    """Of one optimizer step of DPO over all pairs, against log-probs computed as a run computes them."""
    with torch.no_grad():
        reference = logps(model).double().view(PAIRS, 2).numpy()
    made = [[group] for group in groups()]
    monkeypatch.setattr(preference, "grouped", lambda *_, **__: made)
    prompter: Any = SimpleNamespace(titles=[np.zeros(1)])
    titles = np.zeros((PAIRS, 2), dtype=np.int64)
    pairs = TrainingPairs(None, titles, reference, np.zeros((PAIRS, 1)))  # type: ignore[arg-type]
    config = PreferenceConfig(batch=PAIRS, **settings)
    work: dict[str, Any] = {"meter": Meter(), "batch_tokens": 512, "work": Work(seed=1)}
    report = train_preference(model, prompter, [], pairs, config, DPO(), **work)
    assert report.steps == 1
    return report.first_loss


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("training", ["full", "lora"])
@pytest.mark.parametrize("kind", SHAPES)
def test_the_first_loss_is_log_2(
    kind: str, training: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(kind, training, checkpointing)
    evaluated = logps(model)
    model.network.train()
    assert (logps(model) - evaluated).abs().max() > 1e-3, "this model drops nothing"
    model.network.eval()
    assert first_loss(model, monkeypatch) == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("training", ["full", "lora"])
@pytest.mark.parametrize("kind", SHAPES)
def test_without_dropout_training_mode_computes_what_evaluation_does(kind: str, training: str) -> None:
    model = model_of(kind, training, checkpointing=True)
    before = logps(model)
    switch_off_dropout(model.network)
    model.network.train()
    runs: list[int] = []
    block = next(m for m in model.network.modules() if isinstance(m, nn.ModuleList))[0]
    block.mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    found = model.logps(collate([group.tree for group in groups()]))
    assert torch.equal(found.detach(), before)
    found.sum().backward()
    assert len(runs) == 2, "activations are no longer computed again"


def test_the_models_own_dropout_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    for training in ("full", "lora"):
        model = model_of("gpt2" if training == "full" else "llama", training, checkpointing=False)
        assert abs(first_loss(model, monkeypatch, dropout=True) - math.log(2)) > 1e-3


def test_lora_that_cannot_drop_the_inputs_of_experts_says_so() -> None:
    with pytest.raises(UserError, match=r"cannot drop \(model.lora_dropout = 0.1\); set model.lora_dropout = 0"):
        models._adapted(network("mixtral", torch.float32), LORA)
    models._adapted(network("mixtral", torch.float32), LORA.model_copy(update={"lora_dropout": 0.0}))


def test_sft_keeps_the_models_dropout() -> None:
    losses = []
    for off in (False, True):
        model = model_of("gpt2", "full", checkpointing=False)
        if off:
            switch_off_dropout(model.network)
        report = train_sft(
            model,
            np.array([4]),
            lambda windows: [group.tree for group in groups()],
            SFTConfig(batch=4, epochs=1.0, min_steps=0),
            window=4,
            first=0,
            meter=Meter(),
            batch_tokens=512,
            work=Work(seed=1),
        )
        losses.append(report.first_loss)
        assert model.network.transformer.h[0].attn.attn_dropout.p == (0.0 if off else 0.1)
    assert abs(losses[0] - losses[1]) > 1e-3
