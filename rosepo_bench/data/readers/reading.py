"""What the readers of raw files share: numbered lines, titles, ids as indices, rows and what is left out of them."""

from __future__ import annotations

import codecs
import csv
import functools
import gzip
import html
import re
import unicodedata
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from rosepo_bench.base import progress
from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers import causes, times
from rosepo_bench.data.types import RawInteractions, Source

# Why a row is left out, as it follows the number of rows.
NO_USER, NO_ITEM, NO_TIME = "without a user id", "without an item id", "without a time"
BAD_TIME = "with a time before 1990 or in the future"
NO_TITLE, NOT_LISTED = "of items without a title", "of items that are not listed"
MISSING = frozenset({"", "nan", "NaN", "<NA>", "None", "null"})  # as pandas, Python and SQL write it
FETCH = "fetch it again (and remove its entry from checksums.json)"
_YEAR_AT_END = re.compile(r"\(\d{4}(?:[-–]\d{0,4})?\)$")
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")
_JOINERS = "\u200c\u200d"  # invisible, but Persian, Hindi and emoji are spelled with them


def broken(path: Path, line: int, expected: str, found: str, cause: str = "") -> UserError:
    """The error for a line that does not follow the format. ``cause``: what is likely and what to do; where none is
    given, a file that ends in the middle of this line counts as truncated."""
    shown = found if len(found) <= 80 else found[:77] + "..."
    if not cause and cut_off(path, line):
        cause = f"the file is truncated there: {FETCH}"
    cause = cause or "the file was changed, or is another release: correct the line, or fetch the file again"
    return UserError(f"{path}, line {line}: expected {expected}, found {shown!r}; {cause}")


def cut_off(path: Path, line: int) -> bool:
    """Whether a plain file ends in this line, without a line break."""
    ends, last = 0, b""
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            ends, last = ends + block.count(b"\n"), block
    return path.suffix != ".gz" and ends + 1 == line and not last.endswith(b"\n")


def lines(path: Path, otherwise: str = "") -> Iterator[tuple[int, str]]:
    """Numbered lines without their end, of a plain or a ``.gz`` file in UTF-8, or in the encoding ``otherwise`` where
    it is not UTF-8. A byte order mark and blank lines at the end of the file are nothing. Errors name the line."""
    encoding = otherwise if otherwise and not _is_utf8(path) else "utf-8"
    blank: list[tuple[int, str]] = []
    for number, raw in _raw_lines(path):
        try:
            text = raw.decode(encoding).rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise _undecoded(path, number, raw, error) from None
        if not text or text.isspace():
            blank.append((number, text))
            continue
        if blank:
            yield from blank
            blank.clear()
        yield number, text


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for _, raw in _raw_lines(path):
            decoder.decode(raw)
    except UnicodeDecodeError:
        return False
    return True


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                yield number, raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        cause = f"the file is truncated or corrupt: {FETCH}"
        raise broken(path, number + 1, "more of the gzip stream", str(error), cause) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _undecoded(path: Path, number: int, raw: bytes, error: UnicodeDecodeError) -> UserError:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        cause = "the file is UTF-16: save it as UTF-8"
    else:
        cause = "" if cut_off(path, number) else "save the file as UTF-8"
    return broken(path, number, "UTF-8 text", repr(raw[error.start : error.end]), cause)


def csv_rows(path: Path, header: list[str], exact: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Numbered rows below the header of a csv file; ``exact`` refuses further columns."""
    text = (line for _, line in lines(path))
    first = next(text, "")
    names = trimmed(_header(first), len(header))
    if (names if exact else names[: len(header)]) != header:
        raise broken(path, 1, "the header " + ",".join(header), first, causes.of_header(first, ",", header))
    rows = csv.reader(text, strict=True)
    try:
        for row in rows:
            fields = trimmed(row, len(header))
            if len(fields) < len(header) or (exact and len(fields) != len(header)):
                raise broken(path, rows.line_num + 1, ",".join(header), ",".join(row))
            yield rows.line_num + 1, fields
    except csv.Error as error:
        raise broken(path, rows.line_num + 1, "a csv row: " + ",".join(header), str(error)) from None


def _header(line: str) -> list[str]:
    """The names of a header; one that is no line of csv is a single name."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return [line]


def trimmed(fields: list[str], width: int) -> list[str]:
    """The fields of a line without empty ones after the first ``width``: separators at its end are nothing."""
    return fields if len(fields) <= width or any(fields[width:]) else fields[:width]


def missing(field: str) -> bool:
    """Whether a field of a text table holds no value: empty, or what pandas and others write for none."""
    return field in MISSING or field.isspace()


def clean(title: str) -> str:
    """A title on one line: single blanks, HTML entities as the characters they stand for, composed accents (NFC), and
    no invisible control characters."""
    text = unicodedata.normalize("NFC", _ENTITY.sub(lambda entity: html.unescape(entity[0]), title))
    if not text.isprintable():
        text = "".join(letter for letter in text if letter.isspace() or letter in _JOINERS or _visible(letter))
    return " ".join(text.split())


@functools.lru_cache(maxsize=10_000)
def labels(genres: tuple[str, ...]) -> tuple[str, ...]:
    """Genres as titles are cleaned, the empty ones left out."""
    return tuple(label for label in map(clean, genres) if label)


def _visible(letter: str) -> bool:
    return unicodedata.category(letter) not in ("Cc", "Cf", "Cs")


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
    """Collects interactions as they are read, eight bytes per number, and counts the rows that are left out. ``unit``:
    the data set's ``time_unit``; empty where the format has unix seconds."""

    def __init__(self, unit: str = "") -> None:
        self.user, self.item, self.time = array("q"), array("q"), array("q")
        self.left_out: Counter[str] = Counter()
        self.unit, self.strange = unit, 0
        self.first, self.last = times.limits(times.UNITS[unit][1])

    def add(self, user: int, item: int, time: int) -> None:
        """``time`` in ticks of the unit. A row outside of the limits is left out."""
        if not self.first <= time <= self.last:
            self.strange = time
            self.leave_out(BAD_TIME)
            return
        self.user.append(user)
        self.item.append(item)
        self.time.append(time)

    def leave_out(self, why: str) -> None:
        """Counts a row that is not added. ``why`` follows the number of such rows: `without a user id`."""
        self.left_out[why] += 1

    def finish(
        self,
        source: Source,
        users: Ids,
        items: Iterable[str],
        titles: tuple[str, ...],
        genres: tuple[tuple[str, ...], ...],
    ) -> RawInteractions:
        """The interactions; ``items`` are the owner's ids. What was left out is said, and stands in the source's note.

        UserError: no row is left."""
        if not self.user and self.left_out[BAD_TIME]:
            raise times.implausible(source.name, self.strange, self.unit)
        user, item, time = (np.array(column, dtype=np.int64) for column in (self.user, self.item, self.time))
        time = times.whole(time, self.unit)
        genres = tuple(map(labels, genres))
        raw = RawInteractions(source, user, item, time, users.names, titles, genres, item_ids=tuple(items))
        return noted(raw, self.left_out)


def noted(raw: RawInteractions, left_out: Mapping[str, int]) -> RawInteractions:
    """``raw`` with the rows that its reader left out, by reason; they are said, and stand in the source's note.

    UserError: no row is left."""
    counts = {why: count for why, count in left_out.items() if count}
    if not counts:
        return raw
    note = "left out rows: " + ", ".join(f"{count} {why}" for why, count in counts.items())
    if not len(raw.user):
        raise UserError(f"{raw.source.name}: no interaction can be used; {note}")
    progress.say(f"{raw.source.name}: {note}")
    source = replace(raw.source, note="; ".join(filter(None, (raw.source.note, note))))
    return replace(raw, source=source, left_out=counts)


def day(text: str) -> int:
    """Unix seconds of ``YYYY-MM-DD`` at midnight UTC; ValueError if it is not a date."""
    if len(text) != 10:
        raise ValueError(text)
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
