"""The contract of smoothings: the paper's smoothing factor ε of each pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from rosepo_bench.base.component import Component, setting
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.plugins import Kind
from rosepo_bench.recommenders.base import Oracle
from rosepo_bench.recommenders.sasrec import SASRec


@dataclass(frozen=True)
class JudgedPairs:
    """The pairs of one part of the data, and what is known of each rejected item: ``kind``, the sampler that chose it;
    ``mask``, False where a list is shorter than K. From the smoothing's oracle, if it has one, NaN otherwise:
    ``delta`` = s(x, y_l) - s(x, y_w), cross-fitted; ``law``, the sampler's log q(y_w|x,y_l) - log q(y_l|x,y_w), or 0
    without that correction; ``tau``, the temperature of the pair's kind."""

    kind: Shaped[np.ndarray, "n K"]
    mask: Bool[np.ndarray, "n K"]
    delta: Float64[np.ndarray, "n K"]
    law: Float64[np.ndarray, "n K"]
    tau: Float64[np.ndarray, "n K"]


class Smoothing(Component):
    """Gives each pair its ε, the probability that its label is wrong. Computed once for a method, and stored."""

    kind: ClassVar[Kind] = Kind("smoothing", "smoothings", "rosepo_bench.preference.smoothings")

    @property
    def largest(self) -> float:
        """The largest ε that it can give."""
        return 0.5

    def epsilon(self, pairs: JudgedPairs, seed: int) -> Float64[np.ndarray, "n K"]:
        """ε of each rejected item, within [0, 1/2]."""
        raise NotImplementedError


class OracleSmoothing(Smoothing):
    """A smoothing that reads an oracle's judgement. The oracle is cross-fitted, its temperature is fitted for each kind
    of pair on validation pairs."""

    oracle: Oracle = setting(SASRec(), about="the preference oracle, see `ls oracles`")
    folds: int = setting(2, ge=2, about="user folds; the oracle of a fold is fitted to the users of the others")
    correct_for_sampler: bool = setting(
        True, about="add log q(y_w|x,y_l) - log q(y_l|x,y_w) for samplers with known probabilities q"
    )


def checked(smoothing: Smoothing, pairs: JudgedPairs, seed: int) -> Float64[np.ndarray, "n K"]:
    """ε of each pair, 0 at masked places. UserError: of another shape, or outside [0, 1/2]."""
    found = np.asarray(smoothing.epsilon(pairs, seed), dtype=np.float64)
    if found.shape != pairs.mask.shape:
        raise UserError(f"smoothing {smoothing.label()}: ε of shape {found.shape}, want {pairs.mask.shape}")
    bad = pairs.mask & ~((found >= 0) & (found <= 0.5))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        where = f"pair {row}, rejected item {column}"
        raise UserError(f"smoothing {smoothing.label()}: ε of {where} is {found[row, column]}; want 0 to 0.5")
    return np.where(pairs.mask, found, 0.0)
