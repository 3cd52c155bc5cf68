"""A transformers model with LoRA goes the same way as `tiny`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from running import MICRO, results
from safetensors import safe_open
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

from rosepo_bench import cli
from rosepo_bench.engine.tokens import END, train_tiny

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


@pytest.mark.parametrize("kind", ["qwen3", "gpt_neox", "gemma2"])
def test_lora_on_a_transformers_model(kind: str, tmp_path: Path) -> None:
    save_model(kind, tmp_path / kind)
    out = tmp_path / "out"
    settings = [
        f"model.name=hf:{tmp_path / kind}",
        "model.training=lora",
        f"model.checkpointing={'true' if kind == 'gemma2' else 'false'}",
        "model.lora_dropout=0.1",
        "sft.lr=1e-2",
    ]
    line = [
        "run",
        "--methods",
        "zero_shot,sft,rosepo",
        "--profile",
        str(MICRO),
        "--out",
        str(out),
        "--offline",
    ]
    for setting in [*settings, "prompt.history=6", "threads=1"]:
        line += ["--set", setting]
    assert cli.main([*line, "--cache-dir", str(tmp_path)]) == 0
    found = results(out)
    assert set(found) == {"steam/zero_shot/0", "steam/sft/0", "steam/rosepo/0"}
    # SFT moved the model, and only adapters were trained and stored.
    assert (found["steam/sft/0"][1]["scores"] != found["steam/zero_shot/0"][1]["scores"]).mean() > 0.9
    assert found["steam/sft/0"][1]["scores"].mean() > found["steam/zero_shot/0"][1]["scores"].mean() + 1
    (weights,) = out.glob("stages/steam.sft-*/weights.safetensors")
    with safe_open(weights, framework="pt") as file:
        names = list(file.keys())
    assert names
    assert all("lora_" in name for name in names)


def test_unsafe_and_unsuitable_models_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model("qwen3", tmp_path / "model")
    (weights,) = (tmp_path / "model").glob("*.safetensors")
    torch.save(torch.load, tmp_path / "model" / "pytorch_model.bin")  # a pickle is no weights file
    weights.unlink()
    line = [
        "run",
        "--methods",
        "zero_shot",
        "--profile",
        str(MICRO),
        "--out",
        str(tmp_path / "out"),
        "--offline",
    ]
    assert cli.main([*line, "--set", f"model.name=hf:{tmp_path / 'model'}", "--cache-dir", str(tmp_path)]) == 2
    assert "no safetensors weights there; pickled weights are not read" in capsys.readouterr().err
