"""What a report consists of: headings, paragraphs, lists, and tables of typed cells. Renderers make text of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Form = Literal["number", "signed", "quantity", "percent", "spread"]
"""How a number is shown: with three decimals, these with a sign, as a rate or count, in percent, as mean ± ``sd``."""


@dataclass(frozen=True)
class Cell:
    """One value of a table: text, a number, or None where it is not known; a number's 95 % interval and standard
    deviation, how many users or pairs it is from, and the seeds and record files that it was computed from. ``before``
    and ``after`` are words around it."""

    value: float | str | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    sd: float | None = None
    form: Form = "number"
    before: str = ""
    after: str = ""
    seeds: tuple[int, ...] = ()
    records: tuple[Path, ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Any] | None, form: Form = "number", **sources: Any) -> Cell:
        """From ``value``, ``low``, ``high`` and ``n`` as records hold them; empty for None."""
        if told is None:
            return cls(form=form, **sources)
        return cls(told["value"], told.get("low"), told.get("high"), told.get("n"), form=form, **sources)


@dataclass(frozen=True)
class Column:
    """``left``: aligned to the left, for text. ``ends``: where numbers stand alone, as in CSV, the ends of the interval
    and n have columns of their own."""

    name: str
    left: bool = False
    ends: bool = False


@dataclass(frozen=True)
class Table:
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def of(cls, names: Sequence[str], rows: Iterable[Sequence[Cell | str]], left: Iterable[str] = ()) -> Table:
        """A table in which plain strings are cells of text."""
        columns = tuple(Column(name, name in set(left)) for name in names)
        made = (tuple(Cell(one) if isinstance(one, str) else one for one in row) for row in rows)
        return cls(columns, tuple(made))


@dataclass(frozen=True)
class Heading:
    text: str
    level: int


@dataclass(frozen=True)
class Paragraph:
    """Sentences in Markdown; names in them are escaped already."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """Lines of plain text."""

    lines: tuple[str, ...]


Block = Heading | Paragraph | Bullets | Table


@dataclass(frozen=True)
class Report:
    """``blocks`` to be read from top to bottom, ``values``: every number, one a row, and the names of all records that
    it is made from."""

    blocks: tuple[Block, ...]
    values: Table
    records: tuple[str, ...] = ()
