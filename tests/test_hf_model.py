"""A transformers model with LoRA goes the same way as `tiny`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from running import MICRO, results
from safetensors import safe_open
from saved_model import save_model
from tokenizers import Regex, Tokenizer, normalizers

from rosepo_bench import cli


@pytest.mark.parametrize(
    ("kind", "dtype"), [("qwen3", "float32"), ("gpt_neox", "float32"), ("gemma2", "float32"), ("qwen3", "bfloat16")]
)
def test_lora_on_a_transformers_model(kind: str, dtype: str, tmp_path: Path) -> None:
    save_model(kind, tmp_path / kind)
    out = tmp_path / "out"
    settings = [
        f"model.name=hf:{tmp_path / kind}",
        "model.training=lora",
        f"model.dtype={dtype}",
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
        assert {file.get_slice(name).get_dtype() for name in names} == {"F32"}
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


def status(model: Path, out: Path, method: str) -> int:
    """The exit status of one method with this model."""
    line = [
        "run",
        "--methods",
        method,
        "--profile",
        str(MICRO),
        "--out",
        str(out),
        "--cache-dir",
        str(out),
        "--offline",
    ]
    return cli.main([*line, "--set", f"model.name=hf:{model}", "--set", "prompt.history=6"])


LONG = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32}
UNSUITABLE = [
    ("mamba", {}, "model type 'mamba' is not supported"),
    ("t5", {}, "model type 't5' is not supported"),
    ("llama4_text", {}, "model type 'llama4_text' is not supported"),
    ("qwen3", {"num_hidden_layers": 1, "layer_types": ["chunked_attention"]}, "has layers of type 'chunked_attention'"),
    ("llama", {"rope_parameters": {**LONG, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}}, "'longrope' changes"),
]


@pytest.mark.parametrize(("kind", "settings", "message"), UNSUITABLE, ids=[case[0] for case in UNSUITABLE])
def test_kinds_that_the_forest_is_wrong_for_are_refused_before_data_are_read(
    kind: str, settings: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers.AutoConfig.for_model(kind, **settings).save_pretrained(tmp_path / "model")
    assert status(tmp_path / "model", tmp_path / "out", "zero_shot") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "stages").exists()


def test_titles_that_a_tokenizer_cannot_tell_apart_make_no_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model("qwen3", tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Replace(Regex("[A-Za-z0-9]"), "a")
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    assert status(tmp_path / "model", tmp_path / "out", "dpo") == 2
    said = capsys.readouterr().err
    assert re.search(r"items \d+ and \d+: the tokenizer makes the same tokens of '.+' and '.+', so a pair", said)
    assert not list(tmp_path.glob("out/stages/*.sft-*"))
    assert status(tmp_path / "model", tmp_path / "out", "zero_shot") == 0
