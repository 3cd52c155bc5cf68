"""UCSD Book Graph: Goodreads shelves (Wan and McAuley, RecSys 2018; ACL 2019), whole or one genre.

An interaction is a book put on a shelf. Its time is ``date_added``, which every row has (``read_at`` is mostly empty,
and often says 1988). Titles keep their series numbers. A book of the file is an edition: those of one work are one
item, with the title of the most rated. A work is a ``work_id``, else a title with its first author."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from rosepo_bench.data.readers.reading import clean
from rosepo_bench.data.readers.records import Catalogue, Interactions, Item, Record, records
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
    """``ratings``: goodreads_interactions*.json[.gz]; ``items``: goodreads_books*.json[.gz], one record a line. Rows
    without a user, a book, its title or a date are left out and counted."""
    interactions = Interactions(_books(paths["items"]))
    for row in records(paths["ratings"]):
        added = row.text("date_added")
        try:
            when = seconds(added) if added else None
        except (ValueError, OverflowError, KeyError):
            raise row.broken("date_added as 'Mon Aug 01 13:41:57 -0700 2011'", "date_added") from None
        interactions.add(row.id("user_id"), row.id("book_id"), when)
    return interactions.finish(source, paths, "two different genres")


def seconds(text: str) -> int:
    """Unix seconds of ``Mon Aug 01 13:41:57 -0700 2011`` (strptime's ``%a %b %d %H:%M:%S %z %Y``, at ten
    times its speed)."""
    _, month, day, clock, zone, year = text.split()
    if len(clock) != 8 or len(zone) != 5 or zone[0] not in "+-":
        raise ValueError(text)
    offset = int(zone[1:3]) * 3600 + int(zone[3:]) * 60
    hours, minutes, rest = int(clock[:2]), int(clock[3:5]), int(clock[6:])
    if not (0 <= hours <= 23 and 0 <= minutes <= 59 and 0 <= rest <= 60):
        raise ValueError(text)
    local = _midnight(int(year), MONTHS[month], int(day)) + hours * 3600 + minutes * 60 + rest
    return local - offset if zone[0] == "+" else local + offset


@lru_cache(maxsize=20_000)
def _midnight(year: int, month: int, day: int) -> int:
    return (date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()) * 86_400


def _books(path: Path) -> Catalogue:
    books: Catalogue = {}
    for book in records(path):
        key, shelves = book.id("book_id"), book.fields.get("popular_shelves") or []
        named = isinstance(shelves, list) and all(isinstance(one, dict) and "name" in one for one in shelves)
        if not key or not named:
            raise book.broken("book_id, title and popular_shelves [{count, name}, …]", "book_id", "popular_shelves")
        title = clean(book.text("title") or book.text("title_without_series"))
        if title or key not in books:
            books[key] = Item(title, _genres(shelves), *_edition(book, title))
    return books


def _edition(book: Record, title: str) -> tuple[str, tuple[str, ...], int]:
    """The year, the work and the ratings of a book."""
    authors, year = book.fields.get("authors") or [], book.id("publication_year")
    if not isinstance(authors, list) or not all(isinstance(author, dict) for author in authors):
        raise book.broken("authors [{author_id, role}, …]", "book_id", "authors")
    try:
        ratings = int(float(book.text("ratings_count") or 0))
    except (ValueError, OverflowError):
        raise book.broken("ratings_count as a whole number", "book_id", "ratings_count") from None
    author = Record(book.path, book.line, authors[0]).id("author_id") if authors else ""
    if work := book.id("work_id"):
        return year, (work,), ratings
    return year, (title, author) if title and author else (), ratings


def _genres(shelves: list[dict[str, Any]]) -> tuple[str, ...]:
    """The most used shelves that name a genre; the file lists shelves by descending count."""
    names = (str(shelf["name"]) for shelf in shelves)
    return tuple([name for name in names if name not in STATUS][:GENRES])
