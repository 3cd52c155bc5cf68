"""Tables of atomic files: a typed header, fields between tabs, and what is wrong with those that are not."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers import causes
from rosepo_bench.data.readers.reading import broken, clean, cut_off, lines, trimmed

TYPES = ("token", "token_seq", "float", "float_seq")
HEADER = "a header of name:type columns separated by tabs, e.g. user_id:token"
LIKELY = {  # how a column is often called
    "user_id": "user|reviewer|customer",
    "item_id": r"^(?!.*(user|review)).*(id$|item|product|asin|sku)",
    "timestamp": "time|date",
    "title": "title|name",
}


class Table:
    """An atomic file. ``columns``: positions by name; iterating gives numbered lines as fields, as many as the header
    has. UserError: a line or the header is not as it must be; says what is likely."""

    def __init__(self, path: Path) -> None:
        self.path, self.body = path, lines(path)
        header = next(self.body, (1, ""))[1].rstrip("\t")
        self.quoted = header.startswith('"')
        names = self._fields(header)
        if not all(map(_typed, names)):
            raise broken(path, 1, HEADER, header, _header_cause(header, names))
        self.width = len(names)
        self.columns = {name.partition(":")[0]: place for place, name in enumerate(names)}

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        for number, line in self.body:
            fields = trimmed(self._fields(line), self.width)
            if len(fields) != self.width:
                expected = f"{self.width} fields separated by tabs"
                raise broken(self.path, number, expected, line, self._line_cause(number, line, fields))
            yield number, fields

    def place(self, names: Sequence[str]) -> int | None:
        """Position of the first of ``names`` that the file has."""
        return next((self.columns[name] for name in names if name in self.columns), None)

    def needed(self, key: str, names: Sequence[str]) -> int:
        """Position of a column that must be there. UserError: what the file has, and the setting to write."""
        place = self.place(names)
        if place is None:
            found = [clean(name) for name in self.columns]
            likely = (name for name in found if re.search(LIKELY[key], name, re.IGNORECASE))
            raise UserError(
                f"{self.path}: no column {' or '.join(names)}; found {', '.join(found)}; say which one it is, "
                f'e.g. columns.{key} = "{next(likely, "NAME")}"'
            )
        return place

    def _fields(self, line: str) -> list[str]:
        """The fields of a line. It is unquoted if the header is quoted, or if a csv writer would have quoted it just
        so: a title that begins and ends with quotes of its own keeps them."""
        if '"' in line:
            try:
                fields = next(csv.reader([line], delimiter="\t", strict=True))
            except csv.Error:  # quotes of the title's own
                return line.split("\t")
            if self.quoted or _written(fields) == line:
                return fields
        return line.split("\t")

    def _line_cause(self, number: int, line: str, fields: Sequence[str]) -> str:
        if other := causes.other_separator(line, "\t", lambda parts: len(parts) == self.width):
            return other
        if cut_off(self.path, number):
            return "the file ends in this line: complete or delete it"
        if len(fields) > self.width:
            return "a field holds a tab: write a blank for it"
        return "a field is missing, or holds a line break: write a blank for it"


def _written(fields: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, delimiter="\t", lineterminator="").writerow(fields)
    return line.getvalue()


def _typed(name: str) -> bool:
    return name.partition(":")[2] in TYPES


def _header_cause(header: str, names: Sequence[str]) -> str:
    if not header:
        return "the file is empty"
    if causes.has_index(names):
        return causes.INDEX
    if other := causes.other_separator(header, "\t", lambda parts: len(parts) > 1 and any(map(_typed, parts))):
        return other
    return f"write a type after each name ({', '.join(TYPES)})"
