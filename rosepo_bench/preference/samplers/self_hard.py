"""Rejected are the language model's own mistakes: the highest scored items that the user did not take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Dataset, Examples, FloatArray, IntArray
from rosepo_bench.preference.samplers.law import pasts


@dataclass(frozen=True)
class Pool:
    """Scored items among which self-hard looks: ``items`` int ``[n, k]``, ``scores`` ``[n, k]`` (the language
    model's), one row an example: its candidates, or the top of the whole catalogue."""

    items: IntArray
    scores: FloatArray

    def take(self, rows: IntArray) -> Pool:
        """The rows of some examples."""
        return Pool(self.items[rows], self.scores[rows])


@dataclass(frozen=True)
class Rejected:
    """``items`` int32 ``[n]``; ``law`` float64 ``[n]``, log q(y_w|x,y_l) - log q(y_l|x,y_w); 0 where the
    sampler is deterministic, which leaves the law out; ``kind`` ``[n]``, the
    sampler of each pair. From `Sampler.draw_list` all are ``[n, K]``."""

    items: IntArray
    law: FloatArray
    kind: np.ndarray


def self_hard(dataset: Dataset, examples: Examples, pool: Pool, exclude: IntArray) -> Rejected:
    """The eligible item of ``pool`` that the language model scores highest (the first one among equals): what
    it gets wrong. Deterministic, so without q."""
    assert pool.items.shape == pool.scores.shape, "one score an item"
    assert len(pool.items) == len(examples), "one row of the pool an example"
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
