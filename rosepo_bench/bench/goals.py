"""A benchmark table's ratios for each goal, beside their bounds, as rows and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rosepo_bench.bench.peer import OURS
from rosepo_bench.bench.table import Row

PEAKS = frozenset({"G2", "G6"})
"""Goals of peak memory; their ratios are our peak over the peer's."""

ALLOWANCE = "64 MiB + 4·N·d bytes"


@dataclass(frozen=True)
class Goal:
    """``ratio``: the peer's time over ours, or our peak memory over the peer's, with its percentiles over the rounds;
    ``bound``: the best that token counts or matrix products allow. A peer that could not be measured is None, with the
    ``reason``."""

    goal: str
    setting: str
    peer: str | None
    ratio: float | None
    p20: float | None
    p80: float | None
    bound: float | None
    verified: bool
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` writes it; ``reason`` only where there is one."""
        return {name: value for name, value in vars(self).items() if name != "reason" or value}


def goals(rows: Iterable[Row]) -> list[Goal]:
    """A row for each goal and peer of the table ``rows``, in the order of the goals."""
    found = list(rows)
    made = [goal for row in found if row.goal for goal in _of(row, found)]
    return in_order(made)


def in_order(found: Iterable[Goal]) -> list[Goal]:
    """By number, in their order otherwise."""
    return sorted(found, key=lambda one: int(one.goal[1:]))


def _of(row: Row, rows: Sequence[Row]) -> Iterator[Goal]:
    kept = "" if row.allocator == "default" else f", malloc {row.allocator}"
    setting = f"{row.case}, {row.threads} threads{kept}"
    memory = row.goal in PEAKS
    if (row.metric == "peak_memory") != memory:
        return
    if row.p50 is None:
        yield Goal(row.goal, setting, None, None, None, None, None, False, f"{row.provider}: {row.note}")
    elif memory:
        yield from _peak(row, rows, setting)
    elif row.metric == "ratio" and row.baseline and row.verified == "equal":
        assert row.p20 is not None, "percentiles come together"
        assert row.p80 is not None, "percentiles come together"
        bound = None if row.bound is None else 1 / row.bound
        yield Goal(row.goal, setting, row.baseline, 1 / row.p50, 1 / row.p80, 1 / row.p20, bound, True)


def _peak(row: Row, rows: Sequence[Row], setting: str) -> Iterator[Goal]:
    assert row.p50 is not None, "the caller has checked it"
    if row.goal == "G2":
        if row.provider == OURS:
            width = int(re.findall(r"d=(\d+)", row.setting)[0])
            ratio = row.p50 / (64 + 4 * row.x * width / (1 << 20))
            yield Goal("G2", setting, ALLOWANCE, ratio, ratio, ratio, None, row.verified == "equal")
        return
    ours = [one for one in rows if (one.case, one.provider, one.metric) == (row.case, OURS, row.metric)]
    for one in ours:
        if one.p50 is not None:
            ratio = one.p50 / row.p50
            yield Goal(row.goal, setting, row.provider, ratio, ratio, ratio, row.bound, row.verified == "equal")


def markdown(found: Iterable[Goal]) -> str:
    """The rows as one table. The ratio of times is the peer's over ours, that of memory ours over the peer's."""
    from rosepo_bench.report.markdown import NONE, escape, table

    def number(value: float | None) -> str:
        return NONE if value is None else f"{value:.3g}"

    cells = []
    for one in found:
        spread = "" if one.p20 == one.p80 else f" [{number(one.p20)}, {number(one.p80)}]"
        ratio = f"{number(one.ratio)}{spread}"
        peer = f"none ({one.reason})" if one.peer is None else one.peer
        what = "memory" if one.goal in PEAKS else "time"
        cells.append([one.goal, escape(peer), what, ratio, number(one.bound), escape(one.setting)])
    header = ["goal", "peer", "of", "ratio", "bound", "setting"]
    return table(header, cells, left=("goal", "peer", "of", "setting")) + "\n"
