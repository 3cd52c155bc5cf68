"""Tiny valid raw files of every reader: six users who each take six of nine items, with odd but right titles."""

from __future__ import annotations

import calendar
import gzip
import json
import time
from dataclasses import dataclass

USERS, ITEMS, EACH = 6, 9, 6
START = calendar.timegm((2011, 11, 5, 12, 0, 0))
DAY = 86_400
TITLES = ("Toy Story (1995)", "Misérables, Les (1995)", "Star Wars: Episode IV (1977)", "[REC]", "C|net", "100%",
          "Solo", "It's \"quoted\"", "Zeno Clash")  # fmt: skip
ROWS = [
    (user, (user * 2 + place) % ITEMS, START + (user * 7 + place) * DAY)
    for user in range(USERS)
    for place in range(EACH)
]


@dataclass(frozen=True)
class RawSet:
    """A data set of the profile: its section there, and its files as they lie in a data folder."""

    name: str
    section: str
    files: dict[str, bytes]


def _day(when: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(when))


def _jsonl(*records: object) -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records).encode()


def _title(item: int) -> str:
    return TITLES[item].replace("|", "/")


def _ml_100k() -> dict[str, bytes]:
    flags = "|".join("1" if place == 1 else "0" for place in range(19))
    items = "".join(f"{item + 1}|{_title(item)}|01-Jan-1995||http://x|{flags}\n" for item in range(ITEMS))
    rows = "".join(f"{user + 1}\t{item + 1}\t3\t{when}\n" for user, item, when in ROWS)
    return {"u.data": rows.encode(), "u.item": items.encode("latin-1")}


def _ml_1m() -> dict[str, bytes]:
    items = "".join(f"{item + 1}::{TITLES[item]}::Drama|Comedy\n" for item in range(ITEMS))
    rows = "".join(f"{user + 1}::{item + 1}::3::{when}\n" for user, item, when in ROWS)
    return {"ratings.dat": rows.encode(), "movies.dat": items.encode()}


def _ml_csv() -> dict[str, bytes]:
    def quoted(title: str) -> str:
        return '"' + title.replace('"', '""') + '"'

    items = "".join(f"{item + 1},{quoted(TITLES[item])},Drama|Comedy\n" for item in range(ITEMS))
    rows = "".join(f"{user + 1},{item + 1},3.5,{when}\n" for user, item, when in ROWS)
    return {
        "ratings.csv": b"userId,movieId,rating,timestamp\n" + rows.encode(),
        "movies.csv": b"movieId,title,genres\n" + items.encode(),
    }


def _games() -> bytes:
    games = (
        {"id": str(item + 1), "title": TITLES[item], "genres": ["Action"], "release_date": "1995"}
        for item in range(ITEMS)
    )
    return "".join(f"{game!r}\n" for game in games).encode()


def _steam() -> dict[str, bytes]:
    reviews = ({"username": f"u{user}", "product_id": str(item + 1), "date": _day(when)} for user, item, when in ROWS)
    return {"steam_reviews.json": "".join(f"{one!r}\n" for one in reviews).encode(), "steam_games.json": _games()}


def _australian() -> dict[str, bytes]:
    def posted(when: int) -> str:
        return time.strftime("Posted %B %d, %Y.", time.gmtime(when))

    users = (
        {
            "user_id": f"u{user}",
            "reviews": [
                {"item_id": str(i + 1), "posted": posted(when), "recommend": True} for u, i, when in ROWS if u == user
            ],
        }
        for user in range(USERS)
    )
    reviews = "".join(f"{one!r}\n" for one in users).encode()
    return {
        "australian_user_reviews.json.gz": gzip.compress(reviews, 1, mtime=0),
        "steam_games.json.gz": gzip.compress(_games(), 1, mtime=0),
    }


def _steam_table() -> dict[str, bytes]:
    rows = "".join(f"u{user},{item + 1},{_day(when)},True,Game {item}\n" for user, item, when in ROWS)
    return {"reviews.csv": b"user,item_id,date,recommend,title\n" + rows.encode()}


def _goodreads() -> dict[str, bytes]:
    shelves = [{"count": "9", "name": "to-read"}, {"count": "5", "name": "poetry"}]
    books = (
        {"book_id": str(item + 1), "title": TITLES[item], "popular_shelves": shelves, "authors": [{"author_id": "7"}],
         "work_id": str(item + 100), "ratings_count": "12", "publication_year": "1995"}
        for item in range(ITEMS)
    )  # fmt: skip
    rows = (
        {
            "user_id": f"u{user}",
            "book_id": str(item + 1),
            "date_added": time.strftime("%a %b %d %H:%M:%S -0700 %Y", time.gmtime(when)),
        }
        for user, item, when in ROWS
    )
    return {
        "goodreads_interactions_poetry.json.gz": gzip.compress(_jsonl(*rows), 1, mtime=0),
        "goodreads_books_poetry.json": _jsonl(*books),
    }


def _atomic() -> dict[str, bytes]:
    rows = "".join(f"u{user}\t{item + 1}\t3\t{when}\n" for user, item, when in ROWS)
    items = "".join(f"{item + 1}\t{TITLES[item]}\t1995\tDrama Comedy\n" for item in range(ITEMS))
    return {
        "mine.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + rows.encode(),
        "mine.item": b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n" + items.encode(),
    }


def _set(name: str, files: dict[str, bytes], source: str = "", more: str = "") -> RawSet:
    lines = [f"[datasets.{name}]", f'source = "{source or name}"', "candidates = 4", 'synthetic = "never"', more]
    return RawSet(name, "\n".join(lines) + "\n", files)


SETS = (
    _set("ml-100k", _ml_100k()),
    _set("ml-1m", _ml_1m()),
    _set("ml-latest-small", _ml_csv()),
    _set("steam", _steam()),
    _set("australian", _australian(), "steam-australian"),
    _set("table", _steam_table(), "steam-australian"),
    _set("goodreads", _goodreads()),
    _set("mine", _atomic(), "atomic", 'path = "DATA/mine"'),
)
HEAD = 'about = "fuzz"\nseeds = 1\nthreads = 1\nmethods = ["popularity"]\n\n'
