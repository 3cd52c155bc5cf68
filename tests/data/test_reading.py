"""What the readers share: titles, lines, times, what is left out, and what a bad line is said to be."""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path

import pytest

from rosepo_bench.base import progress
from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers import reading, times
from rosepo_bench.data.readers.reading import Ids, Rows, broken, clean, lines, missing
from rosepo_bench.data.types import Source

SOURCE = Source("tiny", "real", note="of 2024")


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Toy  Story\t(1995) ", "Toy Story (1995)"),
        ("Command &amp; Conquer", "Command & Conquer"),
        ("It&#39;s &#x41; &quot;Wonderful&quot;\u00a0Life &eacute;", 'It\'s A "Wonderful" Life é'),
        ("AT&T &not an entity & co;", "AT&T &not an entity & co;"),
        ("Ame\u0301lie", "Amélie"),
        ("\ufeffStar\u200b Wars\u200e\x07", "Star Wars"),
        ("one\r\ntwo\x0bthree\u2028four", "one two three four"),
        ("lone \ud83d surrogate", "lone surrogate"),
        ("क्\u200dष 👩\u200d🚀", "क्\u200dष 👩\u200d🚀"),
        ("進撃の巨人", "進撃の巨人"),
        ("<end>", "<end>"),
    ],
)
def test_a_title_is_one_line_of_visible_characters(title: str, expected: str) -> None:
    assert clean(title) == expected
    assert clean(expected) == expected


def test_what_pandas_writes_for_no_value_is_missing_and_a_title_is_not() -> None:
    assert all(map(missing, ["", " ", "\t", "nan", "NaN", "None", "null", "<NA>"]))
    assert not any(map(missing, ["0", "Nan", "nano", "none of the above", "NULL and Void"]))


# --- lines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [".txt", ".gz"])
def test_a_mark_at_the_start_and_blank_lines_at_the_end_are_nothing(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"file{end}"
    data = "\ufeffone\r\n\n two\n\n \t\r\n\n".encode()
    path.write_bytes(gzip.compress(data) if end == ".gz" else data)
    assert list(lines(path)) == [(1, "one"), (2, ""), (3, " two")]


def test_a_file_is_utf_8_or_wholly_in_the_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes("Misérables\nÃ©\n".encode())
    assert [text for _, text in lines(path, "latin-1")] == ["Misérables", "Ã©"]
    path.write_bytes("Misérables\nÃ©\n".encode("latin-1"))
    assert [text for _, text in lines(path, "latin-1")] == ["Misérables", "Ã©"]
    with pytest.raises(UserError, match=r"file, line 1: expected UTF-8 text, .*\\xe9.*; save the file as UTF-8"):
        list(lines(path))
    path.write_bytes("one\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"file, line 1: expected UTF-8 text, .*; the file is UTF-16: save it as UTF-8"):
        list(lines(path))


def test_only_a_file_that_ends_in_the_line_counts_as_truncated(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text, line, truncated in (
        ("one\ntwo", 2, True),
        ("one\ntwo\n", 2, False),
        ("one\ntwo", 1, False),
        ("", 1, True),
    ):
        path.write_text(text)
        message = str(broken(path, line, "this", "that"))
        assert message.startswith(f"{path}, line {line}: expected this, found 'that'; ")
        assert ("truncated" in message) == truncated
        assert str(broken(path, line, "this", "that", "do it")).endswith("found 'that'; do it")


def test_a_gzip_stream_that_ends_early_is_truncated_or_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"".join(b"%d\n" % row**5 for row in range(5000)))[:5000])
    with pytest.raises(UserError, match=r"line \d+: expected more of the gzip stream.*truncated or corrupt: fetch it"):
        list(lines(path))


# --- times --------------------------------------------------------------------------------------------------------


def rows_at(*seconds: int) -> Rows:
    rows = Rows()
    for when in seconds:
        rows.add(0, 0, when)
    return rows


def users() -> Ids:
    ids = Ids()
    ids("u")
    return ids


def test_every_reader_s_rows_are_checked_for_their_time() -> None:
    now = int(time.time())
    year_1, year_2207 = -62_135_596_800, 7_500_000_000
    good = [631_152_000, 1_500_000_000, now, now + 86_000]
    raw = rows_at(year_1, *good, 631_151_999, now + 90_000, year_2207).finish(SOURCE, users(), ("a",), ("A",), ((),))
    assert raw.time.tolist() == good
    assert raw.left_out == {"with a time before 1990 or in the future": 4}
    assert raw.source.note == "of 2024; left out rows: 4 with a time before 1990 or in the future"
    assert times.plausible(raw.time).all()
    with pytest.raises(UserError, match=r"tiny: no time is in unix seconds between 1990 and tomorrow, .* 7500000000;"):
        rows_at(year_2207).finish(SOURCE, users(), ("a",), ("A",), ((),))


@pytest.mark.parametrize(
    ("text", "unit", "ticks"),
    [
        ("1500000000", "seconds", 1_500_000_000_000_000_000),
        (" 1.5e9 ", "seconds", 1_500_000_000_000_000_000),
        ("1500000000.999", "seconds", 1_500_000_000_999_000_000),
        ("1500000000001", "milliseconds", 1_500_000_000_001_000_000),
        ("-3", "order", -3),
        ("7.0", "order", 7),
    ],
)
def test_times_are_read_to_the_billionth_of_a_second(text: str, unit: str, ticks: int) -> None:
    assert times.parse(text, unit) == ticks


@pytest.mark.parametrize(
    ("text", "unit"), [("soon", "seconds"), ("inf", "seconds"), ("1e99", "order"), ("1.5", "order")]
)
def test_what_is_no_time_is_a_value_error(text: str, unit: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        times.parse(text, unit)


# --- what is left out ----------------------------------------------------------------------------------------------


def test_what_is_left_out_is_said_once_with_its_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    rows = rows_at(1_500_000_000)
    raw = rows.finish(SOURCE, users(), ("a",), ("A",), ((),))
    assert (raw.source, raw.left_out, said) == (SOURCE, {}, [])
    for why in (reading.NO_USER, reading.NO_TITLE, reading.NO_USER):
        rows.leave_out(why)
    raw = rows.finish(SOURCE, users(), ("a",), ("A",), ((),))
    assert raw.left_out == {"without a user id": 2, "of items without a title": 1}
    assert said == ["tiny: left out rows: 2 without a user id, 1 of items without a title"]
    assert len(raw.user) == 1
