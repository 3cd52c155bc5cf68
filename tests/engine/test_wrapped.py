"""Networks as peft, torch.compile and parallel training hand them out: equal to separate rows, or refused by name."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import network
from test_seam import assert_as_separate_rows, some_groups
from torch import nn

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ForestModel
from rosepo_bench.engine.model.unwrap import ADAPTERS, unwrap

LINEAR = {"target_modules": "all-linear"}
SAVED = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
KINDS: dict[str, Any] = {
    "ADALORA": lambda: peft.AdaLoraConfig(target_modules=["q_proj", "v_proj"], init_r=4, target_r=2, total_step=10),
    "HRA": lambda: peft.HRAConfig(target_modules=["q_proj", "v_proj"], r=4),
    "IA3": lambda: peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "LN_TUNING": lambda: peft.LNTuningConfig(target_modules=["input_layernorm", "norm"]),
    "LOHA": lambda: peft.LoHaConfig(r=4, target_modules=["q_proj", "v_proj"]),
    "LOKR": lambda: peft.LoKrConfig(r=4, target_modules=["q_proj", "v_proj"]),
    "LORA": lambda: LoraConfig(r=4, **LINEAR),
    "OFT": lambda: peft.OFTConfig(target_modules=["q_proj", "v_proj"], oft_block_size=8, use_cayley_neumann=False),
    "RANDLORA": lambda: peft.RandLoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
    "TRAINABLE_TOKENS": lambda: peft.TrainableTokensConfig(token_indices=[3, 5]),
    "VERA": lambda: peft.VeraConfig(r=4, target_modules=["q_proj", "v_proj"]),
}
LORA: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True, **LINEAR},
    "on embeddings": {"target_modules": ["embed_tokens", "v_proj"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3]},
    "embeddings and head saved": SAVED,
}


def drawn(model: Any) -> Any:
    """Adapters begin as the identity: with other weights they count."""
    torch.manual_seed(3)
    model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def assert_equal_and_changed(outer: Any, allowed: float = 1e-10) -> None:
    model = ForestModel(outer)
    before = ForestModel(network("llama", torch.float64))(some_groups()).detach()
    assert (model(some_groups()).detach() - before).abs().max() > 1e-3
    assert model.vocabulary == 61
    assert_as_separate_rows(model, outer, allowed)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters(kind: str) -> None:
    assert_equal_and_changed(drawn(get_peft_model(network("llama", torch.float64), KINDS[kind]())))


@pytest.mark.parametrize("way", LORA)
@pytest.mark.parametrize("inner", [False, True])
def test_ways_of_lora(way: str, inner: bool) -> None:
    outer = drawn(get_peft_model(network("llama", torch.float64), LoraConfig(r=4, task_type="CAUSAL_LM", **LORA[way])))
    assert_equal_and_changed(outer.get_base_model() if inner else outer)


def test_the_saved_head_follows_its_adapter() -> None:
    outer: Any = drawn(get_peft_model(network("llama", torch.float64), LoraConfig(r=4, **SAVED)))
    model = ForestModel(outer)
    model(some_groups())
    with outer.disable_adapter():
        plain = ForestModel(network("llama", torch.float64))(some_groups())
        assert (model(some_groups()) - plain).abs().max() < 1e-10
    assert_as_separate_rows(model)


def test_a_compiled_network() -> None:
    plain = network("llama", torch.float64)
    model = ForestModel(torch.compile(plain, backend="eager"))
    assert model.network is plain
    assert_as_separate_rows(model)


class DistributedDataParallel(nn.Sequential):
    """Known by its name; the real one wants a process group."""


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (nn.DataParallel, "wrapped in DataParallel: the forest runs on one device"),
        (DistributedDataParallel, "its gradients would not be averaged over the processes"),
        (nn.Identity, r"network is a Identity \(torch.nn.modules.linear\): want a causal LM of transformers"),
        (
            lambda m: get_peft_model(m, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
            "adapter 'default' is of kind PROMPT_TUNING, which puts tokens or keys of its own before every sequence",
        ),
        (
            lambda m: get_peft_model(m, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
            "adapter 'default' is of kind PREFIX_TUNING",
        ),
        (
            lambda m: get_peft_model(m, LoraConfig(**LINEAR, task_type="CAUSAL_LM", alora_invocation_tokens=[3])),
            "adapter 'default' is an activated LoRA",
        ),
    ],
)
def test_what_a_forest_cannot_go_through_is_refused(wrap: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        unwrap(wrap(network("llama", torch.float32)))
