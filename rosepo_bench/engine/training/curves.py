"""Training curves: numbers of every optimizer step. They grow with the training, so they stand in a file of their own
beside the checkpoint, and thinned in the record."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rosepo_bench.base import store

POINTS = 200


class Curves:
    """Named numbers, one of each per optimizer step; ``path`` is the file in which they outlive a killed process."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.columns: dict[str, list[float]] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """The numbers of the next step; every step has the same names."""
        for name, value in values.items():
            self.columns.setdefault(name, []).append(float(value))

    def values(self, name: str) -> list[float]:
        return self.columns.get(name, [])

    def save(self) -> None:
        assert self.path is not None
        store.write_npz(self.path, **{name: np.array(values) for name, values in self.columns.items()})

    def restore(self, steps: int) -> None:
        """Reads the numbers of the first ``steps`` steps; what was written after the checkpoint is dropped.
        DamagedError: the file does not hold them."""
        if self.path is not None and steps:
            found = store.read_npz(self.path)
            if not found or any(
                values.ndim != 1 or len(values) < steps or values.dtype != float for values in found.values()
            ):
                raise store.DamagedError(f"{self.path}: not the curves of {steps} steps; delete it and run again")
            self.columns = {name: values[:steps].tolist() for name, values in found.items()}

    def thinned(self) -> dict[str, list[float]]:
        """At most ``POINTS`` points: means over equal stretches of the training; ``step`` is the last one of each
        stretch, counted from 1."""
        steps = max(map(len, self.columns.values()), default=0)
        ends = np.unique(np.linspace(0, steps, min(steps, POINTS) + 1).round().astype(int))
        found: dict[str, list[float]] = {"step": [float(end) for end in ends[1:]]}
        for name, values in self.columns.items():
            found[name] = [float(np.mean(values[a:b])) for a, b in itertools.pairwise(ends)]
        return found


def ends(values: Sequence[float]) -> tuple[float, float]:
    """Means over the first and over the last tenth of the steps; NaN without a step."""
    tenth = max(1, len(values) // 10)
    return (sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth) if values else (math.nan, math.nan)
