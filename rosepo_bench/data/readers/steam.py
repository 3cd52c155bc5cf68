"""Steam reviews collected at UCSD: the full dump (Kang and McAuley, arXiv 1808.09781) and the Australian users'
reviews, as the owner's files and as a table.

A review is an interaction, whether it recommends the game or not. Dates have the resolution of a day. Reviews without a
user, a game, its title or a date are left out and counted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers.reading import (
    NO_ITEM,
    NO_TIME,
    NO_TITLE,
    NO_USER,
    Ids,
    Rows,
    broken,
    clean,
    csv_rows,
    day,
    missing,
)
from rosepo_bench.data.readers.records import Catalogue, Interactions, Item, Record, records
from rosepo_bench.data.types import RawInteractions, Source

AUSTRALIAN = ["user", "item_id", "date", "recommend", "title"]
LACKING = {0: NO_USER, 1: NO_ITEM, 2: NO_TIME, 4: NO_TITLE}  # by column
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
MONTH = {name: number for number, name in enumerate(MONTHS, start=1)}
YEAR = re.compile(r"[12][0-9]{3}(?![0-9])")
POSTED = re.compile(r"Posted ([A-Z][a-z]+) ([0-9]{1,2})(?:, ([0-9]{4}))?\.")


def read_dump(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: steam_reviews.json[.gz], one record a line (username, product_id, date, …); ``items``:
    steam_games.json[.gz] (id, title or app_name, genres)."""
    interactions, dates = Interactions(_games(paths["items"])), _Days()
    for review in records(paths["ratings"]):
        date = review.text("date")
        try:
            when = dates[date] if date else None
        except ValueError:
            raise review.broken("a review with a date YYYY-MM-DD", "username", "product_id", "date") from None
        interactions.add(review.id("username"), review.id("product_id"), when)
    return interactions.finish(source, paths, "not the same release")


def read_australian(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: australian_user_reviews.json[.gz], one user a line (user_id, reviews [{item_id, posted, …}, …]);
    ``items``: steam_games.json[.gz]. Reviews of the year in which they were collected have a date without a year."""
    interactions, dates = Interactions(_games(paths["items"])), _Posted()
    for user in records(paths["ratings"]):
        reviews = user.fields.get("reviews")
        if not isinstance(reviews, list) or not all(isinstance(fields, dict) for fields in reviews):
            raise user.broken("a user with reviews [{item_id, posted, …}, …]", "user_id", "reviews")
        for fields in reviews:
            review = Record(user.path, user.line, fields)
            posted = review.text("posted")
            try:
                when = dates[posted] if posted else None
            except (ValueError, KeyError):
                raise review.broken("'Posted November 5, 2011.' or 'Posted July 3.'", "posted", "item_id") from None
            interactions.add(user.id("user_id"), review.id("item_id"), when)
    return interactions.finish(source, paths, "not the same release")


def read_table(paths: Mapping[str, Path], source: Source) -> RawInteractions:
    """``ratings``: a csv ``user,item_id,date,recommend,title``; a game must have the same title in all rows."""
    path = paths["ratings"]
    users, items, rows, dates = Ids(), Ids(), Rows(), _Days()
    titles: list[str] = []
    for number, row in csv_rows(path, AUSTRALIAN):
        title = clean(row[4])
        if lacking := [why for column, why in LACKING.items() if missing(title if column == 4 else row[column])]:
            rows.leave_out(lacking[0])
            continue
        try:
            when = dates[row[2]]
        except ValueError:
            raise broken(path, number, "a date YYYY-MM-DD", row[2]) from None
        item = items(row[1])
        if item == len(titles):
            titles.append(title)
        elif titles[item] != title:
            raise broken(path, number, f"item {row[1]!r} to keep its title {titles[item]!r}", title)
        rows.add(users(row[0]), item, when)
    if not rows.user and not rows.left_out:
        raise UserError(f"{path}: no reviews below the header; the file is truncated")
    return rows.finish(source, users, items.names, tuple(titles), ((),) * len(titles))


class _Days(dict[str, int]):
    """Unix seconds by date: a few thousand days serve millions of rows. ValueError for what is not a date."""

    def __missing__(self, text: str) -> int:
        self[text] = day(text)
        return self[text]


class _Posted(dict[str, int | None]):
    """Unix seconds by `Posted November 5, 2011.`, None without a year. ValueError or KeyError for what is neither."""

    def __missing__(self, text: str) -> int | None:
        found = POSTED.fullmatch(text)
        if found is None:
            raise ValueError(text)
        month, number, year = found.groups(default="")
        when = day(f"{year or 2000}-{MONTH[month]:02}-{int(number):02}")  # a leap year: any day of a year is one of it
        self[text] = when if year else None
        return self[text]


def _games(path: Path) -> Catalogue:
    games: Catalogue = {}
    for game in records(path):
        genres = game.fields.get("genres") or ()
        if not isinstance(genres, list | tuple):
            raise game.broken("a list of genres", "id", "title", "genres")
        key, title = game.id("id"), clean(game.text("title") or game.text("app_name"))
        if key and (title or key not in games):  # the dump has a few games without an id: no review can name them
            year = YEAR.match(game.text("release_date"))
            games[key] = Item(title, tuple(str(genre) for genre in genres), hint=year[0] if year else "")
    return games
