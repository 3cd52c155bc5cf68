"""Integer columns of large text files: read in bulk, ids reindexed."""

from __future__ import annotations

import re
import warnings
from array import array
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers.causes import other_separator
from rosepo_bench.data.readers.reading import broken, lines, missing

CHUNK_ROWS = 250_000
MOST_DIGITS = 18  # of a number in eight bytes
_INTEGER = re.compile(rf"\s*[+-]?\d{{1,{MOST_DIGITS}}}(?:\.0+)?\s*")  # pandas writes 7.0 into a column with holes


def integer_columns(
    path: Path, separator: str, columns: dict[int, str], header: int = 0
) -> tuple[Int64[np.ndarray, "rows columns"], Counter[str]]:
    """Columns of a large delimited text file, and the rows that are left out; ``header`` lines are skipped.
    ``columns``: why a row is left out whose field in this column is missing, by position.

    The parsing is numpy's C code, a quarter of a million lines at a time; a file that it refuses is read line by line.
    Other columns may hold anything, or nothing."""
    chunks = [np.empty((0, len(columns)), dtype=np.int64)]
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as handle, warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # else 1.5 would be read as 1
            for _ in islice(handle, header):
                pass
            while part := list(islice(handle, CHUNK_ROWS)):
                chunk = np.loadtxt(part, np.int64, delimiter=separator, usecols=[*columns], comments=None, ndmin=2)
                if len(chunk) != len(part):
                    raise ValueError("numpy skips blank lines")
                chunks.append(chunk)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, DeprecationWarning):
        return _line_by_line(path, separator, columns, header)
    return np.concatenate(chunks), Counter()


def _line_by_line(
    path: Path, separator: str, columns: dict[int, str], header: int
) -> tuple[Int64[np.ndarray, "rows columns"], Counter[str]]:
    """The same, slowly: leaves out rows with a missing field and names the first line that cannot be read."""
    numbers, left_out = array("q"), Counter[str]()
    for number, line in lines(path, "latin-1"):
        if number <= header:
            continue
        fields = line.split(separator)
        if len(fields) <= max(columns):
            raise _unreadable(path, number, line, separator, columns)
        if why := next((why for column, why in columns.items() if missing(fields[column])), ""):
            left_out[why] += 1
        elif _integers(fields, columns):
            numbers.extend(int(fields[column].partition(".")[0]) for column in columns)
        else:
            raise _unreadable(path, number, line, separator, columns)
    return np.array(numbers, dtype=np.int64).reshape(-1, len(columns)), left_out


def _integers(fields: Sequence[str], columns: Collection[int]) -> bool:
    return len(fields) > max(columns) and all(_INTEGER.fullmatch(fields[column]) for column in columns)


def _unreadable(path: Path, number: int, line: str, separator: str, columns: dict[int, str]) -> UserError:
    places = ", ".join(str(column + 1) for column in columns)
    expected = f"integers in columns {places} separated by {separator!r}"
    written = "::" if separator == ":" else separator  # numpy takes single characters, see movielens.read_1m
    cause = other_separator(line, written, lambda fields: _integers(fields, columns))
    if number == 1 and not re.search(r"\d", line):
        cause = "this is a header, and the owner's file has none: delete the line"
    return broken(path, number, expected, line, cause)


def reindex(ids: Int64[np.ndarray, " rows"]) -> tuple[Int64[np.ndarray, " known"], Int64[np.ndarray, " rows"]]:
    """``(known, index)``: the distinct ids ascending, and each row's index among them."""
    top = int(ids.max(initial=0))
    if len(ids) and int(ids.min()) >= 0 and top < 50_000_000:  # a table is far cheaper than sorting the rows
        seen = np.zeros(top + 1, dtype=bool)
        seen[ids] = True
        known = np.flatnonzero(seen)
        table = np.zeros(top + 1, dtype=np.int64)
        table[known] = np.arange(len(known))
        return known, table[ids]
    known, index = np.unique(ids, return_inverse=True)
    return known, index.astype(np.int64)
