"""The MovieLens readers on small handwritten files, whole and broken."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers import columns, movielens
from rosepo_bench.data.types import RawInteractions, Source

SOURCE = Source("tiny", "real")
FLAGS = "|".join("1" if index in (1, 16) else "0" for index in range(19))
ITEM_100K = f"7|Misérables, Les (1995)|01-Jan-1995||http://x|{FLAGS}\n3|Toy  Story (1995)|||x|{FLAGS}\n"
DATA_100K = "20\t7\t5\t881250949\n3\t3\t1\t881250950\n20\t3\t2\t881250949\n"


def write(folder: Path, ratings: str, items: str, encoding: str = "utf-8") -> dict[str, Path]:
    paths = {"ratings": folder / "ratings", "items": folder / "items"}
    paths["ratings"].write_text(ratings, encoding=encoding)
    paths["items"].write_text(items, encoding=encoding)
    return paths


def rows(raw: RawInteractions) -> list[tuple[str, str, int]]:
    columns = zip(raw.user.tolist(), raw.item.tolist(), raw.time.tolist(), strict=True)
    return [(raw.user_ids[user], raw.titles[item], time) for user, item, time in columns]


def test_100k_joins_users_titles_and_genres_in_file_order(tmp_path: Path) -> None:
    raw = movielens.read_100k(write(tmp_path, DATA_100K, ITEM_100K, "latin-1"), SOURCE)
    assert rows(raw) == [
        ("20", "Misérables, Les (1995)", 881250949),
        ("3", "Toy Story (1995)", 881250950),
        ("20", "Toy Story (1995)", 881250949),
    ]
    assert raw.genres[int(raw.item[0])] == ("Action", "Thriller")
    assert raw.user_ids == ("3", "20")


def test_1m_splits_at_double_colons_and_keeps_single_ones_in_titles(tmp_path: Path) -> None:
    movies = "10::Star Wars: Episode IV (1977)::Action|Sci-Fi\n2::Les Misérables (1998)::Drama\n"
    raw = movielens.read_1m(write(tmp_path, "1::10::5::978300760\n1::2::3::978302109\n", movies, "latin-1"), SOURCE)
    assert rows(raw) == [
        ("1", "Star Wars: Episode IV (1977)", 978300760),
        ("1", "Les Misérables (1998)", 978302109),
    ]
    assert raw.genres[int(raw.item[0])] == ("Action", "Sci-Fi")


def test_csv_reads_quoted_titles_and_leaves_trailing_columns_alone(tmp_path: Path) -> None:
    movies = 'movieId,title,genres\n31,"American President, The (1995)",Comedy|Romance\n9,Solo,(no genres listed)'
    ratings = "userId,movieId,rating,timestamp,,,,\n1,31,2.5,1260759144,,,,\n2,9,3,1260759185,,3.450819672,,3.5\n"
    raw = movielens.read_csv(write(tmp_path, ratings, movies), SOURCE)
    assert rows(raw) == [("1", "American President, The (1995)", 1260759144), ("2", "Solo", 1260759185)]
    assert raw.genres == ((), ("Comedy", "Romance"))


@pytest.mark.parametrize(
    ("ratings", "line"),
    [
        ("1,31,2.5", 2),
        ("1,31,2.5,1260759144\n\n1,31,2.5,1260759144", 3),
        ("1,31,2.5,1260759144\n1,x,2.5,1260759144", 3),
        ("1,31,2.5,1260759144\n1,31.5,2.5,1260759144", 3),
        ("1,31,2.5,1260759144\n1,31,2.5,12607591", 3),
        ("1,31,2.5,1260759144\n1,32,2.5,1260759144", 3),
        ("1,31,2.5,1260759144\n1,31,2.5,99999999999999999999", 3),
    ],
    ids=["cut line", "blank line", "text", "fraction", "cut time", "unknown movie", "overflow"],
)
def test_a_bad_rating_is_named_by_file_and_line(tmp_path: Path, ratings: str, line: int) -> None:
    paths = write(tmp_path, "userId,movieId,rating,timestamp\n" + ratings, "movieId,title,genres\n31,A,B\n")
    with pytest.raises(UserError, match=re.escape(f"{paths['ratings']}, line {line}: ")):
        movielens.read_csv(paths, SOURCE)


@pytest.mark.parametrize(
    ("items", "line"),
    [
        ("movieId,name\n", 1),
        ("movieId,title,genres\n31,A\n", 2),
        ('movieId,title,genres\n31,A,B\n32,"C, The', 3),
        ("movieId,title,genres\n31,,B\n", 2),
        ("movieId,title,genres\n31,A,B\n31,C,D\n", 3),
        ("movieId,title,genres\n31,\udcff,B\n", 2),
    ],
    ids=["header", "cut line", "open quote", "no title", "twice", "not utf-8"],
)
def test_a_bad_movie_is_named_by_file_and_line(tmp_path: Path, items: str, line: int) -> None:
    paths = write(tmp_path, "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n", "")
    paths["items"].write_text(items, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=re.escape(f"{paths['items']}, line {line}: ")):
        movielens.read_csv(paths, SOURCE)


@pytest.mark.parametrize("items", ["7|Cut (1995)|", ITEM_100K.replace("|1", "|2", 1), "x" + ITEM_100K])
def test_a_bad_line_of_u_item_is_refused(tmp_path: Path, items: str) -> None:
    with pytest.raises(UserError, match=r"items, line 1: expected id\|title"):
        movielens.read_100k(write(tmp_path, DATA_100K, items, "latin-1"), SOURCE)


def test_a_bad_line_of_movies_dat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="items, line 2: expected id::title::genres"):
        movielens.read_1m(write(tmp_path, "1::10::5::978300760\n", "10::A::B\n2::C\n"), SOURCE)


@pytest.mark.parametrize("ratings", ["", "userId,movieId,rating,timestamp\n"])
def test_an_empty_file_is_refused(tmp_path: Path, ratings: str) -> None:
    with pytest.raises(UserError, match="ratings"):
        movielens.read_csv(write(tmp_path, ratings, "movieId,title,genres\n31,A,B\n"), SOURCE)


def test_a_missing_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.*cannot be read"):
        movielens.read_100k({"ratings": tmp_path / "gone", "items": tmp_path / "gone"}, SOURCE)


def test_chunks_meet_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "CHUNK_ROWS", 3)
    path = tmp_path / "numbers"
    for count in (2, 3, 4, 6, 7):
        path.write_text("head\n" + "".join(f"{row},x,{row * row}\n" for row in range(count)))
        table = columns.integer_columns(path, ",", (0, 2), header=1)
        assert table.tolist() == [[row, row * row] for row in range(count)]


def test_reindexing_agrees_with_sorting_for_small_and_for_huge_ids() -> None:
    ids = np.array([5, 3, 5, 9, 3])
    for scale in (1, 10**9):
        known, index = columns.reindex(ids * scale)
        assert known.tolist() == [3 * scale, 5 * scale, 9 * scale]
        assert index.tolist() == [1, 0, 1, 2, 0]
