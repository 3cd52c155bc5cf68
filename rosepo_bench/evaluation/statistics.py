"""95 % confidence intervals of metrics and of paired differences.

Users are treated as a sample of a larger population. Of one seed the interval is for this seed's mean over users, and
training-seed variance is not included; of several seeds it is for the mean over seeds and users (``crossed``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped
from scipy import special

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.intervals import Z95, Interval, student, wilson
from rosepo_bench.evaluation.crossed import crossed
from rosepo_bench.evaluation.significance import effect_size, within_seed

Z80 = float(special.ndtri(0.80))


Seeds = Sequence[Float64[np.ndarray, " n"]]
"""The users' values of each seed, the same users in the same order."""


@dataclass(frozen=True)
class Difference:
    """A paired difference with its interval, from the users' differences of each seed."""

    interval: Interval
    seeds: Seeds

    @property
    def p_value(self) -> float:
        """Two-sided, of no difference: of one seed the tests of ``significance``, of several the t-test over seeds and
        users."""
        return within_seed(self.seeds[0]) if len(self.seeds) == 1 else float(crossed(self.seeds).p_value)

    @property
    def effect_size(self) -> float | None:
        """Cohen's d over users, of several seeds of their means. None: no user differs."""
        return effect_size(over_seeds(self.seeds))

    @property
    def detectable(self) -> float:
        """The smallest true difference that such a comparison detects with 80 % power at the 5 % level."""
        return detectable(self.interval) if len(self.seeds) == 1 else float(crossed(self.seeds).detectable())


def mean(seeds: Seeds) -> Interval:
    """The mean of a metric: of one seed over users (:func:`average`, or Student's t where values lie outside [0, 1]),
    of several over seeds and users, within [0, 1] where all values are."""
    inside = all(bool(np.all((values >= 0) & (values <= 1))) for values in seeds)
    if len(seeds) == 1:
        return average(seeds[0]) if inside else student(seeds[0])
    found = crossed(seeds).interval
    return Interval(found.value, max(0.0, found.low), min(1.0, found.high), found.n) if inside else found


def difference(first: Seeds, second: Seeds) -> Difference:
    """Of two methods under the same seeds, paired by seed and user: of one seed with the interval of :func:`paired`, of
    several with the t interval over seeds and users."""
    assert len(first) == len(second), "the same seeds"
    found = [one - other for one, other in zip(first, second, strict=True)]
    return Difference(paired(first[0], second[0]) if len(found) == 1 else crossed(found).interval, found)


def average(values: Float64[np.ndarray, " n"]) -> Interval:
    """The mean of per-user metric values within [0, 1]. Its interval is Wilson's where all values are 0 or 1 (HR of one
    seed), else (NDCG, HR averaged over seeds) Student's t, clipped to [0, 1]."""
    assert np.all((values >= 0) & (values <= 1)), "metric values lie in [0, 1]"
    if np.all((values == 0) | (values == 1)):
        return wilson(float(np.sum(values)), len(values))
    interval = student(values)
    return Interval(interval.value, max(0.0, interval.low), min(1.0, interval.high), interval.n)


def paired(first: Float64[np.ndarray, " n"], second: Float64[np.ndarray, " n"]) -> Interval:
    """Mean of ``first - second`` over the same users, in the same order.

    Where all differences are -1, 0 or 1 (HR of one seed), the interval is Bonett and Price's adjusted Wald (J. Educ.
    Behav. Stat. 37, 2012), which has a width even when no user differs; else Student's t. The value is the unadjusted
    mean difference.
    """
    assert first.shape == second.shape, "the same users"
    difference = first - second
    if not np.all(np.isin(difference, (-1.0, 0.0, 1.0))):
        return student(difference)
    n = len(difference)
    up, down = ((np.sum(difference == sign) + 1) / (n + 2) for sign in (1, -1))
    half = Z95 * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return Interval(float(np.mean(difference)), max(-1.0, up - down - half), min(1.0, up - down + half), n)


def detectable(interval: Interval) -> float:
    """The smallest true difference that a paired comparison with an interval of this width detects with 80 % power
    (two-sided 5 % level, normal approximation)."""
    return (interval.high - interval.low) / 2 * (Z95 + Z80) / Z95


def same_users(users: Sequence[Shaped[np.ndarray, " _"]], names: Sequence[str]) -> Shaped[np.ndarray, " n"]:
    """The users of every method, who must be the same in the same order. UserError names two methods that differ."""
    for other, name in zip(users, names, strict=True):
        if not np.array_equal(users[0], other):
            raise UserError(
                f"{names[0]} and {name} were evaluated on different users ({len(users[0])} and "
                f"{len(other)}); run both again under one configuration"
            )
    return users[0]


def over_seeds(values: Sequence[Float64[np.ndarray, " n"]]) -> Float64[np.ndarray, " n"]:
    """Each user's mean over seeds, from one array per seed."""
    return np.mean(np.stack(values), axis=0)


def seed_spread(values: Sequence[Float64[np.ndarray, " n"]]) -> float | None:
    """Standard deviation (n - 1) over seeds of the mean over users; None for a single seed."""
    return float(np.std([np.mean(one) for one in values], ddof=1)) if len(values) > 1 else None
