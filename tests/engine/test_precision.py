"""bfloat16: passes under one autocast, trained weights and AdamW's moments in float32."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from equality import random_group
from safetensors.torch import load_file
from saved_model import save_model
from small_models import SHAPES, language_model, network
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

from rosepo_bench.base.config import ModelConfig
from rosepo_bench.base.work import Work
from rosepo_bench.engine.forest import Group, build, collate
from rosepo_bench.engine.model import language_model as models
from rosepo_bench.engine.model.dropout import switch_off_dropout
from rosepo_bench.engine.model.language_model import LanguageModel
from rosepo_bench.engine.prompts.prompter import Prompter
from rosepo_bench.engine.prompts.tokens import PretrainedEncoder, train_tiny
from rosepo_bench.engine.ranking.catalogue import catalogue_scores
from rosepo_bench.engine.ranking.generation import generate
from rosepo_bench.engine.ranking.search import rank_best_first
from rosepo_bench.engine.ranking.trie import build as build_trie
from rosepo_bench.engine.training.loop import Schedule, fit

CASES = list(itertools.product(["tiny", "gpt_neox", "qwen3"], ["full", "lora"]))


@pytest.fixture(params=CASES, ids=lambda case: " ".join(case))
def config(request: pytest.FixtureRequest, tmp_path: Path) -> ModelConfig:
    kind, training = request.param
    if kind != "tiny":
        save_model(kind, tmp_path / kind)
    name = "tiny" if kind == "tiny" else f"hf:{tmp_path / kind}"
    return ModelConfig(
        name=name, hidden=32, layers=2, heads=2, context=512, training=training, dtype="bfloat16", device="cpu"
    )


def create(config: ModelConfig, **changes: Any) -> LanguageModel:
    name = models.pretrained_name(config.name)
    encoder = PretrainedEncoder(name) if name else train_tiny(["Iron Harbor", "Glass Orchard"], 300)
    return models.create(config.model_copy(update=changes), encoder, seed=0)


def groups(count: int = 6) -> list[Group]:
    draw = np.random.default_rng(1)
    return [random_group(draw) for _ in range(count)]


def logps(model: LanguageModel, made: list[Group]) -> Tensor:
    return model.logps(collate([build(group, context=64) for group in made]))


def adapt(model: LanguageModel) -> None:
    """LoRA layers begin at 0, where they change nothing."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, p in model.trained().items():
            if "lora_B" in name:
                p.normal_(std=0.3)


def test_a_small_weight_moves_by_the_learning_rate(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.02 has neighbours 1.2e-4 away in bfloat16: steps of 1e-5 were lost, all of them."""
    model, made = create(config), []
    build_optimizer = Schedule.optimizer
    monkeypatch.setattr(Schedule, "optimizer", lambda *given: made.append(build_optimizer(*given)) or made[0])
    trained = model.trained()
    with torch.no_grad():
        for p in trained.values():
            p.fill_(0.02)

    def backward(step: int) -> dict[str, float]:
        loss = torch.stack([p.sum() for p in trained.values()]).sum()
        loss.backward()
        return {"loss": float(loss.detach())}

    fit(model.network, backward, Schedule(steps=100, lr=1e-5, warmup=0.0, kind="constant"), Work(0))
    for name, p in trained.items():
        torch.testing.assert_close(p.detach(), torch.full_like(p, 0.02 - 100 * 1e-5), rtol=0, atol=2e-6, msg=name)
        state = made[0].state[p]
        assert {p.dtype, state["exp_avg"].dtype, state["exp_avg_sq"].dtype} == {torch.float32}


def test_frozen_weights_are_short_and_trained_ones_are_not(config: ModelConfig) -> None:
    found = {p.requires_grad: p.dtype for p in create(config).network.parameters()}
    assert found == {True: torch.float32} | ({False: torch.bfloat16} if config.training == "lora" else {})
    assert {p.dtype for p in create(config, dtype="float32").network.parameters()} == {torch.float32}


def test_gradients_of_a_pass_are_float32_and_training_moves_what_it_computes(config: ModelConfig) -> None:
    model, made = create(config), groups()
    before = logps(model, made).detach()

    def backward(step: int) -> dict[str, float]:
        loss = -logps(model, made).mean()
        loss.backward()
        assert {p.grad.dtype for p in model.trained().values() if p.grad is not None} == {torch.float32}
        return {"loss": float(loss.detach())}

    report = fit(model.network, backward, Schedule(steps=20, lr=3e-3, warmup=0.0), Work(0))
    assert report.last_loss < report.first_loss
    assert logps(model, made).mean() > before.mean() + 0.5


def test_log_probs_are_near_those_of_float32(config: ModelConfig) -> None:
    """Within what 8 bits leave: a relative 2⁻⁸ of sums of about 6 tokens at log-probs of about -6."""
    short, exact = create(config), create(config, dtype="float32")
    weights = {name: p.detach().float() for name, p in short.network.named_parameters()}
    exact.network.load_state_dict(weights, strict=False)
    adapt(short)
    adapt(exact)
    with torch.no_grad():
        one, two = logps(short, groups()), logps(exact, groups())
    assert one.dtype == torch.float32
    assert not torch.equal(one, two)
    torch.testing.assert_close(one, two, rtol=5e-3, atol=5e-2)


def test_weights_survive_a_file_to_the_last_bit(config: ModelConfig, tmp_path: Path) -> None:
    model, other = create(config), create(config)
    with torch.no_grad():
        for p in model.trained().values():
            p.normal_()
    model.save(tmp_path / "weights.safetensors")
    assert {p.dtype for p in load_file(tmp_path / "weights.safetensors").values()} == {torch.float32}
    other.load(tmp_path / "weights.safetensors")
    assert all(torch.equal(p, model.trained()[name]) for name, p in other.trained().items())


def autocast_model(kind: str, attention: str = "auto") -> LanguageModel:
    model = language_model(network(kind, torch.float32), attention)
    model.dtype = torch.bfloat16
    return model


@torch.no_grad()
def separate(model: LanguageModel, group: Group) -> list[float]:
    """Each response by transformers' own pass over one row under autocast, no operator of ours but the head's softmax
    in float32."""
    found = []
    for prompt, response in group:
        ids = torch.tensor([[*prompt, *response]])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.network(ids, use_cache=False).logits[0].float()
        before = logits[len(prompt) - 1 : -1].log_softmax(-1)
        found.append(float(before.gather(1, torch.tensor(response)[:, None].long()).sum()))
    return found


@pytest.mark.parametrize("attention", ["auto", "dense"])
@pytest.mark.parametrize("kind", SHAPES)
def test_forest_is_as_near_to_exact_as_separate_rows(kind: str, attention: str) -> None:
    """Under autocast, in the root of the mean square: rotary models hand float32 queries beside bfloat16 values."""
    double, made = network(kind, torch.float64), groups(20)
    if attention == "dense":
        made = made[:8]
    with torch.no_grad():
        exact = logps(language_model(double), made)
        forest = logps(autocast_model(kind, attention), made)
    alone = torch.tensor([value for group in made for value in separate(autocast_model(kind), group)])
    assert forest.dtype == torch.float32
    error = (forest - exact).square().mean().sqrt()
    assert 0 < error < 2 * (alone - exact).square().mean().sqrt()


@pytest.mark.parametrize("kind", SHAPES)
def test_gradients_under_autocast(kind: str) -> None:
    """Of a checkpointed pass they are those of a plain one: what is computed again is computed under autocast too."""
    plain = autocast_model(kind)
    checkpointed = autocast_model(kind)
    models._checkpoint_activations(checkpointed.network)
    found = []
    for model in (plain, checkpointed):
        switch_off_dropout(model.network.train())
        logps(model, groups(3)).sum().backward()
        found.append({name: p.grad for name, p in model.network.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        assert grad.dtype == torch.float32
        assert torch.equal(grad, found[1][name]), name


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_scores_over_cached_prompts_are_those_of_the_forest(kind: str) -> None:
    model, draw = autocast_model(kind), np.random.default_rng(5)
    end = 60
    titles = [np.array([*draw.integers(1, end, size=3), end]) for _ in range(8)]
    prompts = [draw.integers(1, end, size=size) for size in (5, 9)]
    trie = build_trie(titles)
    given: dict[str, Any] = {"batch_tokens": 400, "label": "test"}
    cached = catalogue_scores(model, trie, prompts, score="sum", **given)
    with torch.no_grad():
        forest = logps(model, [[(prompt, title) for title in titles] for prompt in prompts]).double()
        plain = copy.copy(model)
        plain.dtype = None
        exact = logps(plain, [[(prompt, title) for title in titles] for prompt in prompts]).double()
    assert np.abs(cached - exact.view(2, -1).numpy()).max() > 1e-6, "no autocast over cached prompts"
    np.testing.assert_allclose(cached, forest.view(2, -1).numpy(), rtol=2e-2, atol=0.15)


def titles_alone() -> Prompter:
    """A prompter with only its titles, all that ``generate`` reads of it."""
    made = Prompter.__new__(Prompter)
    made.titles = TITLES
    return made


WAYS: dict[str, tuple[set[str], Any]] = {  # what runs, and how
    "training": ({"body", "sums"}, lambda model, trie, prompt: logps(model, groups(1))),
    "catalogue": ({"body", "sums"}, lambda *given: catalogue_scores(*given, score="sum", **GIVEN)),
    "best first": ({"body", "sums"}, lambda *given: rank_best_first(*given, k=2, score="sum", **GIVEN)),
    "generation": (
        {"body", "head"},
        lambda model, trie, prompts: generate(model, titles_alone(), prompts, limit=4, **GIVEN),
    ),
}
TITLES = [np.array(title, dtype=np.int32) for title in ([1, 2, 60], [1, 3, 60], [4, 60])]
GIVEN: dict[str, Any] = {"batch_tokens": 100, "label": "test"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, None], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_every_pass_goes_through_autocast(way: str, dtype: torch.dtype | None) -> None:
    """Body and head, over the forest and over cached prompts; and through none where none is asked for."""
    model, seen = autocast_model("llama"), set()
    model.dtype, model.encoder = dtype, SimpleNamespace(end=60, decode=str)  # type: ignore[assignment]
    model.check()  # now, as it also calls the parts
    parts = {model.network.base_model: "body", model.head: "sums", model.network.get_output_embeddings(): "head"}
    names, run = WAYS[way]
    with register_module_forward_pre_hook(lambda part, _: note(seen, parts.get(part))):
        run(model, build_trie(TITLES), [np.array([1, 2, 3])])
    assert seen == {(name, dtype) for name in names}


def note(seen: set[Any], name: str | None) -> None:
    if name:
        seen.add((name, autocast_of()))


def autocast_of() -> torch.dtype | None:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
