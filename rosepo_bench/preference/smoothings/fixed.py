"""One ε for all pairs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from rosepo_bench.base.component import linear, setting
from rosepo_bench.preference.smoothings.base import JudgedPairs, Smoothing


class Zero(Smoothing):
    """No smoothing."""

    name = "zero"
    about = "no smoothing: ε = 0"

    @property
    def largest(self) -> float:
        return 0.0

    def epsilon(self, pairs: JudgedPairs, seed: int) -> Float64[np.ndarray, "n K"]:
        return np.zeros(pairs.mask.shape)


class Constant(Smoothing):
    """The same ε for every pair, as in cDPO."""

    name = "constant"
    about = "one ε for all pairs"

    value: float = setting(0.1, ge=0, le=0.5, search=linear(0.02, 0.48), about="ε of every pair")

    @property
    def largest(self) -> float:
        return self.value

    def epsilon(self, pairs: JudgedPairs, seed: int) -> Float64[np.ndarray, "n K"]:
        return np.full(pairs.mask.shape, self.value)
