"""The settings of rows whose names have no room for them."""

from __future__ import annotations

from rosepo_bench.report.comparison import Comparison
from rosepo_bench.report.labels import differing, in_words
from rosepo_bench.report.markdown import NONE
from rosepo_bench.report.table import Table


def settings(comparison: Comparison) -> Table | None:
    """A column for each row whose name does not tell its settings, and in it those in which it differs from other rows
    of its method. None: every name tells them."""
    rows = comparison.rows
    told = {name: differing(row, list(rows.values())) for name, row in rows.items()}
    silent = {name: one for name, one in told.items() if one and not name.endswith(f" ({in_words(one)})")}
    if not silent:
        return None
    names = sorted({setting for one in silent.values() for setting in one})
    body = [[name, *(one.get(name, NONE) for one in silent.values())] for name in names]
    return Table.of(["setting", *silent], body, left=["setting", *silent])
