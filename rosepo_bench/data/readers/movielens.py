"""MovieLens as GroupLens publishes it: 100K (tabs and pipes), 1M (``::``), and the csv releases
(latest-small, 25M, 32M).

Harper and Konstan, ACM TiiS 5(4), 2015. Every rating is an interaction, whatever its value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers.columns import check_times, integer_columns, reindex
from rosepo_bench.data.readers.reading import broken, clean, csv_rows, lines
from rosepo_bench.data.types import RawInteractions, Source

GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
Movies = Iterator[tuple[int, int, str, tuple[str, ...]]]  # line, id, title, genres


def read_100k(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: u.data (``user item rating time``, tabs); ``items``: u.item (24 fields, pipes,
    latin-1)."""
    table = integer_columns(paths["ratings"], "\t", (0, 1, 3))
    return _join(paths, source, table, 0, _movies_100k(paths["items"]))


def read_1m(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: ratings.dat (``user::item::rating::time``); ``items``: movies.dat
    (``item::title::genres``, latin-1)."""
    fields = (0, 2, 6)  # numpy splits at single characters: `::` gives empty fields
    table = integer_columns(paths["ratings"], ":", fields)
    return _join(paths, source, table, 0, _movies_1m(paths["items"]))


def read_csv(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: ratings.csv (``userId,movieId,rating,timestamp`` and perhaps further columns, which are
    not read); ``items``: movies.csv (``movieId,title,genres``)."""
    header = ["userId", "movieId", "rating", "timestamp"]
    next(csv_rows(paths["ratings"], header, exact=False), None)  # refuses another header
    table = integer_columns(paths["ratings"], ",", (0, 1, 3), header=1)
    return _join(paths, source, table, 1, _movies_csv(paths["items"]))


def _join(
    paths: Mapping[str, Path], source: Source, table: Int64[np.ndarray, "rows 3"], header: int, movies: Movies
) -> RawInteractions:
    if not len(table):
        raise UserError(f"{paths['ratings']}: no ratings in it; the file is truncated: fetch it again")
    check_times(paths["ratings"], table[:, 2], header)
    users, user = reindex(table[:, 0])
    rated, _ = reindex(table[:, 1])
    catalogue = _catalogue(paths["items"], movies)
    order = np.array(sorted(catalogue), dtype=np.int64)
    unknown = np.setdiff1d(rated, order)
    if len(unknown):
        line = int(np.flatnonzero(table[:, 1] == unknown[0])[0]) + header + 1
        raise UserError(
            f"{paths['ratings']}, line {line}: movie {unknown[0]} is not in {paths['items']}; "
            "the two files do not belong together, or one is truncated"
        )
    titles, genres = zip(*(catalogue[key] for key in order.tolist()), strict=True)
    item = np.searchsorted(order, table[:, 1])
    names = tuple(str(name) for name in users.tolist())
    return RawInteractions(source, user, item, table[:, 2].copy(), names, titles, genres)


def _catalogue(path: Path, movies: Movies) -> dict[int, tuple[str, tuple[str, ...]]]:
    catalogue: dict[int, tuple[str, tuple[str, ...]]] = {}
    for number, key, title, genres in movies:
        if key in catalogue or not title:
            raise broken(path, number, "an id that has not come before, and its title", f"{key} {title}")
        catalogue[key] = title, genres
    return catalogue


def _movies_100k(path: Path) -> Movies:
    for number, line in lines(path, "latin-1"):
        fields = line.split("|")
        if len(fields) != 5 + len(GENRES_100K) or not fields[0].isdigit() or set(fields[5:]) - {"0", "1"}:
            raise broken(path, number, "id|title|date|date|url|19 genre flags", line)
        flags = zip(GENRES_100K, fields[5:], strict=True)
        genres = tuple(genre for genre, flag in flags if flag == "1")
        yield number, int(fields[0]), clean(fields[1]), genres


def _movies_1m(path: Path) -> Movies:
    for number, line in lines(path, "latin-1"):
        fields = line.split("::")
        if len(fields) != 3 or not fields[0].isdigit() or not fields[2]:
            raise broken(path, number, "id::title::genres", line)
        yield number, int(fields[0]), clean(fields[1]), tuple(fields[2].split("|"))


def _movies_csv(path: Path) -> Movies:
    header = ["movieId", "title", "genres"]
    for number, (key, title, genres) in csv_rows(path, header):
        if not key.isdigit() or not clean(title) or not genres:
            raise broken(path, number, ",".join(header), ",".join((key, title, genres)))
        known = () if genres == "(no genres listed)" else tuple(genres.split("|"))
        yield number, int(key), clean(title), known
