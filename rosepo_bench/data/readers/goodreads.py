"""UCSD Book Graph: Goodreads shelves (Wan and McAuley, RecSys 2018; ACL 2019), whole or one genre.

An interaction is a book put on a shelf. Its time is ``date_added``, which every row has (``read_at`` is mostly empty,
and often says 1988). Titles keep their series numbers. The publication year is not appended: it is that of an edition,
and editions of one book are merged by their equal titles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers.reading import Ids, Rows, broken, clean, lines
from rosepo_bench.data.types import RawInteractions, Source

MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MONTHS = {name: month for month, name in enumerate(MONTH_NAMES, start=1)}
# shelves that describe what the reader did, not the book
STATUS = {
    "to-read", "currently-reading", "read", "have-read", "re-read", "abandoned", "did-not-finish",
    "dnf", "maybe", "default", "owned", "owned-books", "books-i-own", "i-own", "own-it", "my-books",
    "my-library", "library", "to-buy", "wish-list", "wishlist", "books", "favorites", "favourites",
    "all-time-favorites", "shelfari-favorites", "5-stars", "kindle", "ebook", "ebooks", "e-book",
    "e-books", "audio", "audiobook", "audiobooks",
}  # fmt: skip
GENRES = 3


def read(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: goodreads_interactions*.json[.gz]; ``items``: goodreads_books*.json[.gz], one JSON object
    a line. Rows of books without a title are left out and counted in ``source.note``."""
    books = _books(paths["items"])
    position = {key: index for index, key in enumerate(books)}
    users, rows, path, left_out = Ids(), Rows(), paths["ratings"], 0
    for number, row in _objects(path):
        user, book = row.get("user_id"), row.get("book_id")
        try:
            when = seconds(str(row.get("date_added") or ""))
        except (ValueError, KeyError):
            raise broken(
                path, number, "date_added as 'Mon Aug 01 13:41:57 -0700 2011'", str(row.get("date_added"))
            ) from None
        if not user or not book:
            raise broken(path, number, "user_id and book_id", json.dumps(row))
        item = position.get(str(book))
        if item is None:
            left_out += 1
        else:
            rows.add(users(str(user)), item, when)
    if not len(users):
        raise UserError(f"{path}: no row names a book in {paths['items']}: truncated, or two different genres")
    if left_out:
        source = replace(source, note=f"left out: {left_out} rows of books without a title in {paths['items'].name}")
    titles, genres = zip(*books.values(), strict=True)
    return rows.finish(source, users, titles, genres)


def seconds(text: str) -> int:
    """Unix seconds of ``Mon Aug 01 13:41:57 -0700 2011`` (strptime's ``%a %b %d %H:%M:%S %z %Y``, at ten
    times its speed)."""
    _, month, day, clock, zone, year = text.split()
    if len(clock) != 8 or len(zone) != 5 or zone[0] not in "+-":
        raise ValueError(text)
    offset = int(zone[1:3]) * 3600 + int(zone[3:]) * 60
    hours, minutes, rest = int(clock[:2]), int(clock[3:5]), int(clock[6:])
    if hours > 23 or minutes > 59 or rest > 60:
        raise ValueError(text)
    local = _midnight(int(year), MONTHS[month], int(day)) + hours * 3600 + minutes * 60 + rest
    return local - offset if zone[0] == "+" else local + offset


@lru_cache(maxsize=20_000)
def _midnight(year: int, month: int, day: int) -> int:
    return (date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()) * 86_400


def _books(path: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    books: dict[str, tuple[str, tuple[str, ...]]] = {}
    for number, book in _objects(path):
        shelves = book.get("popular_shelves") or []
        if not book.get("book_id") or not all(isinstance(shelf, dict) and "name" in shelf for shelf in shelves):
            raise broken(path, number, "book_id, title and popular_shelves [{count, name}, …]", str(book))
        title = clean(str(book.get("title") or book.get("title_without_series") or ""))
        if title:
            books[str(book["book_id"])] = title, _genres(shelves)
    return books


def _genres(shelves: list[dict[str, Any]]) -> tuple[str, ...]:
    """The most used shelves that name a genre; the file lists shelves by descending count."""
    names = (str(shelf["name"]) for shelf in shelves)
    return tuple([name for name in names if name not in STATUS][:GENRES])


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise broken(path, number, "one JSON object a line", line)
        yield number, value
