"""The oracle's own figures, from score differences."""

from __future__ import annotations

import numpy as np
import pytest

from rosepo_bench.data.types import Examples
from rosepo_bench.pipeline import probe


def test_deltas_leave_the_target_out() -> None:
    listed = np.arange(8, dtype=np.int32).reshape(2, 4)
    examples = Examples(np.arange(2), np.ones(2, int), np.zeros(2, int), listed, np.array([1, 7]), np.array([1, 3]))
    scores = np.array([[5.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 4.0]], dtype=np.float32)
    assert probe.deltas(examples, scores).tolist() == [[4.0, 1.0, 2.0], [-4.0, -3.0, -2.0]]


def test_accuracy_counts_users_and_gives_ties_half() -> None:
    draw = np.random.default_rng(0)
    delta = draw.normal(-1, 1, size=(400, 19))
    found = probe.accuracy(delta, seed=1)
    assert found.value == pytest.approx((delta < 0).mean(), abs=1e-12)
    assert found.n == 400
    ties = probe.accuracy(np.zeros((400, 19)), seed=1)
    assert ties.value == pytest.approx(0.5, abs=0.02)


def test_the_gap_is_what_was_memorised() -> None:
    """Pairs of one law on both sides have no gap; a training side that was seen has one, and its interval shows it."""
    draw = np.random.default_rng(2)

    def honest() -> np.ndarray:
        # Differences whose label follows σ(-delta): calibrated at τ = 1.
        size = draw.normal(0, 2, size=(800, 19))
        return np.where(draw.random(size.shape) < 1 / (1 + np.exp(-np.abs(size))), -np.abs(size), np.abs(size))

    validation = honest()
    assert probe.fitted_tau(validation) == pytest.approx(1, abs=0.1)
    fair = probe.paired_epsilon_gap({"validation": validation, "train": honest()})
    assert fair.low < 0 < fair.high
    seen = probe.paired_epsilon_gap({"validation": validation, "train": honest() - 2})
    assert seen.low > 0.05
