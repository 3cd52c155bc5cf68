"""The models that the forest is exact for, and what each reads of its configuration.

A configuration may hold attributes that its class never reads, such as the ``sliding_window`` of a Mistral that was
converted to a Llama. What counts is what the class reads, so each is looked up by model type.

A router's auxiliary loss (balance between experts) is not added to the training loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rosepo_bench.base.errors import UserError

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Kind:
    """What the class of a model type reads of its configuration. ``windows``: which layers attend in a window of
    ``sliding_window`` tokens. The others are names of attributes, empty where the class reads none: logits are
    multiplied by ``scale``, divided by ``divisor`` and capped at ``cap``, attention scores are capped at ``score_cap``;
    ``widths`` are those of a head's keys and values where both are not ``head_dim``."""

    windows: str = "none"  # "all": every layer if sliding_window is set; "by layer": those of layer_types
    scale: str = ""
    divisor: str = ""
    cap: str = ""
    score_cap: str = ""
    widths: tuple[str, ...] = ()


PLAIN, WINDOWED, BY_LAYER = Kind(), Kind(windows="all"), Kind(windows="by layer")
CAPPED = Kind(windows="by layer", cap="final_logit_softcapping", score_cap="attn_logit_softcapping")
LATENT = Kind(widths=("qk_head_dim", "v_head_dim"))

# Decoders with absolute or rotary positions or none, causal attention through transformers' AttentionInterface, a
# linear head, and experts that a token chooses without looking at others. Tests show for each that a forest gives the
# log-probs and gradients of separate rows.
KINDS = {
    "apertus": PLAIN,
    "arcee": PLAIN,
    "bitnet": PLAIN,
    "cohere": Kind(scale="logit_scale"),
    "cohere2": Kind(windows="by layer", scale="logit_scale"),
    "cwm": BY_LAYER,
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "dots1": BY_LAYER,
    "ernie4_5": PLAIN,
    "exaone4": BY_LAYER,
    "gemma": PLAIN,
    "gemma2": CAPPED,
    "gemma3_text": Kind(windows="by layer", cap="final_logit_softcapping"),
    "glm": PLAIN,
    "glm4": PLAIN,
    "gpt2": PLAIN,
    "gpt_bigcode": PLAIN,
    "gpt_neox": PLAIN,
    "granite": Kind(divisor="logits_scaling"),
    "granitemoe": Kind(divisor="logits_scaling"),
    "helium": PLAIN,
    "hunyuan_v1_dense": PLAIN,
    "llama": PLAIN,
    "ministral": BY_LAYER,
    "ministral3": WINDOWED,
    "mistral": WINDOWED,
    "mixtral": WINDOWED,
    "nemotron": PLAIN,
    "olmo": PLAIN,
    "olmo2": PLAIN,
    "olmo3": BY_LAYER,
    "olmoe": PLAIN,
    "opt": PLAIN,
    "phi": PLAIN,
    "phi3": WINDOWED,
    "qwen2": BY_LAYER,
    "qwen2_moe": BY_LAYER,
    "qwen3": BY_LAYER,
    "qwen3_moe": WINDOWED,
    "seed_oss": PLAIN,
    "smollm3": BY_LAYER,
    "stablelm": PLAIN,
    "starcoder2": WINDOWED,
    "vaultgemma": CAPPED,
}
SUPPORTED = tuple(KINDS)

ALIBI = "its attention adds a bias for distance (ALiBi), which the forest's attention does not compute"
OWN_ATTENTION = "its attention is code of its own, which the forest's cannot replace (no AttentionInterface)"
STATE = "it carries a state from token to token, so that branches of a tree would see each other"
HYBRID = "some of its layers carry a state from token to token, so that branches of a tree would see each other"
SELECTED = "it selects the keys that a query sees by their scores; the forest's attention sees the whole path"
CHUNKS = "its attention in chunks is not computed here"
REFUSED = {
    "bamba": HYBRID,
    "bloom": ALIBI,
    "codegen": OWN_ATTENTION,
    "deepseek_v32": SELECTED,
    "falcon": OWN_ATTENTION,
    "falcon_h1": HYBRID,
    "falcon_mamba": STATE,
    "glm_moe_dsa": SELECTED,
    "gpt_neo": OWN_ATTENTION,
    "gpt_oss": "its attention has sinks (a learned score beside those of the keys), which are not computed here",
    "gptj": OWN_ATTENTION,
    "granitemoehybrid": HYBRID,
    "jamba": HYBRID,
    "kimi_linear": HYBRID,
    "lfm2": HYBRID,
    "lfm2_moe": HYBRID,
    "llama4_text": CHUNKS,
    "mamba": STATE,
    "mamba2": STATE,
    "minimax": HYBRID,
    "mpt": ALIBI,
    "nemotron_h": HYBRID,
    "olmo_hybrid": HYBRID,
    "persimmon": "it reads attention's dropout from its configuration, where preference training cannot switch it off",
    "qwen3_5_moe_text": HYBRID,
    "qwen3_5_text": HYBRID,
    "qwen3_next": HYBRID,
    "recurrent_gemma": HYBRID,
    "rwkv": STATE,
    "xlstm": STATE,
    "zamba": HYBRID,
    "zamba2": HYBRID,
}


def refuse_unsuitable(config: Any) -> None:
    """Raises UserError, with the reason, for a transformers configuration that the forest would be wrong for."""
    kind = config.model_type
    if kind not in KINDS:
        raise UserError(f"model type {kind!r} is not supported: {_reason(config)}")
    if getattr(config, "use_bidirectional_attention", None):
        raise UserError(f"model type {kind!r} with use_bidirectional_attention sees later tokens: use a causal decoder")
    if not getattr(config, "is_causal", True):
        raise UserError(f"model type {kind!r} with is_causal = False sees later tokens: use a causal decoder")
    if "longrope" in _rope_types(config):
        raise UserError(
            f"model type {kind!r} with rope_type 'longrope' changes its rotary angles when any row of a batch is long, "
            "so that a sequence's log-prob would depend on its batch; use a model with another rope_type"
        )
    if kind == "mixtral" and config.router_jitter_noise:
        raise UserError(
            f"model type {kind!r} with router_jitter_noise = {config.router_jitter_noise} trains on noise that "
            "preference training cannot switch off; set it to 0 in the model's config.json"
        )
    for read in (window, head_settings, score_cap):
        read(config)


def _reason(config: Any) -> str:
    """Why a model type is not among ``KINDS``."""
    text = config.get_text_config(decoder=True)
    if text.model_type in KINDS and text is not config:
        return f"it reads more than text; load its text model alone, which is of type {text.model_type!r}"
    general = (
        f"the token forest is shown to be exact for {', '.join(SUPPORTED)} only (it would be wrong for state-space "
        "models, encoder-decoders and attention in chunks, among others)"
    )
    return REFUSED.get(config.model_type, general)


def _rope_types(config: Any) -> list[str]:
    """The types of rotary positions: one, or one for each kind of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    each = [part for part in parameters.values() if isinstance(part, dict)] or [parameters]
    return [part.get("rope_type", "default") for part in each]


def layer_types(config: Any) -> list[str]:
    """Of each layer, ``FULL`` or ``SLIDING``; empty where the class treats all layers alike. Raises UserError for
    another type."""
    types = config.layer_types or [] if _kind(config).windows == "by layer" else []
    for other in set(types) - {FULL, SLIDING}:
        raise UserError(
            f"model type {config.model_type!r} has layers of type {other!r}; the token forest wants {FULL} or {SLIDING}"
        )
    return list(types)


def window(config: Any) -> int:
    """How many tokens a token sees in windowed layers, itself included; 0: there are no such layers. Raises UserError
    for windowed layers without a window."""
    windows, tokens = _kind(config).windows, getattr(config, "sliding_window", None)
    if windows == "none" or (windows == "all" and tokens is None):
        return 0
    if windows == "by layer" and SLIDING not in layer_types(config):
        return 0
    if not isinstance(tokens, int) or tokens < 1:
        raise UserError(
            f"model type {config.model_type!r} has windowed layers and sliding_window = {tokens!r}: want the number of "
            "tokens that a token sees there, 1 or more"
        )
    return tokens


def head_settings(config: Any) -> dict[str, float]:
    """The arguments of ``SequenceLogProb`` beside the linear layer: Cohere multiplies logits, Granite divides them,
    Gemma 2 and 3 cap them. Raises UserError for a value that makes no logits."""
    kind = _kind(config)
    scale = _number(config, kind.scale) if kind.scale else 1.0
    divisor = _number(config, kind.divisor) if kind.divisor else 1.0
    return {"logit_scale": scale / divisor, "soft_cap": _cap(config, kind.cap)}


def score_cap(config: Any) -> float:
    """The cap of attention scores; 0: none. Raises UserError for one that is not above 0."""
    return _cap(config, _kind(config).score_cap)


def head_widths(config: Any) -> tuple[int, int]:
    """The widths of an attention head's keys and of its values."""
    names = _kind(config).widths
    if names:
        key, value = (getattr(config, name) for name in names)
        return key, value
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return width, width


def _kind(config: Any) -> Kind:
    return KINDS.get(getattr(config, "model_type", "llama"), PLAIN)


def _cap(config: Any, name: str) -> float:
    """None is no cap."""
    return _number(config, name) if name and getattr(config, name) is not None else 0.0


def _number(config: Any, name: str) -> float:
    value = getattr(config, name)
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise UserError(f"model type {config.model_type!r} has {name} = {value!r}: want a number above 0")
    return float(value)
