"""What the readers of raw files share: numbered lines, titles, ids as indices, rows, dates."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import RawInteractions, Source

_YEAR_AT_END = re.compile(r"\(\d{4}(?:[-–]\d{0,4})?\)$")


def broken(path: Path, line: int, expected: str, found: str) -> UserError:
    """The error for a line that does not follow the format."""
    shown = found if len(found) <= 80 else found[:77] + "..."
    return UserError(
        f"{path}, line {line}: expected {expected}, found {shown!r}; the file is truncated or corrupt: "
        "fetch it again (and remove its entry from checksums.json)"
    )


def lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Numbered lines without their end, of a plain or a ``.gz`` file. Errors name the
    line."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                yield number, raw.decode(encoding).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise broken(path, number, f"{encoding} text", repr(error.object[error.start : error.end])) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise broken(path, number + 1, "more of the gzip stream", str(error)) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def csv_rows(path: Path, header: list[str], exact: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Numbered rows below the header of a csv file; ``exact`` refuses further columns."""
    text = (line for _, line in lines(path))
    first = next(text, "").removeprefix("\ufeff")
    names = first.split(",")
    if (names if exact else names[: len(header)]) != header:
        raise broken(path, 1, "the header " + ",".join(header), first)
    rows = csv.reader(text, strict=True)
    try:
        for row in rows:
            if len(row) < len(header) or (exact and len(row) != len(header)):
                raise broken(path, rows.line_num + 1, ",".join(header), ",".join(row))
            yield rows.line_num + 1, row
    except csv.Error as error:
        raise broken(path, rows.line_num + 1, "a csv row: " + ",".join(header), str(error)) from None


def clean(title: str) -> str:
    """A title on one line, with single blanks."""
    return " ".join(title.split())


def with_year(title: str, year: str) -> str:
    """``Title (1995)``; an invalid year is not appended, nor any year to a title that ends with one."""
    title, year = clean(title), year.strip().removesuffix(".0")
    if not title or not re.fullmatch(r"\d{4}", year) or _YEAR_AT_END.search(title):
        return title
    return f"{title} ({year})"


class Ids:
    """Indices for text ids in the order of their first appearance."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        return self.index.setdefault(name, len(self.index))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.index)


class Rows:
    """Collects interactions as they are read, eight bytes per number."""

    def __init__(self) -> None:
        self.user, self.item, self.time = array("q"), array("q"), array("q")

    def add(self, user: int, item: int, time: int) -> None:
        self.user.append(user)
        self.item.append(item)
        self.time.append(time)

    def finish(
        self, source: Source, users: Ids, titles: tuple[str, ...], genres: tuple[tuple[str, ...], ...]
    ) -> RawInteractions:
        user, item, time = (np.array(column, dtype=np.int64) for column in (self.user, self.item, self.time))
        return RawInteractions(source, user, item, time, users.names, titles, genres)


def day(text: str) -> int:
    """Unix seconds of ``YYYY-MM-DD`` at midnight UTC; ValueError if it is not a date."""
    if len(text) != 10:
        raise ValueError(text)
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
