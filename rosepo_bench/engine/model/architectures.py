"""The models that the forest is exact for, and how their heads scale and cap logits."""

from __future__ import annotations

from typing import Any

from rosepo_bench.base.errors import UserError

# Decoders with absolute or rotary positions, causal attention with or without a window, and a linear head with or
# without scale and cap. Tests show for each that a forest gives the log-probs and gradients of separate rows.
SUPPORTED = (
    "cohere",
    "cohere2",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "granite",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
)
LAYERS = ("full_attention", "sliding_attention")


def refuse_unsuitable(config: Any) -> None:
    """Raises UserError, with the reason, for a transformers configuration that the forest would be wrong for."""
    kind = config.model_type
    if kind not in SUPPORTED:
        raise UserError(
            f"model type {kind!r} is not supported: the token forest is shown to be exact for {', '.join(SUPPORTED)} "
            "only (it would be wrong for state-space models, encoder-decoders and attention in chunks, among others)"
        )
    other = [layer for layer in getattr(config, "layer_types", None) or () if layer not in LAYERS]
    if other:
        raise UserError(
            f"model type {kind!r} has layers of type {other[0]!r}; the token forest wants {' or '.join(LAYERS)}"
        )
    if getattr(config, "use_bidirectional_attention", None):
        raise UserError(f"model type {kind!r} with use_bidirectional_attention sees later tokens: use a causal decoder")
    if "longrope" in _rope_types(config):
        raise UserError(
            f"model type {kind!r} with rope_type 'longrope' changes its rotary angles when any row of a batch is long, "
            "so that a sequence's log-prob would depend on its batch; use a model with another rope_type"
        )


def _rope_types(config: Any) -> list[str]:
    """The types of rotary positions: one, or one for each kind of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    each = [part for part in parameters.values() if isinstance(part, dict)] or [parameters]
    return [part.get("rope_type", "default") for part in each]


def head_settings(config: Any) -> dict[str, float]:
    """The arguments of ``SequenceLogProb`` beside the linear layer: Cohere multiplies logits, Granite divides them,
    Gemma 2 caps them."""
    scale = getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
    return {"logit_scale": scale, "soft_cap": getattr(config, "final_logit_softcapping", None) or 0.0}
