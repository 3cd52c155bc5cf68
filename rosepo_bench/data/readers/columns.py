"""Integer columns of large text files: read in bulk, times checked, ids reindexed."""

from __future__ import annotations

import re
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers.reading import broken, lines

CHUNK_ROWS = 250_000
EARLIEST, LATEST = 631_152_000, 4_102_444_800  # 1990 and 2100: a truncated number falls outside


def integer_columns(
    path: Path, delimiter: str, columns: tuple[int, ...], header: int = 0
) -> Int64[np.ndarray, "rows columns"]:
    """Columns of a large delimited text file; ``header`` lines are skipped.

    The parsing is numpy's C code, a quarter of a million lines at a time. Other columns may hold anything,
    or nothing."""
    chunks = [np.empty((0, len(columns)), dtype=np.int64)]
    try:
        with path.open(encoding="latin-1") as handle, warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # else 1.5 would be read as 1
            for _ in islice(handle, header):
                pass
            while part := list(islice(handle, CHUNK_ROWS)):
                chunk = np.loadtxt(part, np.int64, delimiter=delimiter, usecols=columns, comments=None, ndmin=2)
                if len(chunk) != len(part):
                    raise ValueError("numpy skips blank lines")
                chunks.append(chunk)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, DeprecationWarning):
        raise _first_bad_line(path, delimiter, columns, header) from None
    return np.concatenate(chunks)


def _first_bad_line(path: Path, delimiter: str, columns: tuple[int, ...], header: int) -> UserError:
    """Finds the line that the bulk parser failed on; slow, but only run after a failure."""
    expected = f"integers in columns {', '.join(str(column + 1) for column in columns)} separated by {delimiter!r}"
    for number, line in lines(path, "latin-1"):
        if number <= header:
            continue
        fields = line.split(delimiter)
        whole = len(fields) > max(columns)
        if not whole or not all(re.fullmatch(r"\s*[+-]?\d{1,18}\s*", fields[column]) for column in columns):
            return broken(path, number, expected, line)
    return UserError(f"{path}: cannot be parsed as {expected}")


def check_times(path: Path, time: Int64[np.ndarray, " rows"], header: int = 0) -> None:
    """Refuses unix seconds outside 1990-2100: a truncated line can end in a number that still parses."""
    bad = np.flatnonzero((time < EARLIEST) | (time > LATEST))
    if len(bad):
        row = int(bad[0])
        raise broken(path, row + header + 1, "a time in unix seconds between 1990 and 2100", str(int(time[row])))


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
