"""The Steam and Goodreads readers on small handwritten files, plain and gzipped, whole and broken."""

from __future__ import annotations

import gzip
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers import goodreads, steam
from rosepo_bench.data.types import RawInteractions, Source

SOURCE = Source("tiny", "real")
REVIEWS = (
    "{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41, u'product_id': u'725280', "
    "u'page_order': 0, u'date': u'2017-12-17', "
    "u'text': u\"It's 'date': u'2001-01-01'\", u'early_access': False, u'page': 1}\n"
    "{'username': 'b', 'user_id': '7', 'product_id': '10', 'date': '2010-10-15', 'text': ''}\n"
    "{'username': 'Chaos Syren', 'product_id': '999', 'date': '2010-10-15', 'text': ''}\n"
)
GAMES = (
    "{u'genres': [u'Action', u'Indie'], u'title': u'Lost  Kitty', u'id': u'725280', u'price': 4.99}\n"
    "{u'app_name': u'Counter-Strike', u'id': u'10'}\n"
    "{u'url': u'no id and no title'}\n"
)
ADDED = "Fri Apr 19 08:15:15 -0700 2013"
ROW = {"user_id": "80d5", "book_id": "402128", "is_read": True, "date_added": ADDED, "read_at": ""}
BOOK = {
    "book_id": "402128",
    "title": "The Hunger Games (The Hunger Games, #1)",
    "title_without_series": "The Hunger Games",
    "publication_year": "2008",
    "popular_shelves": [{"count": "9", "name": name} for name in ("to-read", "dystopia", "owned", "young-adult")],
}


def write(path: Path, text: str) -> Path:
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as handle:
            handle.write(text)
    else:
        path.write_text(text, encoding="utf-8")
    return path


def pair(folder: Path, ratings: str, items: str, end: str = ".json") -> dict[str, Path]:
    return {"ratings": write(folder / f"r{end}", ratings), "items": write(folder / f"i{end}", items)}


def jsonl(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def rows(raw: RawInteractions) -> list[tuple[str, str, int]]:
    columns = zip(raw.user.tolist(), raw.item.tolist(), raw.time.tolist(), strict=True)
    return [(raw.user_ids[user], raw.titles[item], time) for user, item, time in columns]


@pytest.mark.parametrize("end", [".json", ".json.gz"])
def test_steam_dump(tmp_path: Path, end: str) -> None:
    raw = steam.read_dump(pair(tmp_path, REVIEWS, GAMES, end), SOURCE)
    assert rows(raw) == [("Chaos Syren", "Lost Kitty", 1513468800), ("b", "Counter-Strike", 1287100800)]
    assert raw.genres == (("Action", "Indie"), ())
    assert "1 reviews of 1 games without a title" in raw.source.note


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ("{'username': 'b', 'product_id': '10', 'date': '2010-10", "one Python literal"),
        ("['username']", "one Python literal"),
        ("__import__('os')", "one Python literal"),
        ("{'username': 'b', 'product_id': '10', 'date': 'October'}", "a review with a date YYYY-MM-DD"),
        ("{'username': 'b', 'product_id': '10', 'date': ['2010-10-15']}", "a review with a date"),
        ("{'product_id': '10', 'date': '2010-10-15'}", "a review with username and product_id"),
    ],
)
def test_a_bad_steam_line_is_named(tmp_path: Path, bad: str, expected: str) -> None:
    paths = pair(tmp_path, REVIEWS + bad + "\n", GAMES)
    with pytest.raises(UserError, match=re.escape(f"{paths['ratings']}, line 4: expected {expected}")):
        steam.read_dump(paths, SOURCE)


def test_a_truncated_gzip_names_the_line_it_broke_at(tmp_path: Path) -> None:
    paths = pair(tmp_path, REVIEWS * 2000, GAMES, ".json.gz")
    whole = paths["ratings"].read_bytes()
    paths["ratings"].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"r\.json\.gz, line \d+: expected more of the gzip stream"):
        steam.read_dump(paths, SOURCE)
    paths["ratings"].write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"r\.json\.gz, line 1: expected more of the gzip stream"):
        steam.read_dump(paths, SOURCE)


def test_reviews_that_fit_no_game_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no review of a game"):
        steam.read_dump(pair(tmp_path, REVIEWS, "{'id': '5', 'title': 'Else'}\n"), SOURCE)


HEADER = "user,item_id,date,recommend,title\n"


def test_steam_australian(tmp_path: Path) -> None:
    table = HEADER + '0,22200,2011-07-15,True,Zeno Clash\n1,239030,2013-11-29,False,"Papers, Please"\n'
    raw = steam.read_australian({"ratings": write(tmp_path / "reviews.csv", table)}, SOURCE)
    assert rows(raw) == [("0", "Zeno Clash", 1310688000), ("1", "Papers, Please", 1385683200)]


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("user,item\n", 1),
        (HEADER + "0,22200,2011-07-15,True\n", 2),
        (HEADER + "0,22200,2011-7-15,True,Zeno Clash\n", 2),
        (HEADER + "0,22200,2011-07-15,True,Zeno Clash\n1,22200,2011-07-15,True,Zeno Cl", 3),
        (HEADER + '0,22200,2011-07-15,True,"Zeno', 2),
        (HEADER + "0,,2011-07-15,True,Zeno Clash\n", 2),
    ],
    ids=["header", "cut", "date", "cut title", "open quote", "no item"],
)
def test_a_bad_row_of_the_australian_table_is_named(tmp_path: Path, table: str, line: int) -> None:
    path = write(tmp_path / "reviews.csv", table)
    with pytest.raises(UserError, match=re.escape(f"{path}, line {line}: ")):
        steam.read_australian({"ratings": path}, SOURCE)


@pytest.mark.parametrize("end", [".json", ".json.gz"])
def test_goodreads_keeps_series_numbers_and_says_what_is_left_out(tmp_path: Path, end: str) -> None:
    nameless = {"book_id": "5", "title": "", "title_without_series": "", "popular_shelves": []}
    paths = pair(tmp_path, jsonl(ROW, {**ROW, "book_id": "5"}), jsonl(BOOK, nameless), end)
    raw = goodreads.read(paths, SOURCE)
    assert rows(raw) == [("80d5", "The Hunger Games (The Hunger Games, #1)", 1366384515)]
    assert raw.genres == (("dystopia", "young-adult"),)
    assert "1 rows of books without a title" in raw.source.note


@pytest.mark.parametrize(
    "text",
    [
        ADDED,
        "Mon Aug 01 13:41:57 -0700 2011",
        "Tue Feb 29 23:59:59 +0530 2000",
        "Fri Jan 01 00:00:00 -0800 1988",
    ],
)
def test_goodreads_dates_are_those_of_strptime(text: str) -> None:
    assert goodreads.seconds(text) == datetime.strptime(text, "%a %b %d %H:%M:%S %z %Y").timestamp()


@pytest.mark.parametrize(
    "bad",
    [
        '{"user_id": "80d5", "book_id"',
        "[1]",
        jsonl({**ROW, "date_added": ""}),
        jsonl({**ROW, "date_added": 7}),
        jsonl({**ROW, "date_added": "Fri Apr 31 08:15:15 -0700 2013"}),
        jsonl({**ROW, "date_added": "Fri Apr 19 28:15:15 -0700 2013"}),
        jsonl({**ROW, "user_id": ""}),
    ],
)
def test_a_bad_goodreads_line_is_named(tmp_path: Path, bad: str) -> None:
    paths = pair(tmp_path, jsonl(ROW) + bad, jsonl(BOOK))
    with pytest.raises(UserError, match=re.escape(f"{paths['ratings']}, line 2: expected ")):
        goodreads.read(paths, SOURCE)


def test_two_different_genres_do_not_join(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two different genres"):
        goodreads.read(pair(tmp_path, jsonl(ROW), jsonl({**BOOK, "book_id": "1"})), SOURCE)
