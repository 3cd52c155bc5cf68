"""Fields that the fuzz found to end in a traceback, or to reach a terminal as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers import atomic, goodreads, movielens, reading, records, steam
from rosepo_bench.data.types import RawInteractions, Source

SOURCE = Source("tiny", "real")
HUGE = "9" * 5000
FLAGS = "|".join("1" if place == 1 else "0" for place in range(19))


def write(folder: Path, ratings: str, items: str = "", ending: str = "") -> dict[str, Path]:
    paths = {"ratings": folder / f"ratings{ending}", "items": folder / f"items{ending}"}
    for path, text in zip(paths.values(), (ratings, items), strict=True):
        path.write_text(text)
    return paths


@pytest.mark.parametrize("key", [HUGE, "9" * 19, str(2**63)])
def test_an_id_of_movielens_that_eight_bytes_do_not_hold_is_named(tmp_path: Path, key: str) -> None:
    movies = f"1::A::Drama\n{key}::B::Drama\n"
    with pytest.raises(UserError, match="items, line 2: expected a number of at most 18 digits"):
        movielens.read_1m(write(tmp_path, "1::1::5::978300760\n", movies), SOURCE)


def test_ratings_of_1m_with_another_separator_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 1: .*separated by tabs: write it with double colons"):
        movielens.read_1m(write(tmp_path, "1\t\t1\t\t5\t\t978300760\n", "1::A::Drama\n"), SOURCE)


@pytest.mark.parametrize(
    "date",
    [
        f"Mon Aug 01 13:41:57 -0700 {HUGE}",
        "Mon Aug 01 13:41:57 -0700 99999999999999999999",
        f"Mon Aug {HUGE} 13:41:57 -0700 2011",
        "Mon Aug 01 -1:41:57 -0700 2011",
        "Mon Aug 01 13:41:-7 -0700 2011",
    ],
)
def test_a_date_of_goodreads_that_is_none_is_named(tmp_path: Path, date: str) -> None:
    row, book = f'{{"user_id": "u", "book_id": "1", "date_added": "{date}"}}\n', '{"book_id": "1", "title": "A"}\n'
    with pytest.raises(UserError, match="ratings, line 1: expected date_added"):
        goodreads.read(write(tmp_path, row, book), SOURCE)


@pytest.mark.parametrize("shelves", ["5", "true", "1.5", '"abc"', '{"name": "x"}', "[1]"])
def test_shelves_that_are_no_list_are_named(tmp_path: Path, shelves: str) -> None:
    book = f'{{"book_id": "1", "title": "A", "popular_shelves": {shelves}}}\n'
    with pytest.raises(UserError, match="items, line 1: expected book_id, title and popular_shelves"):
        goodreads.read(write(tmp_path, "", book), SOURCE)


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "1e400", "-1e400"])
def test_a_number_of_thousands_of_digits_is_no_id(tmp_path: Path, number: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(f"{{'id': {number}}}\n")
    (record,) = records.records(path)
    with pytest.raises(UserError, match="line 1: expected id to be text or a number, found"):
        record.text("id")


def test_a_header_longer_than_any_field_may_be_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("a" * 200_000 + "\n1\n")
    with pytest.raises(UserError, match="line 1: expected the header a,b"):
        next(reading.csv_rows(path, ["a", "b"]))


def of_every_reader(folder: Path, label: str) -> list[RawInteractions]:
    """One row with one item that has the genre ``label``, as each reader with genres gives it."""
    when = 978300760
    texts = {
        movielens.read_1m: (f"1::1::5::{when}\n", f"1::A::{label}\n"),
        movielens.read_csv: (
            f"userId,movieId,rating,timestamp\n1,1,5,{when}\n",
            f"movieId,title,genres\n1,A,{label}\n",
        ),
        steam.read_dump: (
            "{'username': 'u', 'product_id': '1', 'date': '2011-11-05'}\n",
            f"{{'id': '1', 'title': 'A', 'genres': [{label!r}]}}\n",
        ),
        atomic.read: (
            f"user_id:token\titem_id:token\ttimestamp:float\nu\t1\t{when}\n",
            f"item_id:token\ttitle:token\tgenre:token\n1\tA\t{label}\n",
        ),
    }
    return [read(write(folder, *text), SOURCE) for read, text in texts.items()]


def test_genres_hold_no_control_characters(tmp_path: Path) -> None:
    for raw in of_every_reader(tmp_path, "\x1b[31mDra\x00ma\x07"):
        assert raw.genres == (("[31mDrama",),)
    for raw in of_every_reader(tmp_path, "Drama"):
        assert raw.genres == (("Drama",),)


def test_names_in_errors_hold_no_control_characters(tmp_path: Path) -> None:
    table = "user,item_id,date,recommend,title\nu,\x1b1,2011-11-05,True,A\nu,\x1b1,2011-11-05,True,B\n"
    header = "user_id:token\titem_id:token\t\x1bwhen:float\n"
    for read in (
        lambda: steam.read_table(write(tmp_path, table), SOURCE),
        lambda: atomic.read(write(tmp_path, header, "item_id:token\ttitle:token\n1\tA\n"), SOURCE),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert not re.search(r"[\x00-\x1f]", str(caught.value))


def test_half_a_pair_of_surrogates_in_an_id_is_its_escape(tmp_path: Path) -> None:
    """Else the names of users and items could not be written beside the results."""
    row = '{"user_id": "\\ud800", "book_id": "\\udc00", "date_added": "Mon Aug 01 13:41:57 -0700 2011"}\n'
    other = row.replace("ud800", "ud801")
    book = (
        '{"book_id": "\\udc00", "title": "A", "publication_year": "\\ud800", "authors": [{"author_id": "\\ud800"}]}\n'
    )
    raw = goodreads.read(write(tmp_path, row + other, book), SOURCE)
    assert raw.user_ids == (r"\ud800", r"\ud801")
    assert raw.item_ids == (r"\udc00",)
    assert "".join(raw.hints).isascii()
    review, game = (
        "{'username': '\\ud800', 'product_id': '\\udc00', 'date': '2011-11-05'}\n",
        "{'id': '\\udc00', 'title': 'A'}\n",
    )
    raw = steam.read_dump(write(tmp_path, review, game), SOURCE)
    assert (raw.user_ids, raw.item_ids) == ((r"\ud800",), (r"\udc00",))
