"""Means and proportions with their 95 % intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

from rosepo_bench.base.errors import UserError

Z95 = float(special.ndtri(0.975))


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, from ``n`` users (or pairs)."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float]:
        """The form that records hold."""
        return asdict(self)


def wilson(successes: float, n: int) -> Interval:
    """A proportion with its Wilson score interval (Wilson 1927). ``successes`` may be a mean over seeds."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a proportion")
    share, z = successes / n, Z95
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and n one end is the estimate itself; rounding may not push it past.
    return Interval(share, min(max(0.0, centre - half), share), max(min(1.0, centre + half), share), n)


def student(values: Float[np.ndarray, " n"]) -> Interval:
    """A mean with its Student t interval. ``values`` [n]. UserError: fewer than two users."""
    n = len(values)
    if n < 2:
        raise UserError(f"{n} user(s): an interval needs at least two; evaluate more users")
    value = float(np.mean(values))
    half = float(special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n))
    return Interval(value, value - half, value + half, n)
