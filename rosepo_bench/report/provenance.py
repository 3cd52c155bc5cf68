"""Which records a written report is made from. A report that the present records cannot make again is kept."""

from __future__ import annotations

import csv
import io
import itertools
import re
import textwrap
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from rosepo_bench.base import progress, store
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import digest
from rosepo_bench.report.plain import comma_cell, visible

_NOTE = re.compile(r"<!-- made from \d+ records: ([0-9a-f\s]*)-->\s*\Z")


def name(record: Path) -> str:
    """A record as the column ``record`` of a CSV has it: its folder below ``records``."""
    return comma_cell("/".join(record.parent.parts[-3:]))


def _code(name: str) -> str:
    return digest(name)[:12]


def note(records: Collection[str]) -> str:
    """The end of a report in Markdown, not shown where it is rendered: the records that it is made from, as hashes."""
    codes = sorted(map(_code, records))
    return textwrap.fill(f"<!-- made from {len(codes)} records: {' '.join(codes)} -->", 99, break_on_hyphens=False)


def of_markdown(text: str) -> set[str] | None:
    """The hashes of the records that a report is made from. None: it is not one of this program."""
    found = _NOTE.search(text)
    return set(found[1].split()) if found else None


def of_comma_separated(text: str) -> set[str] | None:
    """The same of a CSV file, from its column ``record``."""
    try:
        rows = csv.DictReader(io.StringIO(text))
        if rows.fieldnames is None or "record" not in rows.fieldnames:
            return None
        return {_code(one["record"]) for one in rows if one["record"]}
    except csv.Error:
        return None


def keep(path: Path, content: str, made_from: Callable[[str], set[str] | None], records: Iterable[str]) -> None:
    """Called before ``content``, made from ``records``, is written to ``path``: copies the file that stands there if it
    is made from any other record, and says so. UserError: no file stands there, but something else."""
    with store.explained(path):
        if not path.exists():
            return
        if not path.is_file():
            raise UserError(f"{visible(str(path))} is not a file: move it away, or give another --out")
        old = path.read_bytes()
    found = made_from(old.decode(errors="replace"))
    if old == content.encode() or (found is not None and found <= set(map(_code, records))):
        return
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
    copy = next(one for one in numbered if not one.exists() and not one.is_symlink())
    store.write_bytes(copy, old)
    progress.say(f"kept: {visible(str(copy))} (the old {path.name}; it was made from other records)")
