"""Files of one record a line, JSON or a Python literal, and interactions with the items of such a file."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers.reading import NO_ITEM, NO_TIME, NO_TITLE, NO_USER, NOT_LISTED, Ids, Rows, broken, lines
from rosepo_bench.data.types import RawInteractions, Source

LARGEST = 10**100  # of a number; a float goes on to infinity, and Python writes no number of thousands of digits


class Item(NamedTuple):
    """An item of a file. ``title`` is empty where there is none; ``hint`` tells it from others of its title; items of
    the same ``work`` are editions of one (empty: of none), of which the one with the most ``ratings`` names it."""

    title: str
    genres: tuple[str, ...]
    hint: str = ""
    work: tuple[str, ...] = ()
    ratings: int = 0


Catalogue = dict[str, Item]  # by the owner's id


@dataclass(slots=True)  # not frozen: one is made for each row, and a frozen one takes three times as long
class Record:
    """The fields of a record, and the file and line where it stands."""

    path: Path
    line: int
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A field as text, empty where it is absent, null, NaN or blank. UserError: it is neither text nor a number of
        ordinary length."""
        value = self.fields.get(name)
        if isinstance(value, str):
            return "" if value.isspace() else value
        if value is None or value != value:
            return ""
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= LARGEST:
            raise self.broken(f"{name} to be text or a number", name)
        return _written(value)

    def id(self, name: str) -> str:
        """As :meth:`text`; half a pair of surrogates, which JSON can spell and no file can hold, as its escape."""
        text = self.text(name)
        return text if text.isascii() else text.encode(errors="backslashreplace").decode()

    def broken(self, expected: str, *names: str) -> UserError:
        """The error for a record that is not as expected; it shows the fields ``names``."""
        return broken(self.path, self.line, expected, _written({name: self.fields.get(name) for name in names}))


def records(path: Path) -> Iterator[Record]:
    """The records of a plain or ``.gz`` file: each line is a JSON object or a Python dict literal, or blank. UserError:
    a line is neither."""
    for number, line in lines(path):
        if not line or line.isspace():
            continue
        fields = _parsed(line)
        if not isinstance(fields, dict):
            expected = "one record {'field': value, …} a line, as JSON or a Python literal"
            raise broken(path, number, expected, line, _cause(line))
        yield Record(path, number, fields)


class Interactions:
    """Collects interactions with the items of a catalogue, and counts those that cannot be used."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.listed = catalogue.keys()
        self.titled = {key: entry for key, entry in catalogue.items() if entry.title}
        self.position = {key: place for place, key in enumerate(self.titled)}
        self.users, self.rows = Ids(), Rows()

    def add(self, user: str, item: str, time: int | None) -> None:
        """``user`` and ``item`` are the owner's ids, empty for none; ``time`` is in unix seconds, None for none."""
        if not user:
            self.rows.leave_out(NO_USER)
        elif not item:
            self.rows.leave_out(NO_ITEM)
        elif time is None:
            self.rows.leave_out(NO_TIME)
        elif item not in self.position:
            self.rows.leave_out(NO_TITLE if item in self.listed else NOT_LISTED)
        else:
            self.rows.add(self.users(user), self.position[item], time)

    def finish(self, source: Source, paths: Mapping[str, Path], otherwise: str) -> RawInteractions:
        """The interactions of the file ``ratings`` with the items of ``items``. UserError: there are none;
        ``otherwise`` says what else than a truncated file may be why no interaction is with a listed item."""
        left_out = self.rows.left_out
        if not self.rows.user and not left_out:
            raise UserError(f"{paths['ratings']}: no interactions; the file is empty or truncated")
        if not self.rows.user and set(left_out) == {NOT_LISTED}:
            raise UserError(f"{paths['ratings']}: no row names an item of {paths['items']}: truncated, or {otherwise}")
        items = list(self.titled.values())
        titles, genres = tuple(item.title for item in items), tuple(item.genres for item in items)
        raw = self.rows.finish(source, self.users, self.titled, titles, genres)
        hints = tuple(item.hint for item in items)
        return replace(raw, hints=hints if any(hints) else (), works=_works(items))


def _works(items: list[Item]) -> Int64[np.ndarray, " items"] | None:
    """For each item the most rated edition of its work, of several the first. None: no item is of a work."""
    best: dict[tuple[str, ...], int] = {}
    for place, item in enumerate(items):
        if item.work and item.ratings > (items[best[item.work]].ratings if item.work in best else -1):
            best[item.work] = place
    works = (best.get(item.work, place) for place, item in enumerate(items))
    return np.fromiter(works, np.int64, len(items)) if best else None


def _written(value: object) -> str:
    """As text; in place of a number with more digits than Python writes, a remark."""
    try:
        return str(value)
    except ValueError:
        return "a number of thousands of digits"


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(line)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _cause(line: str) -> str:
    """What a line that is no record suggests; empty where it may be the part of one."""
    start = line.strip()
    if start == "{":
        return "its records spread over several lines: write each on one line"
    if start.startswith("["):
        return "it is a list: write one record a line"
    if start.startswith("<"):
        return "it is a web page: fetch the file itself"
    return "" if start.startswith("{") else "the file holds something else, as a csv table: take the owner's file"
