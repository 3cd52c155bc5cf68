"""RecBole atomic files by path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rosepo_bench.base.config import DatasetConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import catalog
from rosepo_bench.data.readers import atomic
from rosepo_bench.data.types import RawInteractions, Source

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
ITEMS = ITEM + "a\tToy Story\t1995\tAnimation Comedy\nb\tLand III (1995)\tV\tDrama\nc\tunkonwn\tunkonwn\tunknown\n"


def write(folder: Path, inter: str, item: str = ITEMS) -> Path:
    (folder / "mine.inter").write_text(inter, encoding="utf-8")
    (folder / "mine.item").write_text(item, encoding="utf-8")
    return folder / "mine"


def read(prefix: Path) -> RawInteractions:
    inter, item = atomic.locate(prefix)
    return atomic.read({"ratings": inter, "items": item}, Source("mine", "real"))


def test_columns_are_found_by_name_and_years_appended_where_they_are_years(tmp_path: Path) -> None:
    raw = read(write(tmp_path, INTER + "u\tb\t3\t881250949\nv\ta\t3\t881250949.7\nu\ta\t1\t8.8e8\n"))
    assert raw.titles == ("Toy Story (1995)", "Land III (1995)", "unkonwn")
    assert raw.genres[0] == ("Animation", "Comedy")
    assert raw.user_ids == ("u", "v")
    assert (raw.user.tolist(), raw.item.tolist()) == ([0, 1, 0], [1, 0, 0])
    assert raw.time.tolist() == [881250949, 881250949, 880000000]


@pytest.mark.parametrize("title", atomic.TITLES)
def test_each_known_title_column_serves(tmp_path: Path, title: str) -> None:
    prefix = write(tmp_path, INTER + "u\ta\t3\t881250949\n", f"brand:token\t{title}:token\titem_id:token\nx\tOne\ta\n")
    assert read(prefix).titles == ("One",)


@pytest.mark.parametrize(
    ("inter", "items", "message"),
    [
        ("user_id:token\titem_id:token\nu\ta\n", ITEMS, r"mine\.inter: needs the column\(s\) timestamp"),
        (INTER, ITEMS, r"mine\.inter: no interactions"),
        (INTER + "u\ta\t3\n", ITEMS, r"mine\.inter, line 2: expected 4 fields"),
        (INTER + "u\ta\t3\tsoon\n", ITEMS, r"mine\.inter, line 2: expected a timestamp"),
        (INTER + "u\ta\t3\tinf\n", ITEMS, r"mine\.inter, line 2: expected a timestamp"),
        (INTER + "u\ta\t3\t7\n", ITEMS, r"mine\.inter, line 2: expected a time in unix seconds"),
        (INTER + "u\tz\t3\t881250949\n", ITEMS, r"mine\.inter, line 2: item 'z' is not in .*mine\.item"),
        (INTER, "item_id:token\tbrand:token\n", r"mine\.item: no column with titles.*found item_id, brand"),
        (INTER, "item_id,title\n", r"mine\.item, line 1: expected a header"),
        (INTER, ITEM + "a\t\t1995\tDrama\n", r"mine\.item, line 2: expected a title"),
        (INTER, ITEM + "a\tX\t1995\tDrama\na\tY\t1995\tDrama\n", r"mine\.item, line 3: expected an item_id"),
    ],
)
def test_what_is_not_an_atomic_file_is_refused(tmp_path: Path, inter: str, items: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, inter, items))


def test_a_data_set_by_path(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = [f"u\t{item}\t3\t{881250949 + when}\n" for when, item in enumerate("abc")]
    write(folder, INTER + "".join(rows))
    for path in (folder, folder / "mine"):
        config = DatasetConfig(source="atomic", path=str(path))
        resolved = catalog.resolve("atomic", config, None, tmp_path / "cache")
        dataset = catalog.load(resolved, config)
        assert (dataset.name, dataset.source.name) == ("mine", "mine")
        assert [file.name for file in resolved.files] == ["mine.inter", "mine.item"]
        assert dataset.sequences[0].tolist() == [0, 1, 2]


def test_missing_atomic_files_are_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set `path` to DIR/NAME"):
        catalog.resolve("atomic", DatasetConfig(source="atomic"), None, tmp_path)
    config = DatasetConfig(source="atomic", path=str(tmp_path / "mine"))
    with pytest.raises(UserError, match=re.escape(f"put {tmp_path / 'mine'}.inter and")):
        catalog.resolve("atomic", config, None, tmp_path)
