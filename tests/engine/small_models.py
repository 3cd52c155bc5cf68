"""Small models of every supported kind, exact enough in fp64 to compare with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from rosepo_bench.engine.model import LanguageModel

VOCABULARY, CONTEXT = 61, 64
SHAPES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "attn_pdrop": 0.0},
    "gpt_neox": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "llama": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "mistral": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                "intermediate_size": 64, "sliding_window": None},
    "qwen2": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "intermediate_size": 64},
    "qwen3": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "intermediate_size": 64, "head_dim": 8},
}  # fmt: skip


class PlainRMSNorm(nn.Module):
    """RMSNorm in the dtype of its input; the stock ones compute in fp32 whatever they are given."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.weight, self.epsilon = stock.weight, stock.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)


def network(kind: str, dtype: torch.dtype, **settings: int) -> nn.Module:
    torch.manual_seed(7)
    settings = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, **SHAPES[kind], **settings}
    shape = AutoConfig.for_model(kind, **settings)
    model = AutoModelForCausalLM.from_config(shape, attn_implementation="sdpa").to(dtype).eval()
    with torch.no_grad():  # freshly drawn weights give nearly uniform logits, which would hide errors
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, PlainRMSNorm(child))
    return model


def language_model(model: nn.Module) -> LanguageModel:
    return LanguageModel(model, None, CONTEXT, torch.device("cpu"))  # type: ignore[arg-type]
