"""How a model attends over the forest: by the compiled operator, which reads ``end``; by SDPA with a dense mask per
tree; or by FlexAttention over blocks of the mask.

In all of them query q sees key k where ``(k <= q) & (q < end[k])``; in windowed layers only where k is also less than
``window`` tokens further up the path, counted by ``depth``, so that branches do not count for each other. transformers
calls ``attend``, which chooses by the type of the mask.

Shape legend: T tokens of a pass, L tokens padded to a bucket; H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import ops
from rosepo_bench.engine.forest import Batch
from rosepo_bench.engine.model import architectures
from rosepo_bench.engine.model.mask import ForestMask
from rosepo_bench.engine.ops import attention_reference as plain
from rosepo_bench.engine.ops.implementation import autocast

if TYPE_CHECKING:
    from jaxtyping import Bool, Int32, Int64

CHOICES = ("auto", "forest", "dense", "flex")
BLOCK = 128  # FlexAttention's own default on CUDA
NARROWEST = 16  # least width of a head for FlexAttention's CUDA kernel

# From this many tokens of a pass on `auto` takes FlexAttention on CUDA. Below about 1,000 tokens it was measured slower
# than masked SDPA (pytorch/pytorch issue 141129, an A800; meta-pytorch/attention-gym issue 89). SDPA is called for each
# tree and computes all of its t² scores; FlexAttention skips the blocks above the diagonal and between branches.
FLEX_FROM = 1024

# A kernel is compiled for each bucket, with and without gradient, with and without window. torch's default limit is 8;
# to exceed this one is an error, not a slow path.
COMPILED_KERNELS = 64


def choose(setting: str, impl: str, device: torch.device, tokens: int, config: Any) -> str:
    """``forest``, ``dense`` or ``flex`` for a pass of ``tokens`` tokens of a model of this transformers configuration
    under ``model.attention = setting`` and ``model.impl = impl``.

    `auto` depends on these arguments only, never on measured time, so that equal runs compute equal numbers: flex on
    CUDA from ``FLEX_FROM`` tokens on, forest on the CPU, each if the model allows it, and dense otherwise.
    """
    if setting != "auto":
        return setting
    if device.type == "cuda":
        return "flex" if tokens >= FLEX_FROM and not obstacle(config, "flex") else "dense"
    return "dense" if impl == "reference" or obstacle(config, "forest") else "forest"


def obstacle(config: Any, setting: str) -> str:
    """Why a model of this transformers configuration cannot be trained under ``setting``; empty where it can."""
    dropout = getattr(config, "attention_dropout", None) or getattr(config, "attn_pdrop", None)
    if setting in ("forest", "flex") and dropout:
        return f"it drops attention weights (probability {dropout})"
    if setting == "forest" and architectures.score_cap(config):
        return f"it caps attention scores (at {config.attn_logit_softcapping})"
    key, value = architectures.head_widths(config)
    if setting == "forest" and key != value:
        return f"its heads have keys and values of different widths ({key} and {value})"
    if setting == "flex" and min(key, value) < NARROWEST:
        return f"its heads are narrower than {NARROWEST} ({min(key, value)})"
    return ""


def refuse_impossible(setting: str, impl: str, device: torch.device, config: Any = None) -> None:
    """Raises UserError, before any work, for a setting that cannot train. ``config`` None: any model."""
    why = "" if config is None else obstacle(config, setting)
    if why:
        raise UserError(f"model.attention = {setting!r} cannot train this model: {why}; set model.attention = 'dense'")
    if setting == "flex" and device.type == "cpu":
        raise UserError(
            "model.attention = 'flex' trains on a GPU only (torch's FlexAttention has no gradient on the CPU); set "
            "model.attention = 'auto', 'forest' or 'dense'"
        )
    if setting == "forest" and (device.type != "cpu" or impl == "reference"):
        where = "model.impl = 'reference'" if device.type == "cpu" else f"the model is on {device.type}"
        raise UserError(
            f"model.attention = 'forest' is an operator compiled for the CPU, {where}; set model.attention = 'auto' or "
            "'dense'"
        )


def inputs(batch: Batch, config: Any, setting: str, impl: str = "auto") -> dict[str, Any]:
    """The arguments of a transformers body for ``batch``, one row of T tokens: tokens, positions, and a mask or one for
    each kind of layer."""
    chosen = choose(setting, impl, batch.tokens.device, len(batch), config)
    if chosen == "flex":
        if batch.tokens.device.type == "cpu" and torch.is_grad_enabled():
            raise UserError(
                "attention 'flex' has no gradient on the CPU (torch's FlexAttention); choose 'auto', 'forest' or "
                "'dense'"
            )
        end, depth = padded(batch)
        masks = for_layers(config, batch.longest, lambda window: block_mask(end, depth, window))
    else:
        compiled = chosen == "forest"
        masks = for_layers(
            config, batch.longest, lambda window: ForestMask.of(batch.end, batch.depth, window, compiled)
        )
    return {"input_ids": batch.tokens[None], "position_ids": batch.depth[None], "attention_mask": masks}


def for_layers(config: Any, width: int, mask: Callable[[int], Any]) -> Any:
    """One mask, or one for each kind of layer where some have a window shorter than the longest path, ``width``
    tokens."""
    window = window_of(config)
    if window >= width or not window:
        return mask(0)
    if not architectures.layer_types(config):
        return mask(window)
    return {architectures.FULL: mask(0), architectures.SLIDING: mask(window)}


def window_of(config: Any) -> int:
    """How many tokens a token sees in windowed layers, itself included; 0: there are no such layers."""
    return architectures.window(config)


def bucket(tokens: int) -> int:
    """The padded length of a pass of ``tokens``: a power of two, so that few kernels are compiled. Only attention is
    padded, where padding costs no more than blocks on the diagonal; the other layers compute no padding."""
    return max(FLEX_FROM, 1 << (tokens - 1).bit_length())


def padded(batch: Batch) -> tuple[Int64[Tensor, " L"], Int64[Tensor, " L"]]:
    """``end`` and ``depth`` with padding, which sees only itself."""
    index = torch.arange(len(batch), bucket(len(batch)), device=batch.end.device)
    return torch.cat([batch.end, index + 1]), pad(batch.depth, (0, len(index)))


def block_mask(end: Int64[Tensor, " L"], depth: Int64[Tensor, " L"], window: int = 0) -> BlockMask:
    """The mask over ``end`` and ``depth``, L a multiple of ``BLOCK``, without making L² values: whether any or all
    queries of one block see any or all keys of another follows from the minima and maxima of both."""
    start = torch.arange(0, len(end), BLOCK, device=end.device)
    query, key = start[:, None], start[None, :]
    ends = end.view(-1, BLOCK)
    any_sees = (key == query) | ((key < query) & (ends.amax(1) > query))
    all_see = (key < query) & (ends.amin(1) >= query + BLOCK)
    if window:
        depths = depth.view(-1, BLOCK)
        low, high = depths.amin(1), depths.amax(1)
        any_sees &= low[:, None] - high[None, :] < window
        all_see &= high[:, None] - low[None, :] < window
    partial, full = _ordered(any_sees & ~all_see), _ordered(any_sees & all_see)
    mask = BlockMask.from_kv_blocks(*partial, *full, BLOCK_SIZE=BLOCK, mask_mod=_mask_mod(end, depth, window))
    mask.ndim = 4  # type: ignore[attr-defined]  # GPT-2's module asks for it, and a BlockMask only has a shape
    return mask


def _mask_mod(end: Tensor, depth: Tensor, window: int) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (q < end[k])

    def seen_in_window(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (q < end[k]) & (depth[q] - depth[k] < window)

    return seen_in_window if window else seen


def _ordered(blocks: Bool[Tensor, "Q K"]) -> tuple[Int32[Tensor, "1 1 Q"], Int32[Tensor, "1 1 Q K"]]:
    """For each query block the number of key blocks it sees, and all key blocks, those first."""
    indices = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None], indices.to(torch.int32)[None, None]


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | ForestMask | BlockMask | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: ``query`` ``[B, H, T, D]``, ``key`` and ``value`` with as many heads or
    fewer, the result ``[B, T, H, D]``. ``softcap`` c: scores x become c tanh(x / c) (Gemma 2, arXiv 2408.00118)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    dropout = settings.get("dropout", 0.0)
    if isinstance(attention_mask, BlockMask):
        if dropout:
            raise UserError("attention 'flex' cannot drop attention weights; choose 'auto' or 'dense'")
        return _flex(query, key, value, attention_mask, scaling, softcap), None
    if isinstance(attention_mask, ForestMask):
        return _over_trees(query, key, value, attention_mask, scaling, softcap, dropout), None
    if softcap is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **settings)
    if attention_mask is None and query.shape[2] > 1:  # transformers omits a causal mask
        attention_mask = query.new_ones(query.shape[2], key.shape[2], dtype=torch.bool).tril_()
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        raise UserError(
            f"the attention mask is {attention_mask.dtype}: a model that caps attention scores, once made ready for "
            "forests, wants a bool mask (true: seen), or a mask of padding with two axes"
        )
    return plain.capped(query, key, value, attention_mask, scaling, softcap, dropout).transpose(1, 2), None


def _over_trees(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: ForestMask,
    scaling: float | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    heads, cap = (query[0], key[0], value[0]), softcap or 0.0
    if not mask.compiled:
        found = plain.attend(*heads, mask.trees, scaling=scaling, soft_cap=cap, dropout=dropout)
    elif dropout:
        raise UserError("attention 'forest' cannot drop attention weights; choose 'auto' or 'dense'")
    else:
        depth = mask.depth if mask.window else None
        found = ops.forest_attention(*heads, mask.end, depth=depth, window=mask.window, scaling=scaling, soft_cap=cap)
    return found.transpose(0, 1)[None]


def _flex(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float | None, softcap: float | None
) -> Tensor:
    tokens = query.shape[2]
    query, key, value = autocast(query, key, value)  # FlexAttention takes one dtype and casts nothing itself
    query, key, value = (pad(x, (0, 0, 0, mask.shape[-1] - tokens)) for x in (query, key, value))
    with torch._dynamo.config.patch(recompile_limit=COMPILED_KERNELS):
        result = _compiled()(query, key, value, mask, scaling, softcap)
    return result[:, :, :tokens].transpose(1, 2)


@cache
def _compiled(backend: str = "inductor") -> Callable[..., Tensor]:
    # Not `dynamic`: the CPU's kernel does not compile with it. `fullgraph` makes exceeding the limit above an error.
    return torch.compile(_call, backend=backend, dynamic=False, fullgraph=True)


def _call(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float | None, softcap: float | None
) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    score_mod = None if softcap is None else _capping(softcap)
    return flex_attention(query, key, value, score_mod, mask, scaling, grouped)


def _capping(softcap: float) -> Callable[..., Tensor]:
    return lambda score, b, h, q, k: softcap * torch.tanh(score / softcap)
