"""The language models of runs: `tiny` from scratch, or a causal LM of transformers, in full or with LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from rosepo_bench.base import store
from rosepo_bench.base.config import ModelConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ops
from rosepo_bench.engine.model import attention
from rosepo_bench.engine.model.architectures import refuse_unsuitable
from rosepo_bench.engine.model.forest_model import ForestModel
from rosepo_bench.engine.ops import library
from rosepo_bench.engine.prompts.tokens import Encoder


@dataclass
class LanguageModel(ForestModel):
    """A causal LM with its tokenizer."""

    encoder: Encoder

    def trained(self) -> dict[str, Tensor]:
        """The parameters that training changes, by name."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def save(self, path: Path) -> None:
        """Writes the trained parameters as safetensors, in their own dtype."""
        store.write_bytes(path, save({name: p.detach().contiguous() for name, p in self.trained().items()}))

    def load(self, path: Path) -> None:
        """Reads a file that ``save`` wrote; it must have every trained parameter."""
        weights, trained = load_file(path), self.trained()
        if weights.keys() != trained.keys():
            raise UserError(f"{path}: weights of another model; remove the file and run again")
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(weights[name])


def pretrained_name(model: str) -> str:
    """NAME_OR_PATH of ``hf:NAME_OR_PATH``; empty for `tiny`. Raises UserError for anything else."""
    prefix, _, name = model.partition(":")
    if model != "tiny" and (prefix != "hf" or not name):
        raise UserError(f"model.name = {model!r}: expected 'tiny' or 'hf:NAME_OR_PATH'")
    return name


def pretrained_config(name: str) -> Any:
    """The configuration of a transformers model. Raises UserError where there is none."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"model hf:{name}: could not be loaded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def device_of(config: ModelConfig) -> torch.device:
    """The device of ``model.device``; `auto` takes a GPU if torch sees one."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("model.device = 'cuda', but torch sees no GPU; set model.device = 'cpu'")
    use_gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def implementation_of(config: ModelConfig) -> list[str | None]:
    """The implementation of the operators that runs, and its build: builds may differ in rounding."""
    live = ops.live(config.impl, device_of(config))
    return [live, None if live == "reference" else library.info()["build_id"]]


def attention_of(config: ModelConfig) -> str:
    """The attention of a run: `forest`, `dense` or `flex` (where a last, short pass may be dense)."""
    name = pretrained_name(config.name)
    tiny = SimpleNamespace(hidden_size=config.hidden, num_attention_heads=config.heads)
    shape = pretrained_config(name) if name else tiny
    return attention.choose(config.attention, config.impl, device_of(config), attention.FLEX_FROM, shape)


def create(config: ModelConfig, encoder: Encoder, *, seed: int) -> LanguageModel:
    """The model before training. The weights of `tiny` and of new LoRA layers are drawn with ``seed``. If
    ``config.dtype`` is bfloat16, passes run under autocast; trained weights are float32, frozen ones bfloat16."""
    device = device_of(config)
    torch.manual_seed(seed)
    network = _pretrained(config) if pretrained_name(config.name) else _tiny(config, encoder)
    attention.refuse_impossible(config.attention, config.impl, device, network.config)
    if config.training == "lora":
        network = _adapted(network, config)
    if config.checkpointing:
        _checkpoint_activations(network)
    short = torch.bfloat16 if config.dtype == "bfloat16" else None
    _set_dtypes(network, short or torch.float32)
    network.to(device).eval()
    refuse_larger(config.name, encoder.size, network.get_output_embeddings().weight.shape[0])
    return LanguageModel(
        network,
        encoder,
        impl=config.impl,
        attention=config.attention,
        square_cost=config.square_cost,
        dtype=short,
    )


def _set_dtypes(network: Any, frozen: torch.dtype) -> None:
    """Trained weights in float32, whatever dtype passes compute in, because bfloat16 would lose optimizer steps to
    rounding. Frozen ones in ``frozen``."""
    for parameter in network.parameters():
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else frozen)


def refuse_larger(model: str, tokens: int, rows: int) -> None:
    """UserError: a tokenizer with more ``tokens`` than the model's head has ``rows``."""
    if tokens > rows:
        raise UserError(f"model {model}: its tokenizer has {tokens} tokens, more than its head has rows ({rows})")


def context_of(config: ModelConfig) -> int:
    """Longest sequence in tokens, known before any weight is read. Raises UserError for an unsuitable model."""
    name = pretrained_name(config.name)
    shape = pretrained_config(name) if name else None
    if shape is not None:
        refuse_unsuitable(shape)  # first, because the code below reads attributes that such a configuration may lack
    attention.refuse_impossible(config.attention, config.impl, device_of(config), shape)
    if shape is None:
        return config.context
    if Path(name).is_dir() and not any(Path(name).glob("*.safetensors")):
        raise UserError(f"model hf:{name}: no safetensors weights there; pickled weights are not read: convert them")
    return int(shape.max_position_embeddings)


def _tiny(config: ModelConfig, encoder: Encoder) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=encoder.size,
        hidden_size=config.hidden,
        intermediate_size=config.hidden * 8 // 3,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        bos_token_id=encoder.begin[0],
        eos_token_id=encoder.end,
    )
    return LlamaForCausalLM(shape)


def _pretrained(config: ModelConfig) -> Any:
    from transformers import AutoModelForCausalLM

    name = pretrained_name(config.name)
    refuse_unsuitable(pretrained_config(name))
    dtype = getattr(torch, config.dtype) if config.training == "lora" else torch.float32
    try:
        return AutoModelForCausalLM.from_pretrained(
            name,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except OSError as error:
        raise UserError(f"model hf:{name}: could not be loaded: {_first_line(error)}") from error


def _checkpoint_activations(network: Any) -> None:
    # The second name is the older one; both use non-reentrant checkpointing, which LoRA's gradients require.
    enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
    enable()


def _adapted(network: Any, config: ModelConfig) -> Any:
    from peft import LoraConfig, inject_adapter_in_model

    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    try:
        return inject_adapter_in_model(lora, network)
    except ValueError as error:
        if not config.lora_dropout or "lora_dropout" not in str(error):
            raise
        raise UserError(
            f"model {config.name}: LoRA adapts its experts, whose inputs it cannot drop "
            f"(model.lora_dropout = {config.lora_dropout}); set model.lora_dropout = 0"
        ) from error
