"""How a model attends over the forest: SDPA tree by tree under dense masks, or FlexAttention over blocks of the mask.

Both see what ``(k <= q) & (q < end[k])`` says; in windowed layers, of that, what is less than ``window`` tokens up the
path: depths count them, so that every branch has its own. transformers calls ``attend``, which goes by the mask's kind.

Shape legend: T tokens of a pass, t of one tree, L tokens padded to a bucket; H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from rosepo_bench.engine.forest import Batch
from rosepo_bench.errors import UserError

NAME = "rosepo_forest"
CHOICES = ("auto", "dense", "flex")
BLOCK = 128  # FlexAttention's own default on CUDA
NARROWEST = 16  # width of a head that FlexAttention's CUDA kernel takes

# Tokens of a pass from which `auto` takes FlexAttention on CUDA. Below about 1,000 it was measured slower than masked
# SDPA (pytorch/pytorch issue 141129, an A800; meta-pytorch/attention-gym issue 89); above, SDPA is called for each tree
# and computes all of its t² scores, of which FlexAttention leaves out the blocks above the diagonal and between
# branches.
FLEX_FROM = 1024

# A kernel is compiled for each bucket, with and without gradient, with and without window. torch's own limit is 8; one
# more than this is an error, not a slow path.
COMPILED_KERNELS = 64


def choose(setting: str, device: torch.device, tokens: int, obstacle: str) -> str:
    """``dense`` or ``flex`` for a pass of ``tokens`` tokens under ``model.attention = setting``.

    `auto` goes by device, length and model alone, never by a clock, so that the same run computes the same numbers:
    flex on CUDA from ``FLEX_FROM`` tokens where there is no ``obstacle``, dense otherwise.
    """
    if setting == "auto":
        return "flex" if device.type == "cuda" and tokens >= FLEX_FROM and not obstacle else "dense"
    return setting


def obstacle_in(config: Any) -> str:
    """Why FlexAttention cannot train a model of this transformers configuration; empty where it can."""
    dropout = getattr(config, "attention_dropout", None) or getattr(config, "attn_pdrop", None)
    if dropout:
        return f"it drops attention weights (probability {dropout})"
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return f"its heads are narrower than {NARROWEST} ({width})" if width < NARROWEST else ""


def refuse_impossible(setting: str, device: torch.device, obstacle: str) -> None:
    """Raises UserError, before any work, for a setting that cannot train."""
    if setting == "flex" and obstacle:
        raise UserError(f"model.attention = 'flex' cannot train this model: {obstacle}; set model.attention = 'dense'")
    if setting == "flex" and device.type == "cpu":
        raise UserError(
            "model.attention = 'flex' trains on a GPU only (torch's FlexAttention has no gradient on the CPU); set "
            "model.attention = 'auto' or 'dense'"
        )


class ForestMask(Tensor):
    """``end`` as int64 ``[1, 1, 1, T]``: transformers hands on whatever has four axes as it is. With what ``attend``
    needs beside it: ``depth`` [T] and, in windowed layers, the ``window`` (0: none)."""

    depth: Tensor
    window: int

    @staticmethod
    def of(end: Tensor, depth: Tensor, window: int) -> ForestMask:
        mask = Tensor._make_subclass(ForestMask, end[None, None, None])
        mask.depth, mask.window = depth, window
        return mask

    @cached_property
    def trees(self) -> list[Tensor]:
        """The dense mask of each tree, made once for all layers."""
        return tree_masks(self.as_subclass(Tensor)[0, 0, 0], self.depth, self.window)


def inputs(batch: Batch, config: Any, setting: str) -> dict[str, Any]:
    """What a transformers body takes for ``batch``: tokens, positions and the mask, or a mask for each kind of layer.
    The batch is one row of T tokens."""
    if choose(setting, batch.tokens.device, len(batch), obstacle_in(config)) == "dense":
        masks = for_layers(config, batch.longest, lambda window: ForestMask.of(batch.end, batch.depth, window))
    else:
        if batch.tokens.device.type == "cpu" and torch.is_grad_enabled():
            raise UserError(
                "attention 'flex' has no gradient on the CPU (torch's FlexAttention); choose 'auto' or 'dense'"
            )
        end, depth = padded(batch)
        masks = for_layers(config, batch.longest, lambda window: block_mask(end, depth, window))
    return {"input_ids": batch.tokens[None], "position_ids": batch.depth[None], "attention_mask": masks}


def for_layers(config: Any, width: int, mask: Callable[[int], Any]) -> Any:
    """One mask, or one for each kind of layer where some have a window that paths of ``width`` tokens go beyond."""
    window = window_of(config)
    if window >= width or not window:
        return mask(0)
    if getattr(config, "layer_types", None) is None:
        return mask(window)
    return {"full_attention": mask(0), "sliding_attention": mask(window)}


def window_of(config: Any) -> int:
    """How many tokens, itself among them, a token sees in windowed layers; 0: there are none."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return 0
    return int(getattr(config, "sliding_window", None) or 0)


def tree_masks(end: Tensor, depth: Tensor, window: int = 0) -> list[Tensor]:
    """bool ``[t, t]`` for each tree of a pass: which keys a query sees. ``window`` 0: all its ancestors."""
    masks, start, ends = [], 0, end.tolist()
    while start < len(ends):
        stop = ends[start]  # where the root's subtree ends, the next tree begins
        index = torch.arange(start, stop, device=end.device)
        mask = (index <= index[:, None]) & (index[:, None] < end[start:stop])
        if window:
            mask &= depth[start:stop, None] - window < depth[start:stop]
        masks.append(mask)
        start = stop
    return masks


def bucket(tokens: int) -> int:
    """The padded length of a pass of ``tokens``: a power of two, so that few kernels are compiled. Padding is added for
    attention alone, where all it costs is a block on the diagonal, never to what the other layers compute."""
    return max(FLEX_FROM, 1 << (tokens - 1).bit_length())


def padded(batch: Batch) -> tuple[Tensor, Tensor]:
    """``end`` and ``depth`` ``[L]``; padding sees itself alone."""
    index = torch.arange(len(batch), bucket(len(batch)), device=batch.end.device)
    return torch.cat([batch.end, index + 1]), pad(batch.depth, (0, len(index)))


def block_mask(end: Tensor, depth: Tensor, window: int = 0) -> BlockMask:
    """The mask over ``end`` and ``depth`` ``[L]``, L a multiple of ``BLOCK``, without ever making L² values:
    whether any or every query of a block sees any or every key of another follows from the extremes of both."""
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


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many key blocks each query block has ``[1, 1, Q]``, and which, these first ``[1, 1, Q, K]``."""
    indices = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None], indices.to(torch.int32)[None, None]


def install(network: Any) -> None:
    """Makes ``network``, a transformers model, attend through ``attend``. Masks of other shapes than the forest's, as
    its ``generate`` makes them, work as under SDPA."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    network.set_attn_implementation(NAME)
    assert network.config._attn_implementation == NAME, "every supported kind goes through AttentionInterface"


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
    dropout = settings.get("dropout", 0.0)
    if isinstance(attention_mask, BlockMask):
        if dropout:
            raise UserError("attention 'flex' cannot drop attention weights; choose 'auto' or 'dense'")
        return _flex(query, key, value, attention_mask, scaling, softcap), None
    settings |= {"scaling": scaling, "softcap": softcap}
    if not isinstance(attention_mask, ForestMask):
        return _dense(module, query, key, value, attention_mask, **settings), None
    # split, as its backward pass is one cat; that of slices would fill all T tokens for each tree.
    sizes = [len(mask) for mask in attention_mask.trees]
    trees = zip(*(x.split(sizes, dim=2) for x in (query, key, value)), attention_mask.trees, strict=True)
    found = [_dense(module, q, k, v, mask[None, None], **settings) for q, k, v, mask in trees]
    return torch.cat(found, dim=1), None


def _dense(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scaling: float | None,
    softcap: float | None,
    **settings: Any,
) -> Tensor:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if softcap is None:
        found: Tensor = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, **settings)[0]
        return found
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _capped(query, key, value, mask, scaling, softcap, settings.get("dropout", 0.0))


def _capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, softcap: float, dropout: float
) -> Tensor:
    """Dense attention with capped scores, which SDPA does not have."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) * (scaling / softcap))
    if mask is None:  # transformers leaves out a mask that is causal, and that of a single query
        mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril_() if scores.shape[-2] > 1 else None
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.nn.functional.dropout(scores.softmax(-1), dropout)
    return (weights @ value).transpose(1, 2)


def _flex(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float | None, softcap: float | None
) -> Tensor:
    tokens = query.shape[2]
    query, key, value = (pad(x, (0, 0, 0, mask.shape[-1] - tokens)) for x in (query, key, value))
    with torch._dynamo.config.patch(recompile_limit=COMPILED_KERNELS):
        result = _compiled()(query, key, value, mask, scaling, softcap)
    return result[:, :, :tokens].transpose(1, 2)


@cache
def _compiled(backend: str = "inductor") -> Callable[..., Tensor]:
    # Without `dynamic`, as the CPU's kernel does not compile with it; `fullgraph` makes the limit above an error.
    return torch.compile(_call, backend=backend, dynamic=False, fullgraph=True)


def _call(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float | None, softcap: float | None
) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    score_mod = None if softcap is None else _capping(softcap)
    return flex_attention(query, key, value, score_mod, mask, scaling, grouped)


def _capping(softcap: float) -> Callable[..., Tensor]:
    return lambda score, b, h, q, k: softcap * torch.tanh(score / softcap)
