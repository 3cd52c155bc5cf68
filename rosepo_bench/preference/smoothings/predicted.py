"""ε from a preference oracle, and the two controls without which "prediction helps" means nothing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from rosepo_bench.base.component import setting
from rosepo_bench.base.seeds import generator
from rosepo_bench.preference.calibration import epsilon
from rosepo_bench.preference.smoothings.base import JudgedPairs, OracleSmoothing


class Predicted(OracleSmoothing):
    """σ(delta/τ + law), capped: our reading of RosePO (see ``preference/calibration.py``)."""

    name = "predicted"
    about = "one ε per pair, from an oracle (our reading)"
    paper = "arXiv 2410.12519"

    cap: float = setting(0.5, gt=0, le=0.5, about="largest ε; at most 0.45 for the robust loss")

    @property
    def largest(self) -> float:
        return self.cap

    def epsilon(self, pairs: JudgedPairs, seed: int) -> Float64[np.ndarray, "n K"]:
        return epsilon(pairs.delta, pairs.law, pairs.tau, self.cap)


class Shuffled(Predicted):
    """The same values of ε on other pairs: what is left is the mean and the spread of ε, without its personal part."""

    name = "shuffled"
    about = "the predicted ε, dealt out at random among the pairs of one kind: a control"

    def epsilon(self, pairs: JudgedPairs, seed: int) -> Float64[np.ndarray, "n K"]:
        found = super().epsilon(pairs, seed)
        for kind in np.unique(pairs.kind[pairs.mask]):
            rows, columns = np.nonzero(pairs.mask & (pairs.kind == kind))
            order = generator(seed, "shuffled", str(kind)).permutation(len(rows))
            found[rows, columns] = found[rows[order], columns[order]]
        return found


class Reversed(Predicted):
    """The same values of ε in the opposite order: pairs that the oracle doubts get the small ones."""

    name = "reversed"
    about = "the predicted ε in the opposite order among the pairs of one kind: a control"

    def epsilon(self, pairs: JudgedPairs, seed: int) -> Float64[np.ndarray, "n K"]:
        found = super().epsilon(pairs, seed)
        for kind in np.unique(pairs.kind[pairs.mask]):
            rows, columns = np.nonzero(pairs.mask & (pairs.kind == kind))
            order = np.argsort(found[rows, columns], kind="stable")
            found[rows[order], columns[order]] = found[rows[order[::-1]], columns[order[::-1]]]
        return found
