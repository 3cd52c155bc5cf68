"""Ranking metrics of the candidates protocol: one relevant item, the target, among each user's candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Int32, Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.evaluation import statistics


def ranks(scores: Float[np.ndarray, "n size"], position: Int64[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
    """The target's rank among the candidates, 1 = best.

    ``scores``: higher is better, -inf allowed; ``position``: the target's column. Ties are broken by position. As the
    target's position is drawn uniformly, a method that gives all candidates one score gets HR@k = k/size on average:
    ties neither help nor harm. UserError: NaN scores.
    """
    if scores.ndim != 2 or position.shape != scores.shape[:1]:
        raise ValueError(f"scores [n, m] and position [n] expected, got {scores.shape} and {position.shape}")
    assert np.all((position >= 0) & (position < scores.shape[1])), "position is a column of scores"
    broken = np.flatnonzero(np.isnan(scores).any(axis=1))
    if len(broken):
        raise UserError(
            f"scores of {len(broken)} of {len(scores)} users hold NaN (first: row {broken[0]}); "
            "the training has diverged: lower its learning rate"
        )
    target = np.take_along_axis(scores, position[:, None].astype(np.int64), axis=1)
    earlier = np.arange(scores.shape[1]) < position[:, None]
    return (1 + ((scores > target) | ((scores == target) & earlier)).sum(axis=1)).astype(np.int32)


def hit_ratio(rank: Int[np.ndarray, " n"], k: int) -> Float64[np.ndarray, " n"]:
    """1 for each user whose target is among the first ``k``, else 0."""
    return (rank <= k).astype(np.float64)


def ndcg(rank: Int[np.ndarray, " n"], k: int) -> Float64[np.ndarray, " n"]:
    """1 / log2(1 + rank) for each user whose target is among the first ``k``, else 0. With one relevant item
    the ideal DCG is 1 (Järvelin and Kekäläinen 2002)."""
    return np.where(rank <= k, 1.0 / np.log2(1.0 + rank), 0.0)


@dataclass(frozen=True)
class Metric:
    """A per-user value of the target's rank, averaged over users."""

    name: str
    k: int
    function: Callable[[np.ndarray, int], np.ndarray]
    description: str

    def __call__(self, rank: Int[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Each user's value, within [0, 1]."""
        return self.function(rank, self.k)


def _registry() -> dict[str, Metric]:
    hits = [Metric(f"hr@{k}", k, hit_ratio, f"share of users whose target is among the first {k}") for k in (1, 5, 10)]
    gains = [
        Metric(f"ndcg@{k}", k, ndcg, f"mean of 1/log2(1 + rank) where the target is among the first {k}, else 0")
        for k in (5, 10)
    ]
    return {metric.name: metric for metric in hits + gains}


METRICS = _registry()


def measure(rank: Int[np.ndarray, " n"]) -> dict[str, dict[str, float]]:
    """Every metric with its 95 % interval over users, as records hold them: {name: {value, low, high, n}}."""
    return {name: statistics.average(metric(rank)).as_dict() for name, metric in METRICS.items()}
