"""The self-hard sampler: rejects the language model's own mistakes, its highest scored items that the user did not
take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Int32, Shaped

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Dataset, Examples
from rosepo_bench.preference.samplers.law import pasts


@dataclass(frozen=True)
class Pool:
    """The items that self-hard chooses from, with the language model's scores, one row per example: its candidates, or
    the top of the whole catalogue."""

    items: Int[np.ndarray, "n k"]
    scores: Float[np.ndarray, "n k"]

    def take(self, rows: Int[np.ndarray, " rows"]) -> Pool:
        """The given rows."""
        return Pool(self.items[rows], self.scores[rows])


@dataclass(frozen=True)
class Rejected:
    """``law`` is log q(y_w|x,y_l) - log q(y_l|x,y_w), or 0 for a deterministic sampler; ``kind`` the sampler of each
    pair. One item per example, or K from `Sampler.draw_list`."""

    items: Int32[np.ndarray, " n *K"]
    law: Float64[np.ndarray, " n *K"]
    kind: Shaped[np.ndarray, " n *K"]


def self_hard(dataset: Dataset, examples: Examples, pool: Pool, exclude: Int[np.ndarray, "n k"]) -> Rejected:
    """The eligible item of ``pool`` that the language model scores highest, the first among equals. Deterministic, so
    without q."""
    assert pool.items.shape == pool.scores.shape, "one score per item"
    assert len(pool.items) == len(examples), "one row of the pool per example"
    assert np.isfinite(pool.scores).all(), "scores of the pool are not finite"
    allowed = pool.items != examples.target[:, None]
    for row, past in enumerate(pasts(dataset, examples)):
        allowed[row] &= ~np.isin(pool.items[row], past) & ~np.isin(pool.items[row], exclude[row])
    if not allowed.any(axis=1).all():
        user = int(examples.user[np.flatnonzero(~allowed.any(axis=1))[0]])
        raise UserError(f"user {user}: no scored item is left to reject; give self_hard more candidates")
    best = np.where(allowed, pool.scores, -np.inf).argmax(axis=1)
    items = pool.items[np.arange(len(best)), best].astype(np.int32)
    return Rejected(
        items,
        np.zeros(len(items)),
        np.full(len(items), "self_hard", dtype="U16"),
    )
