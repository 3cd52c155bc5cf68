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
        ("1,31,2.5,1260759144\n1,31,2.5,99999999999999999999", 3),
    ],
    ids=["cut line", "blank line", "text", "fraction", "cut time", "overflow"],
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
        ("movieId,title,genres\nx31,A,B\n", 2),
        ("movieId,title,genres\n31,A,B\n31,C,D\n", 3),
        ("movieId,title,genres\n31,\udcff,B\n", 2),
    ],
    ids=["header", "cut line", "open quote", "no number", "twice", "not utf-8"],
)
def test_a_bad_movie_is_named_by_file_and_line(tmp_path: Path, items: str, line: int) -> None:
    paths = write(tmp_path, "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n", "")
    paths["items"].write_text(items, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=re.escape(f"{paths['items']}, line {line}: ")):
        movielens.read_csv(paths, SOURCE)


@pytest.mark.parametrize("items", ["7|Cut (1995)|", ITEM_100K.replace("|1", "|2", 1)])
def test_a_bad_line_of_u_item_is_refused(tmp_path: Path, items: str) -> None:
    with pytest.raises(UserError, match=r"items, line 1: expected id\|title"):
        movielens.read_100k(write(tmp_path, DATA_100K, items, "latin-1"), SOURCE)


def test_a_bad_line_of_movies_dat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="items, line 2: expected id::title::genres"):
        movielens.read_1m(write(tmp_path, "1::10::5::978300760\n", "10::A::B\n2::C\n"), SOURCE)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        (
            "userId,movieId",
            "movieId,userId",
            "its columns are in another order: make them userId,movieId,rating,timestamp",
        ),
        (",", ";", "its columns are separated by semicolons: write it with commas instead"),
        ("userId", ",userId", "its first column is the index of a pandas table: write it with index=False"),
        ("userId", "user", "it lacks the column userId: its columns must be userId,movieId,rating,timestamp"),
    ],
)
def test_another_header_is_refused_with_its_cause(tmp_path: Path, old: str, new: str, cause: str) -> None:
    ratings = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n".replace(old, new)
    with pytest.raises(UserError, match=f"ratings, line 1: expected the header .*; {cause}$"):
        movielens.read_csv(write(tmp_path, ratings, "movieId,title,genres\n31,A,B\n"), SOURCE)


@pytest.mark.parametrize(
    ("ratings", "cause"),
    [
        ("20,7,5,881250949\n", "its columns are separated by commas: write it with tabs instead"),
        ("user\titem\trating\ttime\n20\t7\t5\t881250949\n", "this is a header, .*delete the line"),
        ("20\t7\t5", r"the file is truncated there: fetch it again"),
        ("20\t7\t5\n20\t7\t5\t881250949\n", "the file was changed, or is another release: correct the line"),
    ],
)
def test_a_line_of_u_data_that_cannot_be_read_is_refused_with_its_cause(
    tmp_path: Path, ratings: str, cause: str
) -> None:
    with pytest.raises(UserError, match=f"ratings, line 1: expected integers in columns 1, 2, 4 .*; {cause}"):
        movielens.read_100k(write(tmp_path, ratings, ITEM_100K), SOURCE)


def test_blank_lines_commas_and_a_byte_order_mark_at_the_edges_are_nothing(tmp_path: Path) -> None:
    plain = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n2,9,3,1260759185\n"
    movies = "movieId,title,genres\n31,A,B\n9,C,D\n"
    for ratings, items in (
        (plain + "\n \n", movies + "\n"),
        ("\ufeff" + plain, "\ufeff" + movies),
        (plain, movies.replace("\n", ",,\r\n")),
    ):
        raw = movielens.read_csv(write(tmp_path, ratings, items), SOURCE)
        assert rows(raw) == [("1", "A", 1260759144), ("2", "C", 1260759185)]
        assert not raw.left_out
    raw = movielens.read_100k(write(tmp_path, "\ufeff" + DATA_100K + "\n", "\ufeff" + ITEM_100K + "\n"), SOURCE)
    assert [user for user, _, _ in rows(raw)] == ["20", "3", "20"]


def test_ratings_without_an_id_a_time_or_a_title_are_left_out_and_counted(tmp_path: Path) -> None:
    ratings = (
        "userId,movieId,rating,timestamp\n1.0,31,2.5,1260759144\n,31,2.5,1260759145\n1,nan,2.5,1260759146\n1,31,2.5,\n"
        "2,32,2.5,1260759147\n3,33,2.5,1260759148\n3,33,2.5,1260759149\n4,9,3,946684800\n4,9,3,0\n5,9,3,7500000000\n"
        "4,31,3,946684801\n"
    )
    movies = "movieId,title,genres\n31,A,B\n9,C,D\n33,,D\n,E,D\n"
    raw = movielens.read_csv(write(tmp_path, ratings, movies), SOURCE)
    assert rows(raw) == [("1", "A", 1260759144), ("4", "C", 946684800), ("4", "A", 946684801)]
    assert raw.titles == ("C", "A")
    assert raw.left_out == {
        "without a user id": 1,
        "without an item id": 1,
        "without a time": 1,
        "with a time before 1990 or in the future": 2,
        "of items that are not listed": 1,
        "of items without a title": 2,
    }
    for why, count in raw.left_out.items():
        assert f"{count} {why}" in raw.source.note


def test_nothing_left_is_refused_with_the_reasons(tmp_path: Path) -> None:
    ratings = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n"
    with pytest.raises(UserError, match="no interaction can be used; left out rows: 1 of items that are not listed"):
        movielens.read_csv(write(tmp_path, ratings, "movieId,title,genres\n32,A,B\n"), SOURCE)
    late = write(tmp_path, ratings.replace("144\n", "144000\n"), "movieId,title,genres\n31,A,B\n")
    with pytest.raises(
        UserError, match=r"ratings: no time is in unix seconds .*; it looks like milliseconds: write sec"
    ):
        movielens.read_csv(late, SOURCE)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
def test_titles_read_right_in_latin_1_and_saved_again_in_utf_8(tmp_path: Path, encoding: str) -> None:
    raw = movielens.read_100k(write(tmp_path, DATA_100K, ITEM_100K, encoding), SOURCE)
    assert set(raw.titles) == {"Misérables, Les (1995)", "Toy Story (1995)"}
    raw = movielens.read_1m(
        write(tmp_path, "1::2::3::978302109\n", "2::Les Misérables (1998)::Drama\n", encoding), SOURCE
    )
    assert raw.titles == ("Les Misérables (1998)",)


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
        table, left_out = columns.integer_columns(path, ",", {0: "without a", 2: "without c"}, header=1)
        assert table.tolist() == [[row, row * row] for row in range(count)]
        assert not left_out


def test_reindexing_agrees_with_sorting_for_small_and_for_huge_ids() -> None:
    ids = np.array([5, 3, 5, 9, 3])
    for scale in (1, 10**9):
        known, index = columns.reindex(ids * scale)
        assert known.tolist() == [3 * scale, 5 * scale, 9 * scale]
        assert index.tolist() == [1, 0, 1, 2, 0]
