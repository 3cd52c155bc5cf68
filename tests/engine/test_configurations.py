"""What a model's class reads of its configuration counts; what it ignores does not."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from equality import compare
from small_models import SHAPES, network
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.model import attention
from rosepo_bench.engine.model.architectures import KINDS, REFUSED, Kind, head_widths, refuse_unsuitable

SLIDING, FULL = ["sliding_attention"] * 2, ["full_attention"] * 2
BOTH = ["sliding_attention", "full_attention"]


@pytest.mark.parametrize(
    ("kind", "ignored"),
    [
        # A Mistral converted to a Llama keeps its window in config.json (mergekit issue 60).
        *((kind, {"sliding_window": 4}) for kind in ("llama", "gpt_neox", "granite", "gemma", "olmoe")),
        ("llama", {"sliding_window": 4, "layer_types": SLIDING}),
        ("llama", {"layer_types": ["linear_attention"] * 2}),
        ("mistral", {"sliding_window": 4, "layer_types": FULL}),
        ("mistral", {"sliding_window": 4, "layer_types": BOTH}),
        ("llama", {"logit_scale": 0.5, "logits_scaling": 2.0}),
        ("llama", {"logit_scale": None, "logits_scaling": None}),
        ("granite", {"logit_scale": 0.5}),
        ("cohere", {"logits_scaling": 2.0}),
        *((kind, {"final_logit_softcapping": 3.0}) for kind in ("llama", "gemma")),
    ],
    ids=str,
)
def test_what_the_class_ignores_changes_nothing(kind: str, ignored: dict[str, Any]) -> None:
    assert compare((kind, ignored), forests=1, seed=1).twin < 1e-10


def test_scores_are_capped_only_where_the_class_caps_them() -> None:
    """Where they are, the compiled operator cannot run."""
    config = network("gemma3_text", torch.float32, attn_logit_softcapping=1.5).config
    assert attention.choose("auto", "auto", torch.device("cpu"), 100, config) == "forest"
    config = network("gemma2", torch.float32, attn_logit_softcapping=None).config
    assert attention.choose("auto", "auto", torch.device("cpu"), 100, config) == "forest"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("cohere", {"logit_scale": None}, "'cohere' has logit_scale = None: want a number above 0"),
        ("granite", {"logits_scaling": 0}, "'granite' has logits_scaling = 0: want a number above 0"),
        ("gemma2", {"final_logit_softcapping": 0.0}, "'gemma2' has final_logit_softcapping = 0.0: want a number above"),
        ("gemma2", {"attn_logit_softcapping": -1.0}, "'gemma2' has attn_logit_softcapping = -1.0: want a number above"),
        ("mistral", {"sliding_window": 0}, "'mistral' has windowed layers and sliding_window = 0: want the number of"),
        ("qwen3", {"layer_types": SLIDING}, "'qwen3' has windowed layers and sliding_window = None: want the number"),
    ],
)
def test_values_that_no_model_can_compute_with_are_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    config = AutoConfig.for_model(kind, **SHAPES[kind])
    for name, value in settings.items():  # as transformers' own checks refuse some of them
        setattr(config, name, value)
    with pytest.raises(UserError, match=message):
        refuse_unsuitable(config)


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_says_what_the_classes_source_says(kind: str) -> None:
    source = inspect.getsource(inspect.getmodule(AutoModelForCausalLM._model_mapping[CONFIG_MAPPING[kind]]))
    windowed, by_layer = (
        text in source for text in ("create_sliding_window_causal_mask", "self.config.layer_types[i]")
    )
    found = Kind(
        windows="by layer" if windowed and by_layer else "all" if windowed else "none",
        scale="logit_scale" if "self.logit_scale" in source else "",
        divisor="logits_scaling" if "self.config.logits_scaling" in source else "",
        cap="final_logit_softcapping" if "self.config.final_logit_softcapping" in source else "",
        score_cap="attn_logit_softcapping" if "softcap=self.attn_logit_softcapping" in source else "",
        widths=("qk_head_dim", "v_head_dim") if "config.v_head_dim" in source else (),
    )
    assert KINDS[kind] == found


def test_no_kind_is_both_supported_and_refused() -> None:
    assert not KINDS.keys() & REFUSED.keys()
    assert REFUSED.keys() <= set(CONFIG_MAPPING)


def test_keys_and_values_of_different_widths_are_attended_to_densely() -> None:
    config = network("deepseek_v3", torch.float32).config
    assert head_widths(config) == (10, 8)
    assert attention.choose("auto", "auto", torch.device("cpu"), 100, config) == "dense"
    with pytest.raises(UserError, match=r"keys and values of different widths \(10 and 8\); set .* = 'dense'"):
        attention.refuse_impossible("forest", "auto", torch.device("cpu"), config)
