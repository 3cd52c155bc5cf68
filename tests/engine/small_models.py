"""Small models of every supported kind, exact enough in fp64 to compare with."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn
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


class PlainNorm(nn.Module):
    """The norm ``stock`` in the dtype of its input; the stock ones compute in fp32 whatever they are given."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        name = type(stock).__name__
        self.weight, self.epsilon = stock.weight, getattr(stock, "variance_epsilon", None) or stock.eps
        self.offset = 1.0 if name.startswith("Gemma") else 0.0
        self.centred = name.endswith("LayerNorm")

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        return (self.offset + self.weight) * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)


def network(kind: str, dtype: torch.dtype, **changes: Any) -> nn.Module:
    """A model of type ``kind`` with every parameter drawn."""
    torch.manual_seed(7)
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}
    shape = {**sizes, **SHAPES[kind], **changes}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).to(dtype).eval()
    with torch.no_grad():  # freshly drawn weights give nearly uniform logits, which would hide errors
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith(("RMSNorm", "CohereLayerNorm", "Cohere2LayerNorm")):
                setattr(parent, name, PlainNorm(child))
    if kind.startswith("cohere"):  # the stock one computes in fp32
        importlib.import_module(f"transformers.models.{kind}.modeling_{kind}").apply_rotary_pos_emb = _rotary
    return model


def _rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Cohere's rotary positions, by neighbouring pairs, in the dtype of the input."""

    def turned(x: Tensor) -> Tensor:
        other = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
        return x * cos[:, None] + other * sin[:, None]

    return turned(q), turned(k)


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
