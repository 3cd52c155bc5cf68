"""Names of table rows: the method, and the settings in which its rows differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rosepo_bench.base.failures import Failure
from rosepo_bench.report.markdown import NONE, escape
from rosepo_bench.report.result import Result

LONGEST = 38
"""Most characters of a name, those that Markdown escapes counted twice; a table's first column has room for more."""

Row = Result | Failure


def labels(rows: Sequence[Row]) -> list[str]:
    """The name of each row, all of them different. Those of methods with several rows are followed by the settings in
    which they differ, e.g. ``dpo (loss.beta=0.1)``; where this is too long for a table, by the hash of the row."""
    found = [_label(row, _siblings(row, rows)) for row in rows]
    return list(_numbered(found))


def differing(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    """The settings of ``row`` that are not the same in all rows of its method, as text by dotted name."""
    siblings = [one.settings for one in _siblings(row, rows)]
    names = sorted({name for settings in siblings for name in settings})
    return {name: _shown(row.settings, name) for name in names if len({_shown(one, name) for one in siblings}) > 1}


def in_words(settings: Mapping[str, str]) -> str:
    """``loss.beta=0.1, rejected=3``."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _siblings(row: Row, rows: Sequence[Row]) -> list[Row]:
    return [one for one in rows if one.method == row.method]


def _label(row: Row, siblings: Sequence[Row]) -> str:
    if len(siblings) == 1:
        return row.method if _fits(row.method) else f"{_cut(row.method)} (row {row.row[:8]})"
    told = in_words(differing(row, siblings))
    if told and _fits(whole := f"{row.method} ({told})"):
        return whole
    return f"{_cut(row.method)} (row {row.row[:8]})"


def _fits(label: str) -> bool:
    return len(escape(label)) <= LONGEST


def _cut(method: str) -> str:
    """As much of a name as leaves room for the hash, whatever is escaped in it."""
    room = LONGEST - len("… (row 12345678)")
    if len(escape(method)) <= room:
        return method
    kept = method[:room]
    while len(escape(kept)) > room:
        kept = kept[:-1]
    return f"{kept}…"


def _numbered(names: Sequence[str]) -> Iterator[str]:
    """Names of which several are the same, which records of another program may lead to, get a number."""
    seen, several = Counter[str](), Counter(names)
    for name in names:
        seen[name] += 1
        yield f"{name} no. {seen[name]}" if several[name] > 1 else name


def _shown(settings: Mapping[str, Any], name: str) -> str:
    """A value as it is given to ``--set``; a string that looks like another value, or like none, is quoted."""
    if name not in settings:
        return NONE
    value = settings[name]
    return value if isinstance(value, str) and _plain(value) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _plain(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return text not in ("", NONE)
    return False
