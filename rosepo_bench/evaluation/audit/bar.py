"""The bar for negatives that were chosen for their rows, which no redraw can stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from rosepo_bench.base.intervals import Interval, wilson
from rosepo_bench.evaluation.audit.attacks import Attack
from rosepo_bench.evaluation.audit.redraw import Draw
from rosepo_bench.evaluation.audit.testing import cells, tally

ABOVE_CHANCE = 0.05


@dataclass(frozen=True)
class Held:
    """One attack's blind HR@1, with its 95 % interval. ``bar``: chance + 0.05. It is flagged where the whole interval
    is above the bar."""

    attack: str
    rate: Interval
    bar: float

    @property
    def flagged(self) -> bool:
        return bool(self.rate.low > self.bar)


def held(
    attacks: Sequence[Attack], draw: Draw, sizes: Int64[np.ndarray, " n"], rng: np.random.Generator
) -> tuple[Held, ...]:
    """Each attack against the bar, the strongest first. The place that it guesses in one half of the rows is the one
    that hits most in the other half, so that the choice of the place adds nothing to its HR@1."""
    half, found = rng.permutation(len(sizes)) % 2 == 0, cells(attacks, draw, sizes)
    one, two = (tally(found[:, :, rows], int(sizes.max())) for rows in (half, ~half))
    attack = np.arange(len(one))
    hits = two[attack, one.argmax(1)] + one[attack, two.argmax(1)]
    bar = float((1 / sizes).mean()) + ABOVE_CHANCE
    names = [name.attack for family in attacks for name in family.names]
    rates = [Held(name, wilson(float(hit), len(sizes)), bar) for name, hit in zip(names, hits, strict=True)]
    return tuple(sorted(rates, key=lambda one: -one.rate.value))
