"""Means over several training seeds and many users, with a variance that holds both.

Every seed is evaluated on the same users, so seeds and users are crossed random factors (Cornfield and Tukey 1956): the
value of user u under seed s is ``mean + seed_s + user_u + rest_su``. The interval is for other seeds and other users of
the same kinds; an interval over users alone is too narrow where the seed matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy import special

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.intervals import Interval

Number = Any  # a float, or an array with the leading axes of the values


@dataclass(frozen=True)
class Crossed:
    """A grand mean ``value`` over ``seeds`` and ``users``, its standard error ``se`` and the degrees of freedom ``df``
    of its t distribution (Satterthwaite 1946)."""

    value: Number
    se: Number
    df: Number
    seeds: int
    users: int

    @property
    def interval(self) -> Interval:
        """The 95 % t interval. With three seeds it holds the truth in 92 to 97 % of cases, with two in 88 %."""
        half = special.stdtrit(self.df, 0.975) * self.se
        return Interval(float(self.value), float(self.value - half), float(self.value + half), self.users)

    @property
    def p_value(self) -> Number:
        """Of the two-sided t-test that the mean is 0; 1 where nothing varies and the mean is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(self.value == 0, 0.0, np.abs(self.value) / self.se)
        p = 2 * special.stdtr(self.df, -t)
        return p if np.ndim(self.value) else float(p)

    def detectable(self, power: float = 0.8) -> Number:
        """The true mean that the t-test at the two-sided 5 % level detects with this ``power``, were seeds and users to
        vary as here."""
        return (special.stdtrit(self.df, 0.975) + special.stdtrit(self.df, power)) * self.se


def crossed(values: Sequence[Float64[np.ndarray, " n"]] | Float64[np.ndarray, "*more S n"]) -> Crossed:
    """The mean of per-user ``values`` [seeds, users]; leading axes are kept, as a simulation has them.

    With the mean squares A of seeds, B of users and E of the rest, the variance of the grand mean is
    (A + B - E) / (S n). Where A < E, the seed's part A - E is taken as 0, and what is left has B's n - 1 degrees of
    freedom. UserError: fewer than two seeds or users.
    """
    table = np.asarray(values, dtype=np.float64)
    seeds, users = table.shape[-2:]
    if seeds < 2 or users < 2:
        raise UserError(f"{seeds} seed(s) and {users} user(s): a variance over both needs two of each; run more")
    mean = table.mean(axis=(-2, -1))
    by_seed = table.mean(axis=-1) - mean[..., None]
    by_user = table.mean(axis=-2) - mean[..., None]
    rest = table - mean[..., None, None] - by_seed[..., :, None] - by_user[..., None, :]
    of_seeds = users * (by_seed**2).sum(axis=-1) / (seeds - 1)
    of_users = seeds * (by_user**2).sum(axis=-1) / (users - 1)
    of_rest = (rest**2).sum(axis=(-2, -1)) / ((seeds - 1) * (users - 1))
    total = of_users + np.maximum(0, of_seeds - of_rest)
    seed_part = of_seeds**2 / (seeds - 1) + of_rest**2 / ((seeds - 1) * (users - 1))
    spread = of_users**2 / (users - 1) + np.where(of_seeds > of_rest, seed_part, 0)
    df = np.where(spread > 0, total**2 / np.where(spread > 0, spread, 1), users - 1)
    return Crossed(_plain(mean), _plain(np.sqrt(total / (seeds * users))), _plain(df), seeds, users)


def _plain(found: Any) -> Number:
    return found if found.ndim else float(found)
