"""The Steam and Goodreads readers on small handwritten files, plain and gzipped, whole and broken."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers import goodreads, reading, records, steam
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
    assert raw.left_out == {reading.NOT_LISTED: 1}
    assert f"1 {reading.NOT_LISTED}" in raw.source.note


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ("{'username': 'b', 'product_id': '10', 'date': '2010-10", "one record"),
        ("['username']", "one record"),
        ("__import__('os')", "one record"),
        ("{'username': 'b', 'product_id': '10', 'date': 'October'}", "a review with a date YYYY-MM-DD"),
        ("{'username': 'b', 'product_id': '10', 'date': ['2010-10-15']}", "date to be text"),
        ("{'username': ['b'], 'product_id': '10', 'date': '2010-10-15'}", "username to be text"),
        ("{'username': 'b', 'product_id': True, 'date': '2010-10-15'}", "product_id to be text"),
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
    with pytest.raises(UserError, match="not the same release"):
        steam.read_dump(pair(tmp_path, REVIEWS, "{'id': '5', 'title': 'Else'}\n"), SOURCE)


HEADER = "user,item_id,date,recommend,title\n"


def test_the_australian_table(tmp_path: Path) -> None:
    table = HEADER + '0,22200,2011-07-15,True,Zeno Clash\n1,239030,2013-11-29,False,"Papers, Please"\n'
    raw = steam.read_table({"ratings": write(tmp_path / "reviews.csv", table)}, SOURCE)
    assert rows(raw) == [("0", "Zeno Clash", 1310688000), ("1", "Papers, Please", 1385683200)]


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("user,item\n", 1),
        (HEADER + "0,22200,2011-07-15,True\n", 2),
        (HEADER + "0,22200,2011-7-15,True,Zeno Clash\n", 2),
        (HEADER + "0,22200,2011-07-15,True,Zeno Clash\n1,22200,2011-07-15,True,Zeno Cl", 3),
        (HEADER + '0,22200,2011-07-15,True,"Zeno', 2),
    ],
    ids=["header", "cut", "date", "cut title", "open quote"],
)
def test_a_bad_row_of_the_australian_table_is_named(tmp_path: Path, table: str, line: int) -> None:
    path = write(tmp_path / "reviews.csv", table)
    with pytest.raises(UserError, match=re.escape(f"{path}, line {line}: ")):
        steam.read_table({"ratings": path}, SOURCE)


@pytest.mark.parametrize("end", [".json", ".json.gz"])
def test_goodreads_keeps_series_numbers_and_says_what_is_left_out(tmp_path: Path, end: str) -> None:
    nameless = {"book_id": "5", "title": "", "title_without_series": "", "popular_shelves": []}
    paths = pair(tmp_path, jsonl(ROW, {**ROW, "book_id": "5"}), jsonl(BOOK, nameless), end)
    raw = goodreads.read(paths, SOURCE)
    assert rows(raw) == [("80d5", "The Hunger Games (The Hunger Games, #1)", 1366384515)]
    assert raw.genres == (("dystopia", "young-adult"),)
    assert raw.left_out == {reading.NO_TITLE: 1}


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
        jsonl({**ROW, "date_added": 7}),
        jsonl({**ROW, "date_added": "Fri Apr 31 08:15:15 -0700 2013"}),
        jsonl({**ROW, "date_added": "Fri Apr 19 28:15:15 -0700 2013"}),
        jsonl({**ROW, "user_id": ["80d5"]}),
    ],
)
def test_a_bad_goodreads_line_is_named(tmp_path: Path, bad: str) -> None:
    paths = pair(tmp_path, jsonl(ROW) + bad, jsonl(BOOK))
    with pytest.raises(UserError, match=re.escape(f"{paths['ratings']}, line 2: expected ")):
        goodreads.read(paths, SOURCE)


def test_two_different_genres_do_not_join(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two different genres"):
        goodreads.read(pair(tmp_path, jsonl(ROW), jsonl({**BOOK, "book_id": "1"})), SOURCE)


@pytest.mark.parametrize("spelled", [json.dumps, repr], ids=["JSON", "Python"])
def test_each_line_is_json_or_a_python_literal(tmp_path: Path, spelled: Callable[[object], str]) -> None:
    """Both have words that the other lacks; an apostrophe and a letter beyond ASCII are spelled apart."""
    fields = {"name": "Tom's \u2665", "free": True, "none": None}
    path = write(tmp_path / "r.json", f"\ufeff{spelled(fields)}\n \n{spelled(fields)}\n\n")
    assert [(record.line, record.fields) for record in records.records(path)] == [(1, fields), (3, fields)]


def test_a_python_unicode_literal_is_read(tmp_path: Path) -> None:
    (record,) = records.records(write(tmp_path / "r.json", "{u'name': u'Tom', 'id': 7, 'hours': 1.5}"))
    assert [record.text(name) for name in ("name", "id", "hours", "absent")] == ["Tom", "7", "1.5", ""]


@pytest.mark.parametrize("empty", ["null", '""', '"  "', "NaN"])
def test_a_field_that_holds_nothing_is_empty(tmp_path: Path, empty: str) -> None:
    (record,) = records.records(write(tmp_path / "r.json", f'{{"id": {empty}}}'))
    assert record.text("id") == ""


def test_a_player_may_be_called_none(tmp_path: Path) -> None:
    review = {"username": "None", "product_id": "10", "date": "2010-10-15"}
    assert rows(steam.read_dump(pair(tmp_path, jsonl(review), GAMES), SOURCE)) == [
        ("None", "Counter-Strike", 1287100800)
    ]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('[{"id": 1}]\n', "it is a list: write one record a line"),
        ('{\n  "id": 1\n}\n', "its records spread over several lines"),
        ("<!DOCTYPE html>\n", "it is a web page"),
        ("user,item\n", "as a csv table"),
        ('{"id": 1, "ti', "the file is truncated there"),
        ("{[1]: 2}\n", "the file was changed"),
    ],
    ids=["array", "indented", "page", "csv", "cut", "no field"],
)
def test_a_file_of_something_else_names_the_likely_cause(tmp_path: Path, text: str, cause: str) -> None:
    path = write(tmp_path / "r.json", text)
    with pytest.raises(UserError, match=re.escape(f"{path}, line 1: expected one record") + ".*" + re.escape(cause)):
        list(records.records(path))


GOOD = {"username": "b", "product_id": "10", "date": "2010-10-15"}
LACKING = [
    ("username", None, reading.NO_USER),
    ("username", " ", reading.NO_USER),
    ("product_id", "", reading.NO_ITEM),
    ("product_id", "11", reading.NO_TITLE),
    ("product_id", "999", reading.NOT_LISTED),
    ("date", "", reading.NO_TIME),
    ("date", None, reading.NO_TIME),
    ("date", "0001-01-01", reading.BAD_TIME),
    ("date", "9999-12-31", reading.BAD_TIME),
]


@pytest.mark.parametrize(("field", "value", "why"), LACKING)
def test_a_steam_review_that_lacks_something_is_left_out_and_counted(
    tmp_path: Path, field: str, value: str | None, why: str
) -> None:
    bad = {**GOOD, field: value}
    raw = steam.read_dump(pair(tmp_path, jsonl(bad, GOOD, bad), GAMES + "{'id': '11'}\n"), SOURCE)
    assert (rows(raw), raw.left_out) == ([("b", "Counter-Strike", 1287100800)], {why: 2})
    assert raw.user_ids == ("b",)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("user_id", "", reading.NO_USER),
        ("book_id", None, reading.NO_ITEM),
        ("book_id", "5", reading.NO_TITLE),
        ("book_id", "6", reading.NOT_LISTED),
        ("date_added", "", reading.NO_TIME),
        ("date_added", "Mon Jan 01 00:00:00 -0800 0001", reading.BAD_TIME),
        ("date_added", "Fri Jan 01 00:00:00 -0800 2207", reading.BAD_TIME),
    ],
)
def test_a_goodreads_row_that_lacks_something_is_left_out_and_counted(
    tmp_path: Path, field: str, value: str | None, why: str
) -> None:
    books = jsonl(BOOK, {"book_id": "5", "title": ""})
    raw = goodreads.read(pair(tmp_path, jsonl({**ROW, field: value}, ROW), books), SOURCE)
    assert (len(rows(raw)), raw.left_out) == (1, {why: 1})


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (",22200,2011-07-15,True,Zeno Clash", reading.NO_USER),
        ("0,,2011-07-15,True,Zeno Clash", reading.NO_ITEM),
        ("0,22200,nan,True,Zeno Clash", reading.NO_TIME),
        ("0,22200,2011-07-15,True,", reading.NO_TITLE),
        ("0,22200,2207-07-15,True,Zeno Clash", reading.BAD_TIME),
    ],
)
def test_a_row_of_the_australian_table_that_lacks_something_is_left_out_and_counted(
    tmp_path: Path, row: str, why: str
) -> None:
    table = HEADER + f"{row}\n1,22200,2011-07-15,True,Zeno Clash\n"
    raw = steam.read_table({"ratings": write(tmp_path / "reviews.csv", table)}, SOURCE)
    assert (rows(raw), raw.left_out) == ([("1", "Zeno Clash", 1310688000)], {why: 1})


def test_titles_are_cleaned_and_a_nameless_copy_does_not_hide_them(tmp_path: Path) -> None:
    games = jsonl({"id": 10, "title": "Command &amp; Conquer"}, {"id": "10", "title": ""})
    raw = steam.read_dump(pair(tmp_path, jsonl(GOOD), games), SOURCE)
    assert raw.titles == ("Command & Conquer",)
    books = jsonl(BOOK, {**BOOK, "title": "", "title_without_series": ""})
    assert len(rows(goodreads.read(pair(tmp_path, jsonl(ROW), books), SOURCE))) == 1


def test_a_file_without_interactions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no interactions; the file is empty or truncated"):
        steam.read_dump(pair(tmp_path, "", GAMES), SOURCE)
    with pytest.raises(UserError, match=re.escape(f"no interaction can be used; left out rows: 1 {reading.NO_TITLE}")):
        steam.read_dump(pair(tmp_path, jsonl(GOOD), jsonl({"id": "10"})), SOURCE)
