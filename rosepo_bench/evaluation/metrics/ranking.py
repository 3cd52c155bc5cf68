"""Ranking metrics: one relevant item, the target, among each user's candidates."""

from __future__ import annotations

from functools import partial

import numpy as np
from jaxtyping import Float64, Int

from rosepo_bench.evaluation.metrics.base import Metric, Predictions

RANK = frozenset({"rank"})


def hit_ratio(rank: Int[np.ndarray, " n"], k: int) -> Float64[np.ndarray, " n"]:
    """1 for each user whose target is among the first ``k``, else 0."""
    return (rank <= k).astype(np.float64)


def ndcg(rank: Int[np.ndarray, " n"], k: int) -> Float64[np.ndarray, " n"]:
    """1 / log2(1 + rank) for each user whose target is among the first ``k``, else 0. With one relevant item
    the ideal DCG is 1 (Järvelin and Kekäläinen 2002)."""
    return np.where(rank <= k, 1.0 / np.log2(1.0 + rank), 0.0)


def _hit_ratio(predictions: Predictions, k: int) -> Float64[np.ndarray, " n"]:
    assert predictions.rank is not None
    return hit_ratio(predictions.rank, k)


def _ndcg(predictions: Predictions, k: int) -> Float64[np.ndarray, " n"]:
    assert predictions.rank is not None
    return ndcg(predictions.rank, k)


HR1, HR5, HR10 = (
    Metric(f"hr@{k}", f"share of users whose target is among the first {k}", RANK, "high", partial(_hit_ratio, k=k))
    for k in (1, 5, 10)
)
NDCG5, NDCG10 = (
    Metric(
        f"ndcg@{k}",
        f"mean of 1/log2(1 + rank) where the target is among the first {k}, else 0",
        RANK,
        "high",
        partial(_ndcg, k=k),
        "Järvelin and Kekäläinen 2002",
    )
    for k in (5, 10)
)
