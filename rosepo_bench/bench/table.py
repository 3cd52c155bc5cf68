"""The one long table of all benchmarks, a row for each metric of a contestant in a case: write, read, show."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError

METRICS = ("time", "ratio", "peak_memory")


@dataclass(frozen=True)
class Row:
    """``metric`` is ``time`` (of one call), ``ratio`` (time of ``provider`` over that of ``baseline``, round by round)
    or ``peak_memory`` (above the memory before the call, its result included). Percentiles are None where nothing was
    measured; ``note`` says why. ``bound`` is the least that the ratio of times or peaks could be. results/README.md
    describes every column."""

    case: str
    goal: str
    work: str
    setting: str
    mode: str
    provider: str
    metric: str
    baseline: str
    x_name: str
    x: int
    p20: float | None
    p50: float | None
    p80: float | None
    bound: float | None
    unit: str
    rounds: int
    device: str
    threads: int
    allocator: str
    torch: str
    peer_version: str
    library: str
    verified: str
    function: str
    note: str


COLUMNS = tuple(one.name for one in fields(Row))
_NUMBERS = ("p20", "p50", "p80", "bound")
_COUNTS = ("x", "rounds", "threads")


def write(rows: Iterable[Row], path: Path) -> None:
    """Writes the CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in asdict(row).items()})
    store.write_text(path, text.getvalue())


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def read(path: Path) -> list[Row]:
    """The rows of a CSV that ``write`` wrote. Raises UserError for another kind of file."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{path}: its columns are not those of a benchmark table; write it again")
        return [_row(cells) for cells in reader]


def _row(cells: dict[str, str]) -> Row:
    numbers = {name: float(cells[name]) if cells[name] else None for name in _NUMBERS}
    counts = {name: int(cells[name]) for name in _COUNTS}
    return Row(**{**cells, **numbers, **counts})  # type: ignore[arg-type]


def markdown(rows: Iterable[Row]) -> str:
    """A table for each setting, mode and allocator: a contestant's time, our time over it, its peak memory."""
    from rosepo_bench.report.markdown import escape

    groups: dict[str, dict[tuple[int, str], dict[str, Row]]] = {}
    for row in rows:
        title = f"{row.work}, {row.mode}, {row.setting}; {row.device}, {row.threads} threads, malloc {row.allocator}"
        # A ratio goes into the line of its baseline.
        line = (row.x, row.baseline or row.provider)
        groups.setdefault(title, {}).setdefault(line, {})[row.metric] = row
    return "\n\n".join(f"**{escape(title)}**\n\n{_lines(lines)}" for title, lines in groups.items()) + "\n"


def _lines(lines: dict[tuple[int, str], dict[str, Row]]) -> str:
    from rosepo_bench.report.markdown import escape, table

    first = next(iter(next(iter(lines.values())).values()))
    over = next((one["ratio"].provider for one in lines.values() if "ratio" in one), "")
    header = [first.x_name, "provider", "time, ms", f"{over} over it" if over else "ratio", "peak memory, MiB", "note"]
    cells = []
    for (x, provider), found in sorted(lines.items(), key=lambda item: item[0][0]):
        figures = [_figure(found.get(metric)) for metric in METRICS]
        notes = dict.fromkeys(row.note for row in found.values() if row.note)
        cells.append([str(x), escape(provider), *figures, escape("; ".join(notes))])
    return table(header, cells, left=("provider", "note"), whole=True)


def _figure(row: Row | None) -> str:
    if row is None or row.p50 is None:
        return "–"
    if row.p20 == row.p80:
        return f"{row.p50:.4g}"
    return f"{row.p50:.4g} [{row.p20:.4g}, {row.p80:.4g}]"
