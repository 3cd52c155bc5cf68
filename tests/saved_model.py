"""Small transformers models on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rosepo_bench.engine.prompts.tokens import END, train_tiny

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
}


def save_model(kind: str, folder: Path) -> None:
    """A small model with random weights and a tokenizer, as `save_pretrained` leaves them."""
    encoder = train_tiny(["Iron Harbor", "Glass Orchard", "Games played, oldest first:", "line\nbreak"], 300)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(encoder.tokenizer.to_str()), eos_token=END)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    vocabulary = {"vocab_size": len(tokenizer)}
    if kind == "gemma2":
        window = {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 20, "query_pre_attn_scalar": 16}
        network = Gemma2ForCausalLM(Gemma2Config(**{**SHAPE, "num_hidden_layers": 2}, **vocabulary, **window))
    elif kind == "qwen3":
        network = Qwen3ForCausalLM(Qwen3Config(**SHAPE, **vocabulary, num_key_value_heads=1, head_dim=16))
    else:
        network = GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, **vocabulary))
    network.save_pretrained(folder)
