"""Attention over the token forest in plain torch (one dense mask per tree, differentiable, any device), and the checks
of arguments that all implementations share.

One row of tokens holds trees one after the other, each in depth-first order. ``end[k]`` is the index after k's subtree,
so query q sees key k iff ``k <= q < end[k]``; in a window also ``depth[q] - depth[k] < window``. No tree sees another.

Shape legend: T tokens of all trees, t of one; H query heads, G key and value heads, D width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rosepo_bench.base.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
MOST_TOKENS = 1 << 30


def forest_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    end: Tensor,
    *,
    depth: Tensor | None = None,
    window: int = 0,
    scaling: float | None = None,
    soft_cap: float = 0.0,
) -> Tensor:
    """``softmax(squash(scaling · query keyᵀ))`` over the keys that a query sees, times ``value``: ``[H, T, D]``, a
    view of memory ``[T, H, D]``. ``query`` ``[H, T, D]``; ``key``, ``value`` ``[G, T, D]``, H a multiple of G: query
    head h goes with key head ``h // (H // G)``. ``scaling`` None: ``D ** -0.5``.
    ``squash(x) = soft_cap tanh(x / soft_cap)`` (Gemma 2, arXiv 2408.00118), or ``x`` where ``soft_cap`` is 0.

    It computes all t² scores of a tree, and waits for the device that ``end`` is on. To attend in many layers, make
    :func:`tree_masks` once and call :func:`attend`. Raises UserError for any other argument.
    """
    check_arguments(query, key, value, end, depth=depth, window=window, scaling=scaling)
    check_cap(soft_cap)
    return attend(query, key, value, tree_masks(end, depth, window), scaling=scaling, soft_cap=soft_cap)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    masks: Sequence[Bool[Tensor, "t t"]],
    *,
    scaling: float | None = None,
    soft_cap: float = 0.0,
    dropout: float = 0.0,
) -> Tensor:
    """:func:`forest_attention` with one mask per tree, in order, all tokens covered; ``dropout`` is the probability of
    dropping an attention weight."""
    masks = masks or [torch.ones(0, 0, dtype=torch.bool, device=query.device)]
    lengths = [len(mask) for mask in masks]
    parts = zip(*(x.split(lengths, dim=1) for x in (query, key, value)), strict=True)
    trees = zip(parts, masks, strict=True)
    found = [_attend_tree(q, k, v, mask, scaling, soft_cap, dropout).transpose(0, 1) for (q, k, v), mask in trees]
    return torch.cat(found).transpose(0, 1)


def _attend_tree(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None, soft_cap: float, dropout: float
) -> Tensor:
    if soft_cap:
        return capped(query, key, value, mask, scaling, soft_cap, dropout)
    heads, grouped = (query[None], key[None], value[None]), len(query) != len(key)
    found: Tensor = scaled_dot_product_attention(
        *heads, attn_mask=mask, dropout_p=dropout, scale=scaling, enable_gqa=grouped
    )
    return found[0]


def capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    soft_cap: float,
    dropout: float = 0.0,
) -> Tensor:
    """Attention with capped scores, which torch's SDPA lacks: ``[..., H, Q, D]`` for ``query`` of that shape, ``key``
    and ``value`` ``[..., G, K, D]`` and a bool ``mask`` that broadcasts to ``[..., H, Q, K]`` (None: every query sees
    every key)."""
    groups = query.shape[-3] // key.shape[-3]
    key, value = key.repeat_interleave(groups, dim=-3), value.repeat_interleave(groups, dim=-3)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = soft_cap * torch.tanh(query @ key.mT * (scaling / soft_cap))
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.nn.functional.dropout(scores.softmax(-1), dropout) @ value


def tree_masks(
    end: Int64[Tensor, " T"], depth: Int64[Tensor, " T"] | None = None, window: int = 0
) -> list[Bool[Tensor, "t t"]]:
    """For each tree, in order, which keys each query sees. ``window`` 0: all its ancestors and itself."""
    trees = roots(end)
    if window:
        assert depth is not None
        _check_depth(depth, end)
    masks = []
    for start, stop in trees:
        index = torch.arange(start, stop, device=end.device)
        mask = (index[None] <= index[:, None]) & (index[:, None] < end[None, start:stop])
        if depth is not None and window:
            here = depth[start:stop]
            mask &= here[:, None] - here[None] < window
        masks.append(mask)
    return masks


def roots(end: Int64[Tensor, " T"]) -> list[tuple[int, int]]:
    """Where each tree begins and ends. Waits for the device. Raises UserError where a subtree ends before it begins, or
    after its parent's."""
    trees: list[tuple[int, int]] = []
    path: list[int] = []
    ends = end.tolist()
    for k, stop in enumerate(ends):
        while path and path[-1] <= k:
            path.pop()
        most = path[-1] if path else len(ends)
        if not k < stop <= most:
            of = "the end of its parent" if path else "the tokens"
            raise UserError(f"end[{k}] is {stop}: want {k + 1} to {most} ({of})")
        if not path:
            trees.append((k, stop))
        path.append(stop)
    return trees


def _check_depth(depth: Int64[Tensor, " T"], end: Int64[Tensor, " T"]) -> None:
    """Depths must grow along every path, as a window counts them."""
    path: list[tuple[int, int]] = []
    for k, (here, stop) in enumerate(zip(depth.tolist(), end.tolist(), strict=True)):
        while path and path[-1][0] <= k:
            path.pop()
        least = path[-1][1] + 1 if path else 0
        if not least <= here <= MOST_TOKENS:
            raise UserError(f"depth[{k}] is {here}: want {least} to {MOST_TOKENS}, more than that of its parent")
        path.append((stop, here))


def check_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    end: Tensor,
    *,
    depth: Tensor | None,
    window: int,
    scaling: float | None,
) -> None:
    """Checks everything but the tensors' values, so that it never waits for a device. Raises UserError."""
    for name, x in (("query", query), ("key", key), ("value", value), ("end", end), ("depth", depth)):
        if x is None and name == "depth":
            continue
        if not isinstance(x, Tensor):
            raise UserError(f"{name} is a {type(x).__name__}: want a tensor")
        if x.layout is not torch.strided:
            raise UserError(f"{name} has layout {x.layout}: want a dense tensor")
        if x.device != query.device:
            raise UserError(f"{name} is on {x.device}, query is on {query.device}: want one device")
    if query.dtype not in DTYPES:
        raise UserError(f"query is {query.dtype}: want float32, float64, bfloat16 or float16")
    for name, x in (("query", query), ("key", key), ("value", value)):
        _check_heads(name, x, query)
    if len(key) != len(value):
        raise UserError(f"value has {len(value)} heads, key has {len(key)}")
    if len(key) < 1 or len(query) < 1 or len(query) % len(key):
        raise UserError(f"query has {len(query)} heads: want a multiple of key's, {len(key)}")
    for name, x in (("end", end), ("depth", depth)):
        if x is not None and (x.dtype != torch.int64 or x.shape != query.shape[1:2]):
            raise UserError(f"{name} is {x.dtype} {list(x.shape)}: want torch.int64 [{query.shape[1]}], the tokens")
    if isinstance(window, bool) or not isinstance(window, int) or not 0 <= window < 1 << 63:
        raise UserError(f"window is {window!r}: want 0 for none, or 1 and more, in 64 bits")
    if window and depth is None:
        raise UserError(f"window is {window}, which counts in depths: give depth")
    if scaling is not None and (not isinstance(scaling, (int, float)) or not math.isfinite(scaling)):
        raise UserError(f"scaling is {scaling!r}: want a finite number, or None for width ** -0.5")


def _check_heads(name: str, x: Tensor, query: Tensor) -> None:
    if x.dim() != 3 or x.shape[2] < 1:
        raise UserError(f"{name} has shape {list(x.shape)}: want [heads, tokens, width], width 1 or more")
    if x.shape[1:] != query.shape[1:]:
        raise UserError(f"{name} has shape {list(x.shape)}: want tokens and width of query, {list(query.shape)}")
    if x.dtype != query.dtype:
        raise UserError(f"{name} is {x.dtype}, query is {query.dtype}: want one dtype")
    if x.shape[1] > MOST_TOKENS:
        raise UserError(f"{name} has {x.shape[1]} tokens: want at most {MOST_TOKENS}")


def check_cap(soft_cap: float) -> None:
    """Raises UserError for a cap that is negative or not finite."""
    if not isinstance(soft_cap, (int, float)) or not 0 <= soft_cap < math.inf:
        raise UserError(f"soft_cap is {soft_cap!r}: want a number above 0, or 0 for none")
