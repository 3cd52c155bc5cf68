"""MovieLens as GroupLens publishes it: 100K (tabs and pipes), 1M (``::``), and the csv releases
(latest-small, 25M, 32M).

Harper and Konstan, ACM TiiS 5(4), 2015. Every rating is an interaction, whatever its value. Ratings without an id, a
time or a movie's title are left out and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers import reading
from rosepo_bench.data.readers.columns import MOST_DIGITS, integer_columns, reindex
from rosepo_bench.data.readers.reading import broken, clean, csv_rows, cut_off, lines, missing
from rosepo_bench.data.readers.times import implausible, plausible
from rosepo_bench.data.types import RawInteractions, Source

GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
Catalogue = dict[int, tuple[str, tuple[str, ...]]]  # title (empty where it has none) and genres by id
Movies = Iterator[tuple[int, str, str, tuple[str, ...]]]  # line, id, title (empty where it has none), genres
WHY = (reading.NO_USER, reading.NO_ITEM, reading.NO_TIME)


def read_100k(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: u.data (``user item rating time``, tabs); ``items``: u.item (24 fields, pipes, latin-1 or
    UTF-8)."""
    return _join(paths, source, "\t", (0, 1, 3), 0, _movies_100k(paths["items"]))


def read_1m(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: ratings.dat (``user::item::rating::time``); ``items``: movies.dat (``item::title::genres``, latin-1
    or UTF-8)."""
    fields = (0, 2, 6)  # numpy splits at single characters: `::` gives empty fields
    return _join(paths, source, ":", fields, 0, _movies_1m(paths["items"]))


def read_csv(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: ratings.csv (``userId,movieId,rating,timestamp`` and perhaps further columns, which are
    not read); ``items``: movies.csv (``movieId,title,genres``)."""
    header = ["userId", "movieId", "rating", "timestamp"]
    next(csv_rows(paths["ratings"], header, exact=False), None)  # refuses another header
    return _join(paths, source, ",", (0, 1, 3), 1, _movies_csv(paths["items"]))


def _join(
    paths: Mapping[str, Path], source: Source, separator: str, fields: tuple[int, int, int], header: int, movies: Movies
) -> RawInteractions:
    path = paths["ratings"]
    table, left_out = integer_columns(path, separator, dict(zip(fields, WHY, strict=True)), header)
    if not len(table) and not left_out:
        raise UserError(f"{path}: no ratings in it; the file is truncated: fetch it again")
    catalogue = _catalogue(paths["items"], movies)
    table = _titled(_in_time(path, table, header, left_out), catalogue, left_out)
    order = np.array(sorted(key for key, (title, _) in catalogue.items() if title), dtype=np.int64)
    users, user = reindex(table[:, 0])
    titles = tuple(catalogue[key][0] for key in order.tolist())
    genres = tuple(reading.labels(catalogue[key][1]) for key in order.tolist())
    item = np.searchsorted(order, table[:, 1])
    names = tuple(str(name) for name in users.tolist())
    ids = tuple(str(key) for key in order.tolist())
    raw = RawInteractions(source, user, item, table[:, 2].copy(), names, titles, genres, item_ids=ids)
    return reading.noted(raw, left_out)


def _in_time(
    path: Path, table: Int64[np.ndarray, "rows 3"], header: int, left_out: Counter[str]
) -> Int64[np.ndarray, "kept 3"]:
    """The rows within the limits of time. UserError: there is none, or the file ends in the middle of a time."""
    good = plausible(table[:, 2])
    if len(good) and not good.any():
        raise implausible(str(path), int(table[-1, 2]))
    last = header + len(table) + left_out.total()
    if not good[-1:].all() and cut_off(path, last):
        raise broken(path, last, "a time in unix seconds", str(table[-1, 2]))
    left_out[reading.BAD_TIME] += int((~good).sum())
    return table if good.all() else table[good]  # no second copy of a large table


def _titled(
    table: Int64[np.ndarray, "rows 3"], catalogue: Catalogue, left_out: Counter[str]
) -> Int64[np.ndarray, "kept 3"]:
    """The rows of movies that have a title."""
    rated, index = reindex(table[:, 1])
    listed = np.array([key in catalogue for key in rated.tolist()], dtype=bool)
    titled = np.array([bool(catalogue.get(key, ("",))[0]) for key in rated.tolist()], dtype=bool)
    left_out[reading.NOT_LISTED] += int((~listed[index]).sum())
    left_out[reading.NO_TITLE] += int((listed & ~titled)[index].sum())
    return table if titled.all() else table[titled[index]]


def _catalogue(path: Path, movies: Movies) -> Catalogue:
    catalogue: Catalogue = {}
    for number, key, title, genres in movies:
        if missing(key):
            continue  # no rating can name it
        if not key.isdecimal() or len(key) > MOST_DIGITS or int(key) in catalogue:
            raise broken(path, number, f"a number of at most {MOST_DIGITS} digits that has not come before, as id", key)
        catalogue[int(key)] = "" if missing(title) else clean(title), genres
    return catalogue


def _movies_100k(path: Path) -> Movies:
    for number, line in lines(path, "latin-1"):
        fields = line.split("|")
        if len(fields) != 5 + len(GENRES_100K) or set(fields[5:]) - {"0", "1"}:
            raise broken(path, number, "id|title|date|date|url|19 genre flags", line)
        flags = zip(GENRES_100K, fields[5:], strict=True)
        genres = tuple(genre for genre, flag in flags if flag == "1")
        yield number, fields[0], fields[1], genres


def _movies_1m(path: Path) -> Movies:
    for number, line in lines(path, "latin-1"):
        fields = line.split("::")
        if len(fields) != 3 or not fields[2]:
            raise broken(path, number, "id::title::genres", line)
        yield number, fields[0], fields[1], tuple(fields[2].split("|"))


def _movies_csv(path: Path) -> Movies:
    header = ["movieId", "title", "genres"]
    for number, (key, title, genres) in csv_rows(path, header):
        if not genres:
            raise broken(path, number, ",".join(header), ",".join((key, title, genres)))
        known = () if genres == "(no genres listed)" else tuple(genres.split("|"))
        yield number, key, title, known
