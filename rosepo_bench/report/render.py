"""Text of a report: Markdown for reading, CSV for plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.report import markdown as md
from rosepo_bench.report import provenance
from rosepo_bench.report.plain import comma_cell
from rosepo_bench.report.table import Block, Bullets, Cell, Heading, Paragraph, Report, Table


def markdown(report: Report) -> str:
    """The blocks, for a terminal of 100 columns too."""
    return "\n\n".join(map(_block, report.blocks)) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {md.escape(block.text)}"
        case Paragraph():
            return block.text
        case Bullets():
            return md.bullets(map(md.escape, block.lines))
        case Table():
            header, left = (
                [md.escape(one.name) for one in block.columns if every or one.left] for every in (True, False)
            )
            return md.table(header, [list(map(shown, row)) for row in block.rows], left)


def shown(cell: Cell) -> str:
    """A cell in Markdown."""
    words = (md.escape(cell.before), _value(cell), md.escape(cell.after))
    return " ".join(word for word in words if word)


def _value(cell: Cell) -> str:
    value = cell.value
    if isinstance(value, str):
        return md.escape(value)
    if value is None:
        return md.NONE
    if cell.form == "quantity":
        return md.quantity(value)
    if cell.form == "percent":
        return md.percent(value)
    if cell.form == "spread":
        return f"{md.number(value)} ± {md.number(cell.sd)}"
    return md.interval({"value": value, "low": cell.low, "high": cell.high}, signed=cell.form == "signed")


def comma_separated(report: Report) -> str:
    """Every number of the report, one a row."""
    table, text = report.values, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name for column in table.columns for name in (column.name, *("low", "high", "n") * column.ends)])
    for row in table.rows:
        cells = zip(table.columns, row, strict=True)
        writer.writerow([comma_cell(plain) for column, cell in cells for plain in _plain(cell, column.ends)])
    return text.getvalue()


def _plain(cell: Cell, ends: bool) -> list[str]:
    found: Sequence[float | str | None] = (cell.value, cell.low, cell.high, cell.n) if ends else (cell.value,)
    return [f"{one:.8g}" if isinstance(one, float) else "" if one is None else str(one) for one in found]


def _markdown_file(report: Report) -> str:
    return f"{markdown(report)}\n{provenance.note(report.records)}\n"


@dataclass(frozen=True)
class Format:
    """A file, what is written into it, and the hashes of the records that a written one is made from."""

    file: str
    function: Callable[[Report], str]
    made_from: Callable[[str], set[str] | None]


FORMATS = {
    "md": Format("report.md", _markdown_file, provenance.of_markdown),
    "csv": Format("results.csv", comma_separated, provenance.of_comma_separated),
}


def check_formats(names: Sequence[str]) -> None:
    """UserError: a format that there is not, or none at all."""
    if not names:
        raise UserError(f"no format is given; known: {', '.join(FORMATS)}")
    for name in names:
        if name not in FORMATS:
            raise UserError(f"unknown format {name!r}; {nearest(name, FORMATS)}")
