"""Between the engine and transformers: what others do to a network between passes, and what wraps it."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equality import Group, random_group, separate, values_and_gradients, worst
from peft import LoraConfig, inject_adapter_in_model
from small_models import network
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ForestModel


def some_groups(seed: int = 0) -> list[Group]:
    draw = np.random.default_rng(seed)
    return [random_group(draw) for _ in range(3)]


def assert_as_separate_rows(model: ForestModel, outer: Any = None, allowed: float = 1e-10) -> None:
    """Values and gradients of every trained parameter; the rows go through ``outer``, the network as handed in."""
    outer = outer or model.network
    groups, rows = some_groups(), copy.deepcopy(outer)
    values = model(groups)
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=len(values)))
    found = values_and_gradients(outer, values, weights)
    exact = values_and_gradients(rows, separate(rows, groups, "textbook"), weights)
    assert max(worst(found, exact).values()) < allowed


@pytest.mark.parametrize("change", ["a second model of the configuration", "eager", "sdpa", "the body alone"])
def test_attention_is_ours_at_every_pass(change: str) -> None:
    model = ForestModel(network("llama", torch.float64))
    model(some_groups())
    if change == "a second model of the configuration":
        AutoModelForCausalLM.from_config(model.network.config, attn_implementation="eager")
        assert model.network.config._attn_implementation == "eager", "the fault"
    elif change == "the body alone":
        model.network.base_model.set_attn_implementation("eager")
    else:
        model.network.set_attn_implementation(change)
    assert_as_separate_rows(model)


@pytest.mark.parametrize("other", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_no_other_attention_takes_the_mask(kind: str, other: str) -> None:
    model = ForestModel(network(kind, torch.float32))
    model.check()
    block = next(m for m in model.network.modules() if isinstance(m, nn.ModuleList))[0]
    block.register_forward_pre_hook(lambda *_: model.network.set_attn_implementation(other))
    with pytest.raises(UserError, match="the mask of a token forest reached another attention"):
        model(some_groups())


def wider_vocabulary(model: Any) -> None:
    model.resize_token_embeddings(80, mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight[61:].normal_()


def another_head(model: Any) -> None:
    model.set_output_embeddings(nn.Linear(32, 61, dtype=torch.float64))


@pytest.mark.parametrize("change", [wider_vocabulary, another_head])
def test_the_head_is_looked_up_at_every_pass(change: Any) -> None:
    model = ForestModel(network("llama", torch.float64))
    model(some_groups())
    change(model.network)
    assert_as_separate_rows(model)
    assert model.vocabulary == model.network.get_input_embeddings().weight.shape[0]
    assert model.head is model.head


def test_lora_on_the_head_after_a_pass_is_refused() -> None:
    model = ForestModel(network("llama", torch.float64))
    model(some_groups())
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["q_proj", "lm_head"]), model.network)
    with pytest.raises(UserError, match=r"lm_head is a Linear \(peft.tuners.lora.layer\)"):
        model(some_groups())


@pytest.mark.parametrize("hook", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
@pytest.mark.parametrize("where", ["head", "model"])
@pytest.mark.parametrize("when", ["before", "after the first pass"])
def test_hooks_that_a_forest_would_pass_by_are_refused(hook: str, where: str, when: str) -> None:
    plain: Any = network("llama", torch.float32)
    made = ForestModel(plain) if when != "before" else None
    if made:
        made(some_groups())
    part = plain.lm_head if where == "head" else plain
    getattr(part, f"register_{hook}_hook")(lambda *_: None)
    kind = "backward" if "backward" in hook else "forward"
    with pytest.raises(UserError, match=f"the model.*, has {kind} hooks: remove them"):
        (made or ForestModel(plain))(some_groups())


class Tempered(LlamaForCausalLM):
    """A class of one's own that changes logits."""

    def forward(self, *arguments: Any, **settings: Any) -> Any:
        found = super().forward(*arguments, **settings)
        found.logits = found.logits * 0.5
        return found


class Renamed(LlamaForCausalLM):
    """A class of one's own that changes nothing."""


def test_a_forward_of_ones_own_is_refused() -> None:
    plain = network("llama", torch.float64)
    plain.__class__ = Tempered
    with pytest.raises(UserError, match=r"Tempered \(test_seam\) has a forward of its own"):
        ForestModel(plain)
    plain.__class__ = Renamed
    assert_as_separate_rows(ForestModel(plain))
    plain.forward = lambda *arguments, **settings: None  # type: ignore[assignment]
    with pytest.raises(UserError, match="has a forward put on the object"):
        ForestModel(plain)


def test_offloaded_weights_are_refused() -> None:
    accelerate = pytest.importorskip("accelerate")
    plain = network("llama", torch.float32)
    accelerate.cpu_offload(plain, execution_device="cpu")
    with pytest.raises(UserError, match=r"parameter \S+ is on the meta device: its weights .* offloaded"):
        ForestModel(plain)


def test_hooks_of_accelerate_are_refused() -> None:
    hooks = pytest.importorskip("accelerate.hooks")
    plain: Any = network("llama", torch.float32)
    hooks.add_hook_to_module(plain.lm_head, hooks.ModelHook())
    with pytest.raises(UserError, match="the model's head, a Linear, has hooks of accelerate"):
        ForestModel(plain)(some_groups())


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_masks_of_others_pass_or_are_refused(kind: str) -> None:
    """A plain forward of a network that was made ready: Gemma 2 caps scores, and SDPA cannot."""
    plain: Any = network(kind, torch.float64)
    ids = torch.randint(1, 61, (2, 9), generator=torch.Generator().manual_seed(0))
    padding = torch.ones(2, 9, dtype=torch.long)
    padding[0, 6:] = 0
    causal = torch.ones(2, 1, 9, 9, dtype=torch.bool).tril()
    masks: list[Any] = [None, padding, causal]
    plain.set_attn_implementation("textbook")
    exact = [plain(ids, attention_mask=mask).logits for mask in masks[:2]]
    ForestModel(plain)
    found = [plain(ids, attention_mask=mask).logits for mask in masks]
    assert (found[0] - exact[0]).abs().max() < 1e-10
    assert (found[1] - exact[1])[padding.bool()].abs().max() < 1e-10
    if kind == "gemma2":
        with pytest.raises(UserError, match=r"the attention mask is torch.float64: .* wants a bool mask"):
            plain(ids, attention_mask=torch.zeros(2, 1, 9, 9, dtype=torch.float64))


def test_a_whole_model_loads_where_this_package_is_not_imported(tmp_path: Path) -> None:
    plain: Any = AutoModelForCausalLM.from_config(network("llama", torch.float32).config)
    plain.set_attn_implementation("sdpa")
    ids = torch.tensor([[1, 2, 3]])
    exact = plain(ids).logits
    model = ForestModel(plain)
    model(some_groups())
    torch.save(plain, tmp_path / "whole.pt")
    torch.save(exact, tmp_path / "exact.pt")
    program = (
        "import sys, torch; m = torch.load('whole.pt', weights_only=False); exact = torch.load('exact.pt');"
        "assert 'rosepo_bench' not in sys.modules; assert m.config._attn_implementation == 'sdpa';"
        "assert (m(torch.tensor([[1, 2, 3]])).logits - exact).abs().max() < 1e-5"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


@pytest.mark.parametrize("attention", ["auto", "dense"])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma", "gpt2"])
def test_under_the_callers_autocast(kind: str, attention: str) -> None:
    """As near to fp64 as separate rows under the same autocast, within a factor."""
    double = network(kind, torch.float64)
    single, groups = copy.deepcopy(double).float(), some_groups()
    with torch.no_grad():
        exact = separate(double, groups, "textbook")
        with torch.autocast("cpu", torch.bfloat16):
            alone = separate(single, groups, "sdpa").double()
            forest = ForestModel(single, attention=attention)(groups).double()
    assert (forest - exact).square().mean() < 4 * (alone - exact).square().mean()
    assert (forest - exact).abs().max() > 1e-4, "no autocast"
