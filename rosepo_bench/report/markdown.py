"""Markdown that reads well in a terminal too: aligned tables, wrapped paragraphs, escaped names."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from rosepo_bench.base.intervals import Interval
from rosepo_bench.report.plain import one_line

NONE = "–"
WIDTH = 100
"""Columns of a terminal that paragraphs and tables fit into."""
FIRST = 48
"""Most columns of a table's first column, which names its rows."""

_SPECIAL = re.compile(r"[\\|<>*`\[\]#~&$]|(?<![^\W_])_|_(?![^\W_])")
_BEGINS = re.compile(r"(?m)^(?:(?=[-=]+\s*$)[-=]|[-+](?=\s)|\d+(?=[.)]\s))")
"""What begins a list or underlines a heading, if it comes first in a line."""


def escape(text: str) -> str:
    """``text`` as one line that Markdown shows literally, inside a table or outside. An underscore inside a word has no
    meaning there and stays as it is."""
    return _SPECIAL.sub(r"\\\g<0>", one_line(text))


def code(text: str) -> str:
    """``text`` between backticks, outside tables; its own backticks are shown as apostrophes."""
    return f"`{code_text(text)}`"


def code_text(text: str) -> str:
    """``text`` as it may stand between backticks."""
    return one_line(text).replace("`", "'")


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], left: Iterable[str] = (), *, whole: bool = False
) -> str:
    """A Markdown table of at most :data:`WIDTH` columns: one that is wider goes on below, the first column repeated.
    Columns named in ``left`` are left-aligned, others right-aligned; cells must be escaped. A first column wider than
    :data:`FIRST`, and a cell that is too wide beside it, are cut. ``whole``: as wide as it is, nothing is cut."""
    found, left = [list(header), *map(list, rows)], set(left)
    align = ["left" if name in left else "right" for name in header]
    if whole:
        return _plain_table(list(zip(*found, strict=True)), align)
    first = [clip(row[0], FIRST) for row in found]
    rest = WIDTH - _taken(first) - 1 - _PADDING
    columns = [first] + [[clip(row[place], rest) for row in found] for place in range(1, len(header))]
    parts = [_plain_table([columns[one] for one in part], [align[one] for one in part]) for part in _parts(columns)]
    return "\n\n".join(parts)


_PADDING = 5
"""What tabulate adds to a column: its bar, blanks, and two more behind a header."""


def _taken(column: Sequence[str]) -> int:
    """Columns of the terminal that a column of a table takes."""
    return max(len(column[0]) + 2, *map(len, column)) + 3


def _parts(columns: Sequence[Sequence[str]]) -> list[list[int]]:
    """The places of the columns of each of the tables that one is cut into."""
    parts, used = [[0]], _taken(columns[0]) + 1
    for place, column in enumerate(columns[1:], 1):
        if used + _taken(column) > WIDTH and len(parts[-1]) > 1:
            parts.append([0])
            used = _taken(columns[0]) + 1
        parts[-1].append(place)
        used += _taken(column)
    return parts


def _plain_table(columns: Sequence[Sequence[str]], align: Sequence[str]) -> str:
    header, *rows = zip(*columns, strict=True)
    # Cells are formatted text: with numparse, 0.10 would become 0.1.
    return tabulate(rows, headers=header, tablefmt="pipe", colalign=align, disable_numparse=True)


def clip(text: str, width: int) -> str:
    """Escaped text, cut to ``width`` characters."""
    if len(text) <= width:
        return text
    kept = text[: width - 1]
    return kept[: len(kept) - (len(kept) - len(kept.rstrip("\\"))) % 2] + "…"


def paragraph(*sentences: str) -> str:
    """The sentences as one wrapped paragraph; empty ones are left out."""
    text = " ".join(sentence for sentence in sentences if sentence)
    filled = textwrap.fill(text, WIDTH - 1, break_long_words=False, break_on_hyphens=False)
    return _BEGINS.sub(_literal, filled)


def _literal(begins: re.Match[str]) -> str:
    return f"{begins[0]}\\" if begins[0].isdigit() else f"\\{begins[0]}"


def bullets(lines: Iterable[str]) -> str:
    """A bullet list of escaped lines, which are truncated to 300 characters."""
    cut = (textwrap.shorten(line, 300, placeholder=" …") for line in lines)
    return "\n".join(f"- {_BEGINS.sub(_literal, line)}" for line in cut)


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


def probability(value: float) -> str:
    """A p-value with three decimals, or that it is below 0.001."""
    return "<0.001" if value < 0.001 else number(value)


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
