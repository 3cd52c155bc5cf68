"""Steam reviews collected at UCSD: the full dump (Kang and McAuley, arXiv 1808.09781) and the Australian
users' table.

A review is an interaction, whether it recommends the game or not. Dates have the resolution of a day."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers.reading import Ids, Rows, broken, clean, csv_rows, day, lines
from rosepo_bench.data.types import RawInteractions, Source

AUSTRALIAN = ["user", "item_id", "date", "recommend", "title"]


def read_dump(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: steam_reviews.json[.gz], one Python literal a line (username, product_id, date, …);
    ``items``: steam_games.json[.gz] (id, title or app_name, genres). Reviews of games without a title are
    left out and counted."""
    games = _games(paths["items"])
    position = {key: index for index, key in enumerate(games)}
    users, rows, dates, path = Ids(), Rows(), _Days(), paths["ratings"]
    left_out, nameless = 0, set()
    for number, review in _literals(path):
        user, product = review.get("username"), review.get("product_id")
        try:
            when = dates[review["date"]]
        except (ValueError, KeyError, TypeError):
            raise broken(path, number, "a review with a date YYYY-MM-DD", _shown(review)) from None
        if not isinstance(user, str) or not product:
            raise broken(path, number, "a review with username and product_id", _shown(review))
        item = position.get(str(product))
        if item is None:
            left_out += 1
            nameless.add(str(product))
        else:
            rows.add(users(user), item, when)
    if not len(users):
        raise UserError(f"{path}: no review of a game in {paths['items']}: truncated, or not the same release")
    if left_out:
        games_file = paths["items"].name
        note = f"left out: {left_out} reviews of {len(nameless)} games without a title in {games_file}"
        source = replace(source, note=note)
    titles, genres = zip(*games.values(), strict=True)
    return rows.finish(source, users, titles, genres)


def read_australian(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: a csv ``user,item_id,date,recommend,title``; a game must have the same title in all rows."""
    path = paths["ratings"]
    users, items, rows, dates = Ids(), Ids(), Rows(), _Days()
    titles: list[str] = []
    for number, row in csv_rows(path, AUSTRALIAN):
        title = clean(row[4])
        try:
            when = dates[row[2]]
        except ValueError:
            raise broken(path, number, "a date YYYY-MM-DD", row[2]) from None
        if not row[0] or not row[1] or not title:
            raise broken(path, number, ",".join(AUSTRALIAN) + ", none of them empty", ",".join(row))
        item = items(row[1])
        if item == len(titles):
            titles.append(title)
        elif titles[item] != title:
            raise broken(path, number, f"item {row[1]} to keep its title {titles[item]!r}", title)
        rows.add(users(row[0]), item, when)
    if not titles:
        raise UserError(f"{path}: no reviews below the header; the file is truncated")
    return rows.finish(source, users, tuple(titles), ((),) * len(titles))


class _Days(dict[str, int]):
    """Unix seconds by date: a few thousand days serve millions of rows. ValueError for what is not a date."""

    def __missing__(self, text: str) -> int:
        self[text] = day(text)
        return self[text]


def _games(path: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    games: dict[str, tuple[str, tuple[str, ...]]] = {}
    for number, game in _literals(path):
        title, genres = clean(str(game.get("title") or game.get("app_name") or "")), game.get("genres") or ()
        if not isinstance(genres, list | tuple):
            raise broken(path, number, "a list of genres", _shown(game))
        if title and game.get("id"):  # the dump has a few games without id or title: no review can name them
            games[str(game["id"])] = title, tuple(str(genre) for genre in genres)
    return games


def _literals(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines(path):
        try:
            value = ast.literal_eval(line)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise broken(path, number, "one Python literal {'field': value, …} a line", line)
        yield number, value


def _shown(record: Mapping[str, Any]) -> str:
    """A record without its text, for an error."""
    shown = ("username", "product_id", "date", "id", "title", "genres")
    return str({key: record[key] for key in shown if key in record})
