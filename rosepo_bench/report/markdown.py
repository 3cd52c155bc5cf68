"""Markdown that reads well in a terminal too: aligned tables, wrapped paragraphs, escaped names."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from rosepo_bench.base.intervals import Interval

NONE = "–"


def escape(text: str) -> str:
    """``text`` as one line that Markdown shows literally, inside a table or outside."""
    return re.sub(r"([\\|<*`\[\]])", r"\\\1", " ".join(text.split()))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: Iterable[str] = ()) -> str:
    """A Markdown table. Columns named in ``left`` are left-aligned, others right-aligned; cells must be escaped."""
    left = set(left)
    align = ["left" if name in left else "right" for name in header]
    # Cells are formatted text: with numparse, 0.10 would become 0.1.
    return tabulate(
        [list(row) for row in rows],
        headers=list(header),
        tablefmt="pipe",
        colalign=align,
        disable_numparse=True,
    )


def paragraph(*sentences: str) -> str:
    """The sentences as one wrapped paragraph; empty ones are left out."""
    text = " ".join(sentence for sentence in sentences if sentence)
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def bullets(lines: Iterable[str]) -> str:
    """A bullet list; lines are truncated to 300 characters."""
    return "\n".join(f"- {textwrap.shorten(line, 300, placeholder=' …')}" for line in lines)


def interval(cell: Interval | Mapping[str, Any] | None, signed: bool = False) -> str:
    """``0.421 [0.390, 0.453]``, or the number alone where it has no interval; with ``signed``, positive numbers have a
    plus sign."""
    if cell is None:
        return NONE
    parts = cell.as_dict() if isinstance(cell, Interval) else cell
    if parts.get("low") is None or parts.get("high") is None:
        return number(parts["value"], signed=signed)
    return "{} [{}, {}]".format(*(number(parts[name], signed=signed) for name in ("value", "low", "high")))


def number(value: float | None, digits: int = 3, signed: bool = False) -> str:
    """A number with a fixed number of decimals; never -0.000."""
    if value is None:
        return NONE
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text if float(text) else text.replace("-", "+" if signed else "")


def percent(share: float | None) -> str:
    """``44.0 %``."""
    return NONE if share is None else f"{100 * share:.1f} %"


def quantity(value: float | None) -> str:
    """A rate, time or count with at least three digits and thousands separators."""
    if value is None:
        return NONE
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def distinct(values: Iterable[Any]) -> str:
    """The distinct values in their order, joined; there are several where seeds differ."""
    told = (NONE if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return ", ".join(dict.fromkeys(told))
