"""The audit of a candidate file: plain checks, and attacks that guess the target without any history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.intervals import Interval, wilson
from rosepo_bench.base.seeds import generator
from rosepo_bench.evaluation.audit import features, redraw, testing
from rosepo_bench.evaluation.audit.attacks import Attack, ByItem, Central, Places, SharedWords, Spelling
from rosepo_bench.evaluation.audit.bar import Held, held
from rosepo_bench.evaluation.audit.checks import Check, checks
from rosepo_bench.evaluation.audit.companions import Companions, Counts, Hashes
from rosepo_bench.evaluation.audit.redraw import OddSpelling, Redraws
from rosepo_bench.evaluation.audit.table import Table
from rosepo_bench.evaluation.audit.testing import LEVEL, Outcome

MOST = 2000  # rows that are attacked
FEWEST = 10
SORTED = 0.95


@dataclass(frozen=True)
class Audit:
    """What was found of the ``rows`` of a file, of which ``attacked`` were attacked. ``outcome`` is the test by
    redraws; where the negatives belong to their rows it is None, and ``bar`` says how each attack stands against the
    bar. ``popularity``: HR@1 of guessing the most popular item, no leak by itself; None where nothing tells it."""

    name: str
    rows: int
    attacked: int
    chance: float
    checks: tuple[Check, ...]
    outcome: Outcome | None
    bar: tuple[Held, ...]
    popularity: Interval | None
    notes: tuple[str, ...]

    @property
    def leaks(self) -> tuple[str, ...]:
        """The attacks that are flagged, the strongest first."""
        if self.outcome is not None:
            return tuple(one.attack for one in self.outcome.attacks if one.p < LEVEL)
        return tuple(one.attack for one in self.bar if one.flagged)

    @property
    def flaws(self) -> tuple[Check, ...]:
        """The plain checks that are flagged."""
        return tuple(check for check in self.checks if check.flagged)

    @property
    def flagged(self) -> bool:
        return bool(self.leaks or self.flaws)


def audit(
    table: Table,
    *,
    negatives_of_row: bool = False,
    seed: int = 0,
    limit: int = testing.REDRAWS,
    most: int = MOST,
) -> Audit:
    """Audits ``table.rows``. ``negatives_of_row``: each row's negatives were chosen for it, so that they cannot be
    exchanged; the attacks are then held to a fixed bar. ``limit``: redraws before a flag. At most ``most`` rows are
    attacked, a random subset. UserError: too few rows have a whole list."""
    rng = generator(seed, "audit")
    whole = np.flatnonzero(table.rows.whole)
    if len(whole) < FEWEST:
        raise UserError(
            f"{table.rows.name}: {len(whole)} of {len(table.rows)} rows have a list with the target and other items, "
            f"each once; an audit needs {FEWEST}: see whether target and candidates are named alike"
        )
    notes = []
    if len(whole) > most:
        notes.append(f"{most} of {len(whole)} rows were attacked, a random subset")
        whole = np.sort(rng.choice(whole, most, replace=False))
    part = replace(table, rows=table.rows.take(whole))
    odd = OddSpelling(part, redraw.layout(part)[0]) if table.titles == table.items else None
    if odd is not None and not odd.flags.any():
        odd = None
    ordered = _sorted(part)
    if ordered:
        notes.append("the lists are sorted by id: an item's place tells no more than its id")
    attacks = _attacks(part, odd, ordered, rng)
    return Audit(
        name=table.rows.name,
        rows=len(table.rows),
        attacked=len(whole),
        chance=float((1 / part.rows.sizes).mean()),
        checks=checks(table),
        outcome=None if negatives_of_row else testing.compare(attacks, Redraws(part, odd, rng), limit),
        bar=held(attacks, redraw.observed(part, odd), part.rows.sizes, rng) if negatives_of_row else (),
        popularity=None if table.popularity is None else _popularity(part, table.popularity),
        notes=tuple(notes),
    )


def _attacks(table: Table, odd: OddSpelling | None, ordered: bool, rng: np.random.Generator) -> Sequence[Attack]:
    """All attacks that the table has what they need for."""
    items, size = len(table.items), table.rows.candidates.shape[1]
    hashes = Hashes(items, len(table.rows), size, rng)
    found: list[Attack] = [ByItem(features.properties(table), rng)]
    if table.titles:
        found.append(SharedWords(*features.words(table.titles), rng))
    if (vectors := features.vectors(table)) is not None:
        found.append(Central(vectors, rng))
    if not ordered:
        found.append(Places(table.rank))
    if odd is not None:
        found.append(Spelling(rng.random(odd.flags.shape) / 2))
    whole = {rows.name: replace(table, rows=rows.take(np.flatnonzero(rows.whole))) for rows in table.others}
    counts = {name: Counts(hashes, redraw.layout(own)[0]) for name, own in whole.items() if len(own.rows)}
    return [*found, Companions(hashes, counts)]


def _sorted(table: Table) -> bool:
    """Whether the lists are sorted by id, up or down."""
    rank = np.append(table.rank, len(table.items))[table.rows.candidates].astype(np.float64)
    rank[table.rows.candidates < 0] = np.nan
    steps = np.diff(rank, axis=1)
    return max(float((~(steps * sign < 0)).all(1).mean()) for sign in (1, -1)) >= SORTED


def _popularity(table: Table, popularity: Float64[np.ndarray, " items"]) -> Interval:
    """HR@1 of the most popular item of each list; of several, each is guessed with the same probability."""
    lists, _ = redraw.layout(table)
    seen = np.append(popularity, -1.0)[lists]
    best = seen == seen.max(1, keepdims=True)
    return wilson(float((best[:, 0] / best.sum(1)).sum()), len(lists))
