"""Tests of paired differences between two methods over the same users, and their correction for many comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from scipy import special

from rosepo_bench.base.seeds import generator

DRAWS = 9_999
_BLOCK = 4_000_000  # signs drawn at once


def within_seed(difference: Float64[np.ndarray, " n"]) -> float:
    """Two-sided p of per-user differences of one seed, whose training is not varied: McNemar's mid-p test where all are
    -1, 0 or 1 (HR), else the sign-flip test."""
    if np.all(np.isin(difference, (-1.0, 0.0, 1.0))):
        return mid_p(int(np.sum(difference == 1)), int(np.sum(difference == -1)))
    return sign_flip(difference)


def mid_p(up: int, down: int) -> float:
    """McNemar's exact test of discordant pairs with the mid-p correction (Fagerland, Lydersen and Laake, BMC Med. Res.
    Methodol. 13, 2013): twice the smaller binomial tail, the observed count at half its weight. Of few pairs it rejects
    fewer than 5 % of true nulls."""
    n, low = up + down, min(up, down)
    below = special.bdtr(low - 1, n, 0.5) if low else 0.0
    return float(special.bdtr(low, n, 0.5) + below)


def sign_flip(difference: Float64[np.ndarray, " n"], draws: int = DRAWS, seed: int = 0) -> float:
    """Permutation test of paired differences (Fisher 1935): under the null the sign of each user's difference is a coin
    flip. Two-sided p of the mean from ``draws`` random flips, the observed one counted, so that it is never 0 (Phipson
    and Smyth 2010)."""
    kept = difference[difference != 0]
    if not len(kept):
        return 1.0
    rng, observed, extreme = generator(seed, "sign-flip"), abs(float(kept.sum())), 0
    slack = 1e-9 * float(np.abs(kept).sum())  # flips that are equal but for rounding count as equal
    for start in range(0, draws, block := max(1, _BLOCK // len(kept))):
        signs = rng.integers(0, 2, (min(block, draws - start), len(kept)), dtype=np.int8)
        sums = 2 * (signs @ kept) - kept.sum()
        extreme += int(np.sum(np.abs(sums) >= observed - slack))
    return (extreme + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number: to reject those below .05 rejects a true null in at most 5 % of tables (Holm
    1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, (len(p_values) - place) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


def effect_size(difference: Float64[np.ndarray, " n"]) -> float | None:
    """Cohen's d of paired differences: their mean over their standard deviation. None: they do not vary."""
    spread = float(np.std(difference, ddof=1))
    return float(np.mean(difference)) / spread if spread > 0 else None
