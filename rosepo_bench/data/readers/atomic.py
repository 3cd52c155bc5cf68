"""RecBole atomic files: ``NAME.inter`` and ``NAME.item``, tab-separated, with typed headers such as
``user_id:token``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers import reading, times
from rosepo_bench.data.readers.reading import Ids, Rows, broken, clean, missing, with_year
from rosepo_bench.data.readers.records import Catalogue, Item
from rosepo_bench.data.readers.tabs import Table
from rosepo_bench.data.types import RawInteractions, Source

NAMES: Mapping[str, Sequence[str]] = {  # of each column, best first
    "user_id": ("user_id",),
    "item_id": ("item_id",),
    "timestamp": ("timestamp",),
    "title": ("title", "movie_title", "item_name", "name"),
    "year": ("release_year", "year"),
    "author": ("author", "authors"),
    "genre": ("genre", "genres", "class", "categories", "category"),
}


def read(
    paths: Mapping[str, Path],
    source: Source,
    time_unit: str = "seconds",
    columns: Mapping[str, str | Sequence[str]] | None = None,
) -> RawInteractions:
    """``ratings``: the .inter file (user_id, item_id, timestamp); ``items``: the .item file with a title column, and a
    year appended to the title where there is one; an author tells items of one title apart. ``time_unit`` of the
    timestamps: ``seconds``, ``milliseconds`` or ``order``. ``columns``: the files' own names of columns in NAMES; of
    several, the first that a file has is read. Rows without an id, a time or an item's title are left out and
    counted."""
    own = {key: [name] if isinstance(name, str) else name for key, name in (columns or {}).items()}
    names = {**NAMES, **own}
    catalogue = _items(Table(paths["items"]), names)
    titled = {key: item for key, item in catalogue.items() if item.title}
    position = {key: place for place, key in enumerate(titled)}
    users, rows, table = Ids(), Rows(time_unit), Table(paths["ratings"])
    places = [table.needed(key, names[key]) for key in ("user_id", "item_id", "timestamp")]
    for number, fields in table:
        user, key, time = (fields[place] for place in places)
        if why := _lack(user, key, time, catalogue):
            rows.leave_out(why)
            continue
        try:
            when = times.parse(time, time_unit)
        except ValueError:
            raise _no_time(table.path, number, time, time_unit) from None
        rows.add(users(user), position[key], when)
    if not rows.user and not rows.left_out:
        raise UserError(f"{table.path}: no interactions below the header")
    items = titled.values()
    titles, genres = tuple(item.title for item in items), tuple(item.genres for item in items)
    raw = rows.finish(source, users, titled, titles, genres)
    return replace(raw, hints=tuple(item.hint for item in items), dated=time_unit != "order")


def locate(prefix: Path) -> tuple[Path, Path]:
    """The .inter and .item files of ``prefix``: ``DIR/NAME`` with ``DIR/NAME.inter``, or a folder
    ``DIR/NAME`` holding it."""
    for base in (prefix, prefix / prefix.name):
        inter, item = (base.with_name(base.name + suffix) for suffix in (".inter", ".item"))
        if inter.is_file() and item.is_file():
            return inter, item
    raise UserError(
        f"atomic files of {prefix}: put {prefix}.inter and {prefix}.item there (or both, under that name, "
        f"in the folder {prefix})"
    )


def _items(table: Table, names: Mapping[str, Sequence[str]]) -> Catalogue:
    ids = table.needed("item_id", (*names["item_id"], "item_id", "id"))  # whose else, in a file of items
    titles = table.needed("title", names["title"])
    years, authors, genres = (table.place(names[key]) for key in ("year", "author", "genre"))
    catalogue: Catalogue = {}
    for number, fields in table:
        key, title = fields[ids], fields[titles]
        if missing(key):
            continue  # no row can name it
        if key in catalogue:
            cause = "delete one of the two lines"
            raise broken(table.path, number, "an item_id that has not come before", key, cause)
        year, author, labels = (_given(fields, place) for place in (years, authors, genres))
        title = "" if missing(title) else with_year(title, year)
        catalogue[key] = Item(title, tuple(labels.split()), hint=author)
    if not any(item.title for item in catalogue.values()):
        raise UserError(f"{table.path}: no item has a title below the header")
    return catalogue


def _given(fields: Sequence[str], place: int | None) -> str:
    """A field that a file may lack, empty where it does."""
    return "" if place is None or missing(fields[place]) else clean(fields[place])


def _lack(user: str, key: str, time: str, catalogue: Catalogue) -> str:
    """Why a row is left out; empty where it is not."""
    if missing(user):
        return reading.NO_USER
    if missing(key):
        return reading.NO_ITEM
    if missing(time):
        return reading.NO_TIME
    if key not in catalogue:
        return reading.NOT_LISTED
    return "" if catalogue[key].title else reading.NO_TITLE


def _no_time(path: Path, number: int, found: str, unit: str) -> UserError:
    if unit == "order":
        return broken(path, number, 'a whole number, as time_unit = "order" says', found, "correct it")
    cause = "write numbers; a date of pandas becomes seconds with .timestamp()"
    return broken(path, number, f"a timestamp in unix {unit}", found, cause)
