"""The Australian users' reviews in the owner's files: one user a line with reviews nested, and where the files lie."""

from __future__ import annotations

import calendar
import gzip
import re
from pathlib import Path
from typing import Any

import pytest

from rosepo_bench.base.config import DatasetConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import catalog
from rosepo_bench.data.readers import reading, steam
from rosepo_bench.data.types import RawInteractions, Source

GAMES = "{u'id': u'10', u'title': u'Zeno Clash', u'genres': [u'Action']}\n{u'id': u'20', u'app_name': u'Osmos'}\n"
NOVEMBER = 1320451200  # 2011-11-05
FILES = ("australian_user_reviews.json", "steam_games.json")


def user(name: str, *reviews: tuple[str, str]) -> str:
    """A line of the file; ``reviews`` are an item_id and the text `posted`."""
    nested = [
        {"funny": "", "posted": posted, "item_id": item, "recommend": True, "review": "it's"}
        for item, posted in reviews
    ]
    return repr({"user_id": name, "user_url": "http://x", "reviews": nested}) + "\n"


def read(folder: Path, text: str, end: str = "") -> RawInteractions:
    paths = {role: folder / (name + end) for role, name in zip(("ratings", "items"), FILES, strict=True)}
    for path, content in zip(paths.values(), (text, GAMES), strict=True):
        path.write_bytes(gzip.compress(content.encode()) if end else content.encode())
    return steam.read_australian(paths, Source("tiny", "real"))


def rows(raw: RawInteractions) -> list[tuple[str, str, int]]:
    columns = zip(raw.user.tolist(), raw.item.tolist(), raw.time.tolist(), strict=True)
    return [(raw.user_ids[one], raw.titles[item], time) for one, item, time in columns]


@pytest.mark.parametrize("end", ["", ".gz"])
def test_nested_reviews_are_read_and_undated_ones_counted(tmp_path: Path, end: str) -> None:
    text = user("a", ("10", "Posted November 5, 2011."), ("20", "Posted July 3.")) + user("none")
    text += user("b", ("20", "Posted November 05, 2011."), ("10", "Posted February 29."), ("10", ""))
    raw = read(tmp_path, text, end)
    assert rows(raw) == [("a", "Zeno Clash", NOVEMBER), ("b", "Osmos", NOVEMBER)]
    assert raw.left_out == {reading.NO_TIME: 3}
    assert raw.genres == (("Action",), ())


def test_every_month_has_its_number(tmp_path: Path) -> None:
    raw = read(tmp_path, user("a", *(("10", f"Posted {name} 1, 2012.") for name in calendar.month_name[1:])))
    assert raw.time.tolist() == [reading.day(f"2012-{month:02}-01") for month in range(1, 13)]


@pytest.mark.parametrize(
    ("name", "review", "why"),
    [
        ("", ("10", "Posted November 5, 2011."), reading.NO_USER),
        ("a", ("", "Posted November 5, 2011."), reading.NO_ITEM),
        ("a", ("30", "Posted November 5, 2011."), reading.NOT_LISTED),
        ("a", ("10", "Posted November 5, 2207."), reading.BAD_TIME),
    ],
)
def test_a_review_that_lacks_something_is_left_out_and_counted(
    tmp_path: Path, name: str, review: tuple[str, str], why: str
) -> None:
    raw = read(tmp_path, user(name, review) + user("b", ("10", "Posted November 5, 2011.")))
    assert (rows(raw), raw.left_out) == ([("b", "Zeno Clash", NOVEMBER)], {why: 1})


@pytest.mark.parametrize(
    "posted",
    [
        "2011-11-05",
        "Posted Nov 5, 2011.",
        "Posted November 31, 2011.",
        "Posted November 31.",
        "Posted November 5, 11.",
        "Posted November 5, 2011. Edited.",
        "Posted November 5, 2011",
    ],
)
def test_another_form_of_date_is_refused(tmp_path: Path, posted: str) -> None:
    text = user("a", ("10", "Posted November 5, 2011.")) + user("b", ("10", posted))
    with pytest.raises(UserError, match=r"reviews\.json, line 2: expected 'Posted November 5, 2011\.' or"):
        read(tmp_path, text)


@pytest.mark.parametrize("fields", [{}, {"reviews": "none"}, {"reviews": ["good"]}])
def test_a_line_that_is_no_user_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"line 1: expected a user with reviews"):
        read(tmp_path, repr({"user_id": "a", **fields}))


def resolved(name: str, data_dir: Path) -> list[str]:
    """The files that a data set is read from, by name; none: the replica."""
    config = DatasetConfig.model_validate({"source": name})
    found = catalog.resolve(name, config, data_dir, data_dir / ".cache", offline=True)
    return [path.name for _, path in found.paths]


def put(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize("folder", ["steam-australian", "steam", ""])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_their_games_are_no_half_of_the_dump(tmp_path: Path, folder: str, end: str) -> None:
    put(tmp_path / folder, *(name + end for name in FILES))
    assert resolved("steam-australian", tmp_path) == [name + end for name in FILES]
    assert resolved("steam", tmp_path) == []


def test_the_dump_beside_them_shares_the_games(tmp_path: Path) -> None:
    put(tmp_path / "steam", *FILES, "steam_reviews.json", "reviews.csv")
    assert resolved("steam-australian", tmp_path) == list(FILES)
    assert resolved("steam", tmp_path) == ["steam_reviews.json", "steam_games.json"]


def test_the_games_alone_are_half_of_either(tmp_path: Path) -> None:
    put(tmp_path / "steam", "steam_games.json")
    for name, lacking in (("steam", "steam_reviews"), ("steam-australian", "australian_user_reviews")):
        with pytest.raises(UserError, match=f"{name}: found .*steam_games.json, but not {lacking}"):
            resolved(name, tmp_path)


def test_reviews_without_the_games_say_what_lacks(tmp_path: Path) -> None:
    put(tmp_path / "steam-australian", FILES[0])
    wanted = re.escape(f"{FILES[0]}, but not steam_games.json.gz beside it")
    with pytest.raises(UserError, match=wanted):
        resolved("steam-australian", tmp_path)
