"""Titles are names, not identities: works by id, and one title told apart for the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rosepo_bench.base.config import DatasetConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import catalog
from rosepo_bench.data.describe import describe, render
from rosepo_bench.data.sequences import split
from rosepo_bench.data.titles import told_apart
from rosepo_bench.data.types import Dataset

DAY = "Thu Aug {} 15:15:28 -0700 2017"


def goodreads(folder: Path, books: list[dict[str, object]]) -> Dataset:
    """Prepared data of one reader who adds each of the books, one a day."""
    rows = [
        {"user_id": "u", "book_id": book["book_id"], "date_added": DAY.format(10 + n)} for n, book in enumerate(books)
    ]
    for name, records in (("books", books), ("interactions", rows)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"goodreads_{name}_poetry.json").write_text(lines, encoding="utf-8")
    config = DatasetConfig(source="goodreads", path=str(folder))
    return catalog.load(catalog.resolve("goodreads", config, None, folder / "cache", offline=True), config)


def book(key: int, title: str, **fields: object) -> dict[str, object]:
    return {"book_id": str(key), "title": title, "popular_shelves": [], **fields}


def by(*authors: str) -> list[dict[str, str]]:
    return [{"author_id": author, "role": ""} for author in authors]


OTHERS = [book(8, "Book A", work_id="w8"), book(9, "Book B", work_id="w9")]


def history(dataset: Dataset) -> list[str]:
    return [dataset.titles[item] for item in dataset.sequences[0]]


def test_two_works_of_one_title_stay_two_and_are_told_apart_by_the_year(tmp_path: Path) -> None:
    poems = [
        book(1, "Selected Poems", work_id="w1", authors=by("10"), publication_year="1992"),
        book(2, "Selected Poems", work_id="w2", authors=by("20"), publication_year="2005"),
    ]
    dataset = goodreads(tmp_path, [*poems, *OTHERS])
    assert history(dataset) == ["Selected Poems (1992)", "Selected Poems (2005)", "Book A", "Book B"]
    assert dataset.renamed == ((0, "Selected Poems"), (1, "Selected Poems"))
    assert dataset.merged == ()
    assert dataset.counts["raw"] == dataset.counts["usable"]


def test_without_years_they_are_counted(tmp_path: Path) -> None:
    poems = [book(key, "Selected Poems", work_id=f"w{key}", authors=by("10")) for key in (1, 2)]
    assert history(goodreads(tmp_path, [*poems, *OTHERS]))[:2] == ["Selected Poems", "Selected Poems (2)"]


def test_editions_of_a_work_are_one_item_named_by_the_most_rated(tmp_path: Path) -> None:
    editions = [
        book(1, "Dune: a novel", work_id="w1", ratings_count="7"),
        book(2, "Dune", work_id="w1", ratings_count="900"),
        book(3, "Dune (Movie Tie-In)", work_id="w1", ratings_count=""),
    ]
    dataset = goodreads(tmp_path, [*OTHERS, *editions])
    assert history(dataset) == ["Book A", "Book B", "Dune"]
    assert dataset.times[0].tolist()[1] < dataset.times[0].tolist()[2], "the first of the editions counts"
    dune = dataset.titles.index("Dune")
    assert dataset.item_ids[dune] == "2"
    assert dataset.merged == ((dune, ("1", "2", "3")),)
    assert (dataset.counts["raw"]["items"], dataset.counts["merged"]["items"]) == (5, 3)
    facts = describe(dataset, split(dataset, "leave_one_out"), 2)
    assert facts["merged"] == {"Dune": ["1", "2", "3"]}
    text = render(dataset, split(dataset, "leave_one_out"), 2)
    assert "- Items that are several of the owner's, merged (with the owner's ids), 1: Dune (1, 2, 3)\n" in text


def test_the_most_rated_edition_names_its_work_though_nobody_took_it(tmp_path: Path) -> None:
    editions = [book(1, "Dune: a novel", work_id="w1"), book(2, "Dune", work_id="w1", ratings_count="900")]
    rest = [*OTHERS, editions[0]]
    goodreads(tmp_path, rest)  # writes the interactions
    file = tmp_path / "goodreads_books_poetry.json"
    file.write_text(file.read_text() + json.dumps(editions[1]) + "\n")
    config = DatasetConfig(source="goodreads", path=str(tmp_path))
    dataset = catalog.load(catalog.resolve("goodreads", config, None, tmp_path / "cache", offline=True), config)
    assert history(dataset) == ["Book A", "Book B", "Dune"]
    assert dataset.merged == (), "one edition alone was taken"


def test_without_work_ids_a_work_is_a_title_with_its_first_author(tmp_path: Path) -> None:
    books = [
        book(1, "Poems", work_id="", authors=by("10", "20")),
        book(2, "Poems", authors=by("10")),  # an edition of the first
        book(3, "Poems", authors=by("20")),
        book(4, "Poems"),  # by nobody known: a work of its own
    ]
    dataset = goodreads(tmp_path, [*books, *OTHERS])
    assert history(dataset) == ["Poems", "Poems (2)", "Poems (3)", "Book A", "Book B"]
    assert [dataset.item_ids[item] for item in dataset.sequences[0]] == ["1", "3", "4", "8", "9"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"authors": "10"}, r"line 1: expected authors \[\{author_id, role\}, …\]"),
        ({"authors": ["10"]}, r"line 1: expected authors \[\{author_id, role\}, …\]"),
        ({"ratings_count": "many"}, "line 1: expected ratings_count as a whole number"),
    ],
)
def test_what_tells_editions_apart_is_checked(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        goodreads(tmp_path, [book(1, "Dune", **fields), *OTHERS])


def test_steam_games_of_one_title_are_told_apart_by_the_year_of_release(tmp_path: Path) -> None:
    games = [
        {"id": str(key), "title": "RIP", "release_date": date}
        for key, date in enumerate(("2010-05-01", "Soon..", "2017-01-09", "2010-06-01", "20171"))
    ]
    reviews = [{"username": "u", "product_id": str(key), "date": f"2018-01-0{key + 1}"} for key in range(5)]
    for name, records in (("games", games), ("reviews", reviews)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"steam_{name}.json").write_text(lines)
    config = DatasetConfig(source="steam", path=str(tmp_path))
    dataset = catalog.load(catalog.resolve("steam", config, None, tmp_path / "cache", offline=True), config)
    assert history(dataset) == ["RIP (2010)", "RIP", "RIP (2017)", "RIP (2010) (2)", "RIP (2)"]


def test_atomic_items_of_one_title_are_told_apart_by_the_author(tmp_path: Path) -> None:
    (tmp_path / "d.item").write_text(
        "item_id:token\ttitle:token_seq\tauthors:token_seq\n"
        "1\tPoems\tYeats\n2\tPoems\tPlath, Sylvia\n3\tPoems\tnan\n4\tDune\tHerbert\n"
    )
    rows = "".join(f"u\t{item}\t{1_500_000_000 + item}\n" for item in (1, 2, 3, 4))
    (tmp_path / "d.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + rows)
    config = DatasetConfig(source="atomic", path=str(tmp_path / "d"))
    dataset = catalog.load(catalog.resolve("atomic", config, None, tmp_path / "cache", offline=True), config)
    assert dataset.titles == ("Poems (Yeats)", "Poems (Plath, Sylvia)", "Poems", "Dune")


@pytest.mark.parametrize(
    ("titles", "hints", "names"),
    [
        (["A", "B"], ["x", "y"], ["A", "B"]),
        (["A", "A"], [], ["A", "A (2)"]),
        (["A", "A"], ["x", "x"], ["A", "A (2)"]),  # the same hint tells nothing
        (["A", "A", "A"], ["x", "y", ""], ["A (x)", "A (y)", "A"]),
        (["A", "A", "A (x)"], ["x", "y", ""], ["A (x)", "A (y)", "A (x) (2)"]),
        (["A", "A", "A (2)"], [], ["A", "A (3)", "A (2)"]),
        (["A (2)", "A", "A", "A (2)"], [], ["A (2)", "A", "A (3)", "A (2) (2)"]),
        (["A (1996)", "A (1996)"], ["1996", "1997"], ["A (1996)", "A (1996) (1997)"]),
        (["a", "A"], [], ["a", "A"]),
    ],
)
def test_titles_told_apart_by_hand(titles: list[str], hints: list[str], names: list[str]) -> None:
    assert list(told_apart(titles, hints)) == names


def test_many_items_of_one_title_are_named_in_linear_time() -> None:
    names = told_apart(["Untitled"] * 100_000)
    assert len(set(names)) == 100_000
    assert names[-1] == "Untitled (100000)"
