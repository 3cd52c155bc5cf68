"""Small models of every supported kind, exact enough in fp64 to compare with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM
from transformers.masking_utils import sdpa_mask

from rosepo_bench.engine.model.language_model import LanguageModel

VOCABULARY, CONTEXT = 61, 64
PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
GROUPED = {**PLAIN, "num_key_value_heads": 2}
# Caps and scales that change numbers of this size, too.
GEMMA = {**GROUPED, "head_dim": 8, "final_logit_softcapping": 3.0}
SHAPES: dict[str, dict[str, Any]] = {
    "cohere": {**GROUPED, "logit_scale": 0.4, "use_qk_norm": True},
    "cohere2": {**GROUPED, "logit_scale": 0.4, "sliding_window": 5,
                "layer_types": ["sliding_attention", "full_attention"]},
    "gemma": {**PLAIN, "num_key_value_heads": 1, "head_dim": 16},
    "gemma2": {**GEMMA, "attn_logit_softcapping": 1.5, "query_pre_attn_scalar": 8, "sliding_window": 6},
    "gemma3_text": {**GEMMA, "query_pre_attn_scalar": 8, "sliding_window": 4,
                    "layer_types": ["full_attention", "sliding_attention"]},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "attn_pdrop": 0.0},
    "gpt_neox": PLAIN,
    "granite": {**GROUPED, "logits_scaling": 2.5, "embedding_multiplier": 3.0, "residual_multiplier": 0.7,
                "attention_multiplier": 0.3},
    "llama": PLAIN,
    "mistral": {**GROUPED, "sliding_window": None},
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
}  # fmt: skip
# Those whose windows can be turned on.
WINDOWED = {
    "mistral": {"sliding_window": 5},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
}


# Experts: each token takes two of four.
ROUTED = {"num_experts_per_tok": 2, "num_local_experts": 4}
ROUTED_NARROW = {"num_experts_per_tok": 2, "num_experts": 4, "moe_intermediate_size": 24}
LATENT = {
    **PLAIN,
    "num_key_value_heads": 4,
    "kv_lora_rank": 12,
    "q_lora_rank": 14,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
# Supported, too, and compared in fewer ways: see test_architectures.
MORE: dict[str, dict[str, Any]] = {
    "apertus": {**GROUPED, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "arcee": GROUPED,
    "bitnet": GROUPED,
    "cwm": {**GROUPED, "head_dim": 8, "sliding_window": 5, **MIXED},
    "deepseek_v2": {**LATENT, "topk_method": "group_limited_greedy"},
    "deepseek_v3": LATENT,
    "dots1": {**GROUPED, **ROUTED_NARROW, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1,
              "norm_topk_prob": True, "sliding_window": 5, **MIXED},
    "ernie4_5": {**GROUPED, "head_dim": 8},
    "exaone4": {**GROUPED, "sliding_window": 5, **MIXED},
    "glm": {**GROUPED, "head_dim": 8},
    "glm4": {**GROUPED, "head_dim": 8},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "attn_pdrop": 0.0},
    "granitemoe": {**GROUPED, **ROUTED, "logits_scaling": 2.5, "embedding_multiplier": 3.0, "residual_multiplier": 0.7,
                   "attention_multiplier": 0.3},
    "helium": {**GROUPED, "head_dim": 8},
    "hunyuan_v1_dense": {**GROUPED, "head_dim": 8},
    "ministral": {**GROUPED, "head_dim": 8, "sliding_window": 5, **MIXED},
    "ministral3": {**GROUPED, "head_dim": 8, "sliding_window": 5,
                   "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
                                       "original_max_position_embeddings": 16, "llama_4_scaling_beta": 0.3}},
    "mixtral": {**GROUPED, **ROUTED, "sliding_window": 5},
    "nemotron": GROUPED,
    "olmo": {**GROUPED, "clip_qkv": 0.5},
    "olmo2": GROUPED,
    "olmo3": {**GROUPED, "sliding_window": 5, **MIXED},
    "olmoe": {**GROUPED, **ROUTED_NARROW, "clip_qkv": 0.5},
    "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
            "word_embed_proj_dim": 24},
    "phi": GROUPED,
    "phi3": {**GROUPED, "sliding_window": 5},
    "qwen2_moe": {**GROUPED, **ROUTED_NARROW, "shared_expert_intermediate_size": 24, "use_sliding_window": True,
                  "sliding_window": 4, "max_window_layers": 1},
    "qwen3_moe": {**GROUPED, **ROUTED_NARROW, "head_dim": 8, "norm_topk_prob": True, "use_sliding_window": True,
                  "sliding_window": 5},
    "seed_oss": {**GROUPED, "head_dim": 8, "attention_dropout": 0.0},
    "smollm3": {**GROUPED, "no_rope_layers": [0, 1], "use_sliding_window": True, "sliding_window": 5},
    "stablelm": {**GROUPED, "qk_layernorm": True},
    "starcoder2": {**GROUPED, "sliding_window": 5},
    "vaultgemma": {**GEMMA, "attn_logit_softcapping": 1.5, "query_pre_attn_scalar": 8, "sliding_window": 6, **MIXED},
}  # fmt: skip


class Double(TorchFunctionMode):
    """What transformers computes in fp32 whatever it is given (norms, routers, some rotary positions) stays in fp64,
    and experts are multiplied in fp64, for which torch has no ``grouped_mm``."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given, named = list(args), dict(kwargs or {})
        if given and isinstance(given[0], Tensor) and given[0].dtype == torch.float64:
            if function is Tensor.float:
                return given[0]
            if function is torch._grouped_mm:
                return torch.ops.transformers.grouped_mm_fallback(*given, named["offs"])
            if function in (Tensor.to, Tensor.type):
                given = [torch.float64 if x is torch.float32 else x for x in given]
            if named.get("dtype") is torch.float32:
                named["dtype"] = torch.float64
        return function(*given, **named)


def keep_double(network: nn.Module) -> None:
    """Runs what transformers defines inside ``network`` under ``Double``, also where a block is computed again. Not
    ``network`` itself: the forest refuses hooks there."""
    inside: list[Double] = []  # one for each module that is running

    def enter(module: nn.Module, *_: Any) -> None:
        inside.append(inside[0] if inside else Double().__enter__())

    def leave(module: nn.Module, *_: Any) -> None:
        mode = inside.pop()
        if not inside:
            mode.__exit__(None, None, None)

    for module in network.modules():
        if module is not network and type(module).__module__.startswith("transformers.models"):
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave, always_call=True)


def network(kind: str, dtype: torch.dtype, **changes: Any) -> nn.Module:
    """A model of type ``kind`` with every parameter drawn."""
    torch.manual_seed(7)
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "bos_token_id": 0, "eos_token_id": 0,
             "pad_token_id": 0}  # fmt: skip
    shape = {**sizes, **{**SHAPES, **MORE}[kind], **changes}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).to(dtype).eval()
    with torch.no_grad():  # freshly drawn weights give nearly uniform logits, which would hide errors
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    keep_double(model)
    return model


def textbook(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as it is written in papers, in the dtype of its input."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~attention_mask, -torch.inf).softmax(-1)
    return (weights @ value).transpose(1, 2), None


def always_a_mask(*arguments: Any, **settings: Any) -> Tensor:
    return sdpa_mask(*arguments, **{**settings, "allow_is_causal_skip": False})


AttentionInterface.register("textbook", textbook)
AttentionMaskInterface.register("textbook", always_a_mask)


def language_model(model: nn.Module, attention: str = "auto") -> LanguageModel:
    return LanguageModel(model, None, attention=attention)  # type: ignore[arg-type]
