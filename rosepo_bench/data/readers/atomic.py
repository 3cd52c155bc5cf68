"""RecBole atomic files: ``NAME.inter`` and ``NAME.item``, tab-separated, with typed headers such as
``user_id:token``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers.columns import check_times
from rosepo_bench.data.readers.reading import Ids, Rows, broken, lines, with_year
from rosepo_bench.data.types import RawInteractions, Source

TITLES = ("title", "movie_title", "item_name", "name")
YEARS = ("release_year", "year")
GENRES = ("genre", "genres", "class", "categories", "category")
TYPES = ("token", "token_seq", "float", "float_seq")


def read(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: the .inter file (user_id, item_id, timestamp in unix seconds; fractions are cut off);
    ``items``: the .item file with a title column, and a year appended to the title where there is one."""
    catalogue = _items(paths["items"])
    position = {key: index for index, key in enumerate(catalogue)}
    users, rows = Ids(), Rows()
    path = paths["ratings"]
    columns, body = _table(path, ("user_id", "item_id", "timestamp"))
    at_user, at_item, at_time = (columns[name] for name in ("user_id", "item_id", "timestamp"))
    for number, fields in body:
        item = position.get(fields[at_item])
        if item is None:
            raise UserError(f"{path}, line {number}: item {fields[at_item]!r} is not in {paths['items']}")
        try:
            rows.add(users(fields[at_user]), item, int(float(fields[at_time])))
        except (ValueError, OverflowError):
            raise broken(path, number, "a timestamp in unix seconds", fields[at_time]) from None
    if not len(users):
        raise UserError(f"{path}: no interactions below the header; the file is truncated")
    check_times(path, np.array(rows.time, dtype=np.int64), header=1)
    titles, genres = zip(*catalogue.values(), strict=True)
    return rows.finish(source, users, titles, genres)


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


def _items(path: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    columns, body = _table(path, ("item_id",))
    titles, years, genres = (_first(columns, names) for names in (TITLES, YEARS, GENRES))
    if titles is None:
        raise UserError(
            f"{path}: no column with titles: a language model reads titles, so one of {', '.join(TITLES)} "
            f"must be there; found {', '.join(columns)}"
        )
    catalogue: dict[str, tuple[str, tuple[str, ...]]] = {}
    for number, fields in body:
        title = with_year(fields[titles], fields[years] if years is not None else "")
        if not title:
            raise broken(path, number, "a title", "\t".join(fields))
        if fields[columns["item_id"]] in catalogue:
            raise broken(path, number, "an item_id that has not come before", fields[columns["item_id"]])
        catalogue[fields[columns["item_id"]]] = (
            title,
            tuple(fields[genres].split()) if genres is not None else (),
        )
    return catalogue


def _first(columns: Mapping[str, int], names: tuple[str, ...]) -> int | None:
    return next((columns[name] for name in names if name in columns), None)


def _table(path: Path, needed: tuple[str, ...]) -> tuple[dict[str, int], Iterator[tuple[int, list[str]]]]:
    """Column positions by name, and the numbered rows split at tabs."""
    body = lines(path)
    _, header = next(body, (1, ""))
    names = [name.partition(":") for name in header.split("\t")]
    if not all(colon and kind in TYPES for _, colon, kind in names):
        raise broken(path, 1, "a header of name:type columns separated by tabs, e.g. user_id:token", header)
    columns = {name: position for position, (name, _, _) in enumerate(names)}
    missing = [name for name in needed if name not in columns]
    if missing:
        raise UserError(f"{path}: needs the column(s) {', '.join(missing)}; found {', '.join(columns)}")
    return columns, _split(path, body, len(names))


def _split(path: Path, body: Iterator[tuple[int, str]], width: int) -> Iterator[tuple[int, list[str]]]:
    for number, line in body:
        fields = line.split("\t")
        if len(fields) != width:
            raise broken(path, number, f"{width} fields separated by tabs", line)
        yield number, fields
