"""Cells and tables: escaped, aligned, never misleading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rosepo_bench.base.intervals import Interval
from rosepo_bench.report import markdown as md


def cells(row: str) -> list[str]:
    """The cells of a GitHub table row: split at bars that no backslash escapes, then unescaped."""
    found, current, escaped = [], "", False
    for letter in row.strip()[1:-1]:
        if escaped:
            current, escaped = current + letter, False
        elif letter == "\\":
            escaped = True
        elif letter == "|":
            found.append(current.strip())
            current = ""
        else:
            current += letter
    return [*found, current.strip()]


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=10),
        min_size=2,
        max_size=4,
    )
)
def test_any_name_keeps_its_cell(names: list[str]) -> None:
    row = md.table(["a"] * len(names), [[md.escape(name) for name in names]]).splitlines()[2:]
    assert len(row) == 1
    assert cells(row[0]) == names


def test_escape_takes_one_line_and_disarms() -> None:
    assert md.escape("a|b\\c\n <i> *x* [l](u)") == r"a\|b\\c \<i\> \*x\* \[l\](u)"
    assert md.escape("`a` #1 ~~b~~ &lt; $x$") == r"\`a\` \#1 \~\~b\~\~ \&lt; \$x\$"
    assert md.escape("zero_shot") == "zero_shot", "no emphasis begins inside a word"
    assert md.escape("_a_ b__c _") == r"\_a\_ b\_\_c \_"


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.1, False, "0.100"),
        (-0.0001, False, "0.000"),
        (-0.0001, True, "+0.000"),
        (0.0, True, "+0.000"),
        (0.0126, True, "+0.013"),
        (-0.0126, True, "-0.013"),
        (None, True, "–"),
    ],
)
def test_number(value: float | None, signed: bool, text: str) -> None:
    assert md.number(value, signed=signed) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (41.26, "41.3"), (9.444, "9.44"), (0.04, "0.04"), (2, "2"), (0, "0"), (None, "–")],
)
def test_quantity(value: float | None, text: str) -> None:
    assert md.quantity(value) == text


def test_intervals_from_both_forms() -> None:
    interval = Interval(0.5, 0.401, 0.6, 100)
    assert md.interval(interval) == md.interval(interval.as_dict()) == "0.500 [0.401, 0.600]"
    assert md.interval(Interval(-0.01, -0.02, 0.0, 9), signed=True) == "-0.010 [-0.020, +0.000]"
    assert md.interval(None) == "–"


def test_distinct_and_percent() -> None:
    assert md.distinct(["cpp", "reference", "cpp"]) == "cpp, reference"
    assert md.distinct([1.0, 0.1]) == "1, 0.1"
    assert md.percent(0.0449) == "4.5 %"
    assert md.percent(None) == "–"


def test_table_aligns_and_keeps_digits() -> None:
    text = md.table(["name", "value"], [["a", "0.10"], ["long name", "12.00"]], left=["name"])
    assert text.splitlines() == [
        "| name      |   value |",
        "|:----------|--------:|",
        "| a         |    0.10 |",
        "| long name |   12.00 |",
    ]


def test_paragraphs_wrap_and_bullets_are_cut() -> None:
    text = md.paragraph("word " * 60, "", "end.")
    assert max(map(len, text.splitlines())) <= 100
    assert text.split() == ["word"] * 60 + ["end."]
    assert md.bullets(["a", "b"]) == "- a\n- b"
    assert len(md.bullets(["x " * 400])) <= 302
