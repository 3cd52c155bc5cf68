"""The models of the benchmarks: Llamas with random weights, and copies in higher precision for exact numbers."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from rosepo_bench.base.seeds import derive
from rosepo_bench.bench.lists import BEGIN, END, ListSize


def make(size: ListSize, seed: int) -> Any:
    """A Llama whose logits are spread as a trained model's; the head is tied to the embedding unless adapters are
    trained."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(derive(seed, "bench", "network", size.hidden, size.vocabulary))
    shape = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        max_position_embeddings=size.context,
        initializer_range=1 / math.sqrt(size.hidden),
        tie_word_embeddings=not size.lora,
        bos_token_id=BEGIN,
        eos_token_id=END,
        attn_implementation="sdpa",  # type: ignore[call-arg]  # an argument of the base class
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, size.dtype))
    try:
        with torch.device(size.device):
            network = LlamaForCausalLM(shape)
    finally:
        torch.set_default_dtype(before)
    return (_adapted(network, size) if size.lora else network).eval()


def _adapted(network: Any, size: ListSize) -> Any:
    from peft import LoraConfig, inject_adapter_in_model

    lora = LoraConfig(r=size.lora, lora_alpha=size.lora, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = inject_adapter_in_model(lora, network)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # initialised to zero, so that no gradient would reach lora_A
            nn.init.normal_(parameter, std=0.02)
    return adapted


def trained(network: Any) -> dict[str, Tensor]:
    """The parameters that get a gradient, by name."""
    return {name: one for name, one in network.named_parameters() if one.requires_grad}


def sharing(network: Any) -> Any:
    """Another model over the same parameters: what a contestant does to its modules does not affect the others."""
    return copy.deepcopy(network, {id(one): one for one in network.parameters()})


def twin(network: Any, *, checkpointing: bool = False) -> Any:
    """A copy that computes throughout in fp64 (fp32 for a 16-bit model). With ``checkpointing`` it keeps only the input
    of each layer for the backward pass."""
    wide = torch.float32 if next(network.parameters()).dtype.itemsize == 2 else torch.float64
    made = copy.deepcopy(network).to(wide)
    for parent in list(made.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, _RMSNorm(child))
    if checkpointing:
        checkpoint(made)
    return made


def checkpoint(network: Any) -> None:
    """Gradient checkpointing as Trainer.train sets it: in training mode layers run again in the backward pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers has renamed it
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    network.train()


class _RMSNorm(nn.Module):
    """RMSNorm in the dtype of its input; transformers' own always computes in fp32."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.weight, self.epsilon = stock.weight, stock.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return scaled
