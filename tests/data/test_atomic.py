"""RecBole atomic files by path."""

from __future__ import annotations

import csv
import io
import re
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rosepo_bench.base.config import AtomicColumn, DatasetConfig
from rosepo_bench.base.configure import parse_setting, set_key, validate
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import catalog, population, sequences, storage
from rosepo_bench.data.describe import render
from rosepo_bench.data.readers import atomic, reading
from rosepo_bench.data.types import RawInteractions, Source

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
ITEMS = ITEM + "a\tToy Story\t1995\tAnimation Comedy\nb\tLand III (1995)\tV\tDrama\nc\tunkonwn\tunkonwn\tunknown\n"


def write(folder: Path, inter: str, item: str = ITEMS) -> Path:
    (folder / "mine.inter").write_text(inter, encoding="utf-8")
    (folder / "mine.item").write_text(item, encoding="utf-8")
    return folder / "mine"


def read(prefix: Path, **settings: Any) -> RawInteractions:
    inter, item = atomic.locate(prefix)
    return atomic.read({"ratings": inter, "items": item}, Source("mine", "real"), **settings)


def inter(*times: str) -> str:
    """An .inter file: user u takes a, b, c, a, … at these times."""
    return INTER + "".join(f"u\t{'abc'[row % 3]}\t3\t{when}\n" for row, when in enumerate(times))


def in_order(raw: RawInteractions) -> list[str]:
    """Titles by time."""
    return [raw.titles[item] for item in raw.item[np.argsort(raw.time, kind="stable")]]


def test_columns_are_found_by_name_and_years_appended_where_they_are_years(tmp_path: Path) -> None:
    raw = read(write(tmp_path, INTER + "u\tb\t3\t881250949\nv\ta\t3\t881250949.0\nu\ta\t1\t8.8e8\n"))
    assert raw.titles == ("Toy Story (1995)", "Land III (1995)", "unkonwn")
    assert raw.genres[0] == ("Animation", "Comedy")
    assert raw.user_ids == ("u", "v")
    assert (raw.user.tolist(), raw.item.tolist()) == ([0, 1, 0], [1, 0, 0])
    assert raw.time.tolist() == [881250949, 881250949, 880000000]
    assert (dict(raw.left_out), raw.source.note) == ({}, "")


@pytest.mark.parametrize("title", atomic.NAMES["title"])
def test_each_known_title_column_serves(tmp_path: Path, title: str) -> None:
    prefix = write(tmp_path, INTER + "u\ta\t3\t881250949\n", f"brand:token\t{title}:token\titem_id:token\nx\tOne\ta\n")
    assert read(prefix).titles == ("One",)


# --- times --------------------------------------------------------------------------------------------------------


def test_fractions_of_a_second_order_the_rows(tmp_path: Path) -> None:
    item = "item_id:token\ttitle:token_seq\na\tFirst\nb\tSecond\nc\tThird\n"
    rows = "u\tc\t3\t1500000000.9\nu\tb\t3\t1500000000.5\nu\ta\t3\t1500000000.1\n"
    raw = read(write(tmp_path, INTER + rows, item))
    assert in_order(raw) == ["First", "Second", "Third"]
    assert raw.time.tolist() == [1500000000_900000000, 1500000000_500000000, 1500000000_100000000]


def test_times_that_a_float_cannot_tell_apart_stay_apart(tmp_path: Path) -> None:
    raw = read(write(tmp_path, inter("1500000000.00000003", "1500000000.00000002", "1500000000.00000001")))
    assert in_order(raw) == ["unkonwn", "Land III (1995)", "Toy Story (1995)"]


def test_milliseconds_are_read_where_declared_and_suspected_elsewhere(tmp_path: Path) -> None:
    prefix = write(tmp_path, inter("1500000000002", "1500000000001", "1500000000000.5"))
    assert in_order(read(prefix, time_unit="milliseconds")) == ["unkonwn", "Land III (1995)", "Toy Story (1995)"]
    with pytest.raises(UserError, match='looks like milliseconds: set time_unit = "milliseconds"'):
        read(prefix)
    with pytest.raises(UserError, match='looks like seconds: set time_unit = "seconds"'):
        read(write(tmp_path, inter("1500000000")), time_unit="milliseconds")
    with pytest.raises(UserError, match="looks like microseconds: write seconds or milliseconds"):
        read(write(tmp_path, inter("1500000000000000")))


def test_an_order_is_read_where_declared_and_suspected_elsewhere(tmp_path: Path) -> None:
    prefix = write(tmp_path, inter("2", "1.0", "0"))
    raw = read(prefix, time_unit="order")
    assert (raw.time.tolist(), in_order(raw)) == ([2, 1, 0], ["unkonwn", "Land III (1995)", "Toy Story (1995)"])
    with pytest.raises(UserError, match=r'if the numbers only tell .* set time_unit = "order"'):
        read(prefix)
    with pytest.raises(UserError, match=r'line 2: expected a whole number, as time_unit = "order" says, found .0\.5'):
        read(write(tmp_path, inter("0.5")), time_unit="order")


def test_a_few_times_out_of_range_are_left_out_and_counted(tmp_path: Path) -> None:
    raw = read(write(tmp_path, inter("0", "1500000000", "7500000000", "-62135596800")))
    assert raw.time.tolist() == [1500000000]
    assert raw.left_out == {reading.BAD_TIME: 3}


# --- what is left out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("none", ["", " ", "nan", "NaN", "None"])
def test_rows_without_an_id_a_time_or_a_title_are_left_out_and_counted(tmp_path: Path, none: str) -> None:
    rows = [("u", "a", "1500000000"), (none, "a", "1500000001"), ("u", none, "1500000002"), ("u", "b", none)]
    rows += [("v", "d", "1500000003"), ("v", "d", "1500000004"), ("w", "z", "1500000005"), ("w", "c", "1500000006")]
    body = "".join(f"{user}\t{item}\t3\t{when}\n" for user, item, when in rows)
    raw = read(write(tmp_path, INTER + body, ITEMS + f"d\t{none}\t1995\tDrama\n{none}\tGhost\t1995\tDrama\n"))
    assert raw.titles == ("Toy Story (1995)", "Land III (1995)", "unkonwn")
    assert [(raw.user_ids[user], raw.titles[item]) for user, item in zip(raw.user, raw.item, strict=True)] == [
        ("u", "Toy Story (1995)"),
        ("w", "unkonwn"),
    ]
    assert raw.left_out == {
        "without a user id": 1,
        "without an item id": 1,
        "without a time": 1,
        "of items without a title": 2,
        "of items that are not listed": 1,
    }
    for why, count in raw.left_out.items():
        assert f"{count} {why}" in raw.source.note


def test_what_is_left_out_stands_in_the_prepared_data_and_its_description(tmp_path: Path) -> None:
    raw = read(write(tmp_path, inter("1500000000", "1500000001", "1500000002") + "\ta\t3\t1500000003\n"))
    storage.save(sequences.prepare(raw, 1), tmp_path)
    dataset = storage.load(tmp_path)
    line = "left out rows: 1 without a user id"
    assert line in render(dataset, sequences.split(dataset, "leave_one_out"))


def test_nothing_left_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no interaction can be used; left out rows: 2 of items that are not listed"):
        read(write(tmp_path, INTER + "u\t1.0\t3\t1500000000\nu\t2.0\t3\t1500000001\n"))


# --- columns of another name ---------------------------------------------------------------------------------------

OTHER_INTER = "user_id:token\tproduct_id:token\ttimestamp:float\nu\ta\t1500000000\n"
OTHER_ITEM = "id:token\tapp_name:token\nx\tOne\na\tTwo\n"


def test_columns_of_another_name_are_read_where_declared(tmp_path: Path) -> None:
    prefix = write(tmp_path, OTHER_INTER, OTHER_ITEM)
    raw = read(prefix, columns={"item_id": "product_id", "title": "app_name"})
    assert [raw.titles[item] for item in raw.item] == ["Two"]
    write(tmp_path, OTHER_INTER, OTHER_ITEM.replace("id:", "asin:"))
    raw = read(prefix, columns={"item_id": ["product_id", "asin"], "title": "app_name"})
    assert [raw.titles[item] for item in raw.item] == ["Two"]


def test_a_lacking_column_is_asked_for_with_the_setting_to_write(tmp_path: Path) -> None:
    prefix = write(tmp_path, OTHER_INTER, OTHER_ITEM)
    with pytest.raises(
        UserError, match=r'mine\.item: no column title or .*found id, app_name; .*columns\.title = "app_n'
    ):
        read(prefix)
    with pytest.raises(UserError, match=r'found user_id, product_id, timestamp; .* columns\.item_id = "product_id"'):
        read(prefix, columns={"title": "app_name"})


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ('columns.titel="app_name"', r"datasets.mine.columns.titel.*should be 'user_id', 'item_id', .* or 'genre'"),
        ("columns.title=[]", r"datasets.mine.columns.title.*at least 1 item"),
        ("time_unit=ms", "datasets.mine.time_unit = 'ms'.*should be 'seconds', 'milliseconds' or 'order'"),
        ("source=steam", "columns and time_unit are settings of source `atomic` alone; remove them"),
    ],
)
def test_settings_of_the_files_are_checked(setting: str, problem: str) -> None:
    table: dict[str, Any] = {"source": "atomic", "time_unit": "order"}
    set_key(table, *parse_setting("columns.item_id=product_id"))
    config = validate(table, DatasetConfig)
    assert (config.columns, config.time_unit) == ({"item_id": "product_id"}, "order")
    assert set(typing.get_args(AtomicColumn)) == set(atomic.NAMES)
    set_key(table, *parse_setting(setting))
    with pytest.raises(UserError, match=problem):
        validate(table, DatasetConfig, "datasets.mine.")


# --- how others write the files ------------------------------------------------------------------------------------


def test_quotes_of_a_csv_writer_are_taken_off_and_quotes_of_a_title_stay(tmp_path: Path) -> None:
    titles = ['The "Real" Thing', '"Heroes" of Us', "a\ttab", "plain"]
    rows = [[str(key), title, "Drama"] for key, title in enumerate(titles)]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC):
        text = io.StringIO()
        header = ["item_id:token", "title:token_seq", "genre:token_seq"]
        csv.writer(text, delimiter="\t", lineterminator="\n", quoting=quoting).writerows([header, *rows])
        raw = read(write(tmp_path, INTER + "u\t0\t3\t1500000000\n", text.getvalue()))
        assert raw.titles == ('The "Real" Thing', '"Heroes" of Us', "a tab", "plain")
    own = 'item_id:token\ttitle:token_seq\n0\t"Heroes"\n1\t"Great Performances" Cats\n2\tan "\n3\t"open\n'
    raw = read(write(tmp_path, INTER + "u\t0\t3\t1500000000\n", own))
    assert raw.titles == ('"Heroes"', '"Great Performances" Cats', 'an "', '"open')


def test_a_byte_order_mark_trailing_tabs_blank_lines_and_crlf_are_nothing(tmp_path: Path) -> None:
    plain = read(write(tmp_path, inter("1500000000", "1500000001")))

    def strange(text: str) -> str:
        return "\ufeff" + text.replace("\n", "\t\t\r\n") + "\r\n \n\t\n"

    raw = read(write(tmp_path, strange(inter("1500000000", "1500000001")), strange(ITEMS)))
    assert (raw.titles, raw.genres, raw.user_ids) == (plain.titles, plain.genres, plain.user_ids)
    assert (raw.item.tolist(), raw.time.tolist()) == (plain.item.tolist(), plain.time.tolist())


def test_titles_in_other_scripts_stay_as_they_are(tmp_path: Path) -> None:
    raw = read(write(tmp_path, inter("1500000000"), ITEM + "a\t進撃の巨人\tV\tDrama\n"))
    assert raw.titles == ("進撃の巨人",)


TYPED = r"mine\.inter, line 1: expected a header of name:type columns separated by tabs.*; "


@pytest.mark.parametrize(
    ("inter", "items", "message"),
    [
        ("user_id:token\titem_id:token\nu\ta\n", ITEMS, r"mine\.inter: no column timestamp; found user_id, item_id"),
        ("user_id\titem_id\ttimestamp\n", ITEMS, TYPED + "write a type after each name"),
        (INTER.replace("\t", ",") + "u,a,3,1500000000\n", ITEMS, TYPED + "its columns are separated by commas: .*tabs"),
        (INTER.replace("\t", ";"), ITEMS, TYPED + "its columns are separated by semicolons"),
        ("\t" + INTER + "0\tu\ta\t3\t1500000000\n", ITEMS, TYPED + ".*index=False"),
        ("", ITEMS, TYPED + "the file is empty"),
        (INTER, ITEMS, r"mine\.inter: no interactions"),
        (INTER + "u\ta\t3\n", ITEMS, r"mine\.inter, line 2: expected 4 fields.*; a field is missing"),
        (
            INTER + "u\ta\t3",
            ITEMS,
            r"mine\.inter, line 2: expected 4 fields.*; the file ends in this line: complete or",
        ),
        (INTER + "u\ta\t3\t1\t2\n", ITEMS, r"mine\.inter, line 2: expected 4 fields.*; a field holds a tab"),
        (INTER + "u,a,3,1500000000\n", ITEMS, r"mine\.inter, line 2: expected 4 fields.* separated by commas"),
        (INTER + "u\ta\t3\t2017-01-01\n", ITEMS, r"mine\.inter, line 2: expected a timestamp in unix seconds.*a date"),
        (INTER + "u\ta\t3\tinf\n", ITEMS, r"mine\.inter, line 2: expected a timestamp"),
        (INTER, "item_id:token\tbrand:token\n", r"mine\.item: no column title or .*found item_id, brand"),
        (INTER, "item_id,title\n", r"mine\.item, line 1: expected a header"),
        (INTER, ITEM + "a\tnan\t1995\tDrama\n", r"mine\.item: no item has a title"),
        (INTER, ITEM + "a\tX\t1995\tDrama\na\tY\t1995\tDrama\n", r"mine\.item, line 3: expected an item_id"),
    ],
)
def test_what_is_not_an_atomic_file_is_refused_with_its_cause(
    tmp_path: Path, inter: str, items: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        read(write(tmp_path, inter, items))
    assert "fetch" not in str(refused.value)  # the file is the user's own


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


def test_settings_reach_the_reader(tmp_path: Path) -> None:
    rows = "".join(f"u\t{item}\t{when}\n" for item, when in (("a", 2), ("b", 1), ("c", 0)))
    inter = "user_id:token\tproduct_id:token\ttimestamp:float\n" + rows
    prefix = write(tmp_path, inter, "id:token\tapp_name:token\na\tThird\nb\tSecond\nc\tFirst\n")
    columns = {"item_id": "product_id", "title": "app_name"}
    config = DatasetConfig(source="atomic", path=str(prefix), time_unit="order", columns=columns)
    dataset = catalog.load(catalog.resolve("atomic", config, None, tmp_path / "cache"), config)
    assert [dataset.titles[item] for item in dataset.sequences[0]] == ["First", "Second", "Third"]


def test_missing_atomic_files_are_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set `path` to DIR/NAME"):
        catalog.resolve("atomic", DatasetConfig(source="atomic"), None, tmp_path)
    config = DatasetConfig(source="atomic", path=str(tmp_path / "mine"))
    with pytest.raises(UserError, match=re.escape(f"put {tmp_path / 'mine'}.inter and")):
        catalog.resolve("atomic", config, None, tmp_path)


def test_an_order_is_not_compared_between_users(tmp_path: Path) -> None:
    (tmp_path / "d.item").write_text("item_id:token\ttitle:token_seq\n" + "".join(f"{i}\tT{i}\n" for i in range(9)))
    rows = [(user, item, item) for user, first in (("u", 0), ("v", 4)) for item in range(first, first + 5)]
    lines = "".join(f"{user}\t{item}\t{order}\n" for user, item, order in rows)
    (tmp_path / "d.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + lines)
    config = DatasetConfig(source="atomic", path=str(tmp_path / "d"), time_unit="order")
    dataset = catalog.load(catalog.resolve("atomic", config, None, tmp_path, offline=True), config)
    assert not dataset.dated
    told = population.facts(dataset, sequences.split(dataset, "leave_one_out"), 3)
    assert told["later_share"] is None
    assert population.facts(replace(dataset, dated=True), sequences.split(dataset, "leave_one_out"), 3)["later_share"]
    assert "later than the earliest" not in "".join(population.remarks(told))
    with pytest.raises(UserError, match=r'd: the temporal split needs dates; with time_unit = "order" use leave_one'):
        sequences.split(dataset, "temporal")
