"""An audit as text for a terminal, as one HTML page, and as JSON."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from rosepo_bench.base.intervals import Interval, wilson
from rosepo_bench.evaluation.audit.audit import Audit
from rosepo_bench.evaluation.audit.testing import LEVEL, Outcome

STYLE = """:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
background:light-dark(#fff,#16181b);color:light-dark(#1b1d20,#e6e6e6)}
div{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .75rem;border-bottom:1px solid light-dark(#ccc,#444);text-align:right}
th:first-child,td:first-child,.words{text-align:left}
.flag{font-weight:bold;color:light-dark(#a40000,#ff8a80)}"""


@dataclass(frozen=True)
class Grid:
    """A table of finished text. Columns named in ``left`` hold words; ``flags`` tells the rows to be marked."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[str]
    flags: tuple[bool, ...]


def plain(audit: Audit) -> str:
    """The audit for a terminal."""
    parts = [
        audit.name,
        *(_plain(grid) for grid in _grids(audit)),
        *(textwrap.fill(one, 100) for one in _sentences(audit)),
    ]
    return "\n\n".join(parts) + "\n"


def page(audit: Audit) -> str:
    """The audit as one HTML file, which needs no network; all text is escaped."""
    name, grids = html.escape(audit.name), "".join(map(_html, _grids(audit)))
    words = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in _sentences(audit))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Audit of {name}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>Audit of {name}</h1>{words}{grids}</html>\n"
    )


def facts(audit: Audit) -> dict[str, Any]:
    """The audit as JSON holds it."""
    return {**asdict(audit), "leaks": audit.leaks, "flaws": [check.what for check in audit.flaws]}


def verdict(audit: Audit) -> str:
    """The result in one sentence."""
    if not audit.flagged:
        return "Clean: no attack finds the target better than the file's own negatives explain, and no check fails."
    found = [f"a leak by {', '.join(audit.leaks)}"] if audit.leaks else []
    return f"Flagged: {'; '.join(found + [f'{check.what} (rows: {check.count})' for check in audit.flaws])}."


def _grids(audit: Audit) -> list[Grid]:
    outcome, n = audit.outcome, audit.attacked
    grids = [_tested(outcome, n) if outcome is not None else _barred(audit)]
    rows = tuple((check.what, str(check.count), str(check.of)) for check in audit.checks)
    left = frozenset(["check"])
    return [*grids, Grid(("check", "rows", "of"), rows, left, tuple(check.flagged for check in audit.checks))]


def _tested(outcome: Outcome, n: int) -> Grid:
    rows = tuple(
        (
            one.attack,
            one.guess,
            _interval(wilson(one.hits, n)),
            f"{one.expected / n:.3f}",
            f"{one.studentised:+.1f}",
            f"{one.p:.4f}",
        )
        for one in outcome.attacks
    )
    header = ("attack", "guess", "blind HR@1", "null mean", "studentised", "p")
    return Grid(header, rows, frozenset(header[:2]), tuple(one.p < LEVEL for one in outcome.attacks))


def _barred(audit: Audit) -> Grid:
    rows = tuple((one.attack, _interval(one.rate), f"{one.bar:.3f}") for one in audit.bar)
    return Grid(("attack", "blind HR@1", "bar"), rows, frozenset(["attack"]), tuple(one.flagged for one in audit.bar))


def _sentences(audit: Audit) -> list[str]:
    told = [verdict(audit)]
    attacked = (
        f"{audit.attacked} of {audit.rows} rows were attacked without their histories; chance is {audit.chance:.3f}."
    )
    if audit.outcome is not None:
        attacked += (
            f" The largest studentised excess over all attacks and places has p = {audit.outcome.p:.4f} after"
            f" {audit.outcome.redraws} redraws, and p below {LEVEL} is a flag; each p is adjusted for all attacks."
        )
    else:
        attacked += (
            " The negatives belong to their rows, so that no redraw can stand for them: an attack is flagged where its"
            " whole 95 % interval is above the bar, which is chance + 0.05."
        )
    told.append(attacked)
    if audit.popularity is not None:
        told.append(
            f"The most popular item of the list is the target in {_interval(audit.popularity)} of the rows: a baseline"
            " for every method on this file, and no leak by itself."
        )
    return told + [f"Note: {note}." for note in audit.notes]


def _interval(rate: Interval) -> str:
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


def _plain(grid: Grid) -> str:
    align = ["left" if name in grid.left else "right" for name in grid.header]
    rows = [[("! " if flag else "  ") + row[0], *row[1:]] for row, flag in zip(grid.rows, grid.flags, strict=True)]
    return tabulate(rows, headers=grid.header, colalign=align, disable_numparse=True, preserve_whitespace=True)


def _html(grid: Grid) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        marks = (' class="words"' if name in grid.left else "" for name in grid.header)
        return "".join(f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=True))

    rows = (
        f"<tr{' class=flag' if flag else ''}>{cells('td', row)}</tr>"
        for row, flag in zip(grid.rows, grid.flags, strict=True)
    )
    return f"<div><table><tr>{cells('th', grid.header)}</tr>{''.join(rows)}</table></div>"
