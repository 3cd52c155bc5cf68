"""One test of all attacks: the studentised maximum over every attack and every place that it can guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from rosepo_bench.evaluation.audit.attacks import Attack
from rosepo_bench.evaluation.audit.redraw import Draw, Redraws

LEVEL = 0.001
REDRAWS = 10_000
EXCEEDANCES = 20
PILOT = 100


@dataclass(frozen=True)
class Scores:
    """One attack at its best place: the guess in words, the rows ``hit`` by it, how many of them the null explains, the
    studentised excess, and the p-value adjusted for all attacks and places."""

    attack: str
    guess: str
    hits: int
    expected: float
    studentised: float
    p: float


@dataclass(frozen=True)
class Outcome:
    """``p`` of the test, after so many ``redraws``; the attacks by descending excess."""

    p: float
    redraws: int
    attacks: tuple[Scores, ...]


def compare(attacks: Sequence[Attack], redraws: Redraws, limit: int = REDRAWS) -> Outcome:
    """Compares the file with up to ``limit`` redraws and stops after 20 that are as extreme (Besag and Clifford,
    Sequential Monte Carlo p-values, Biometrika 78, 1991): p = 20 / redraws then, else (1 + as extreme) / (1 + limit).
    Means and deviations of the hits come from 100 further redraws, which are not compared; no deviation is below that
    of a guess by chance, so that rare hits do not rule the maximum."""
    sizes, width = redraws.sizes, int(redraws.sizes.max())

    def hits(draw: Draw) -> Int64[np.ndarray, "attacks places"]:
        return tally(cells(attacks, draw, sizes), width)

    seen = hits(redraws.observed)
    pilot = np.stack([hits(redraws.draw()) for _ in range(PILOT)])
    by_chance = np.sqrt((1 / sizes * (1 - 1 / sizes)).sum())
    mean, deviation = pilot.mean(0), pilot.std(0, ddof=1).clip(by_chance)

    def excess(found: Int64[np.ndarray, "attacks places"]) -> Float64[np.ndarray, "attacks places"]:
        studentised: Float64[np.ndarray, "attacks places"] = (found - mean) / deviation
        return studentised

    own = excess(seen)
    best = own.max(1)
    above, done = np.zeros(len(best), dtype=np.int64), 0
    leader = int(best.argmax())
    while done < limit and above[leader] < EXCEEDANCES:
        above += excess(hits(redraws.draw())).max() >= best
        done += 1
    p = above / done if above[leader] == EXCEEDANCES else (1 + above) / (1 + done)
    names = [name for attack in attacks for name in attack.names]
    found = []
    for at in np.argsort(-best, kind="stable").tolist():
        place = int(own[at].argmax())
        guess = names[at].guess(place, width)
        hit, expected = int(seen[at, place]), float(mean[at, place])
        found.append(Scores(names[at].attack, guess, hit, expected, float(best[at]), min(1.0, float(p[at]))))
    return Outcome(float(p[leader]), done, tuple(found))


def cells(attacks: Sequence[Attack], draw: Draw, sizes: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "ways attacks n"]:
    """Which guesses of each attack hit each row: the place counted from the first and, where the lists differ in their
    ``sizes``, the place counted from the last, which come after the others."""
    ranks = np.concatenate([attack.ranks(draw) for attack in attacks])
    width = int(sizes.max())
    return ranks[None] if sizes.min() == width else np.stack([ranks, width + sizes - 1 - ranks])


def tally(found: Int64[np.ndarray, "ways attacks n"], width: int) -> Int64[np.ndarray, "attacks places"]:
    """How many rows each guess of each attack hits."""
    ways, attacks, _ = found.shape
    at = found + np.arange(attacks)[:, None] * (ways * width)
    return np.bincount(at.reshape(-1), minlength=attacks * ways * width).reshape(attacks, ways * width)
