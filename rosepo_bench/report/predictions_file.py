"""The file of ``report --predictions``: CSV, or Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.store import explained
from rosepo_bench.report.joined import OWN, PLACE, Rows
from rosepo_bench.report.plain import comma_cell, visible

NAMES = (*PLACE, *OWN)


def check(path: Path) -> None:
    """What can be refused before any work. UserError: neither .csv nor .parquet, a file that exists, no pyarrow."""
    where = f"--predictions {visible(str(path))}"
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"{where}: want a name that ends in .csv or .parquet")
    if path.exists() or path.is_symlink():
        raise UserError(f"{where}: this exists already; delete it, or give another name")
    if path.suffix == ".parquet":
        _pyarrow()


def write(path: Path, cells: Iterable[Rows]) -> int:
    """Writes the rows of all cells, completely or not at all; returns how many. UserError: as :func:`check`."""
    check(path)
    with _complete(path) as file:
        return (_parquet if path.suffix == ".parquet" else _comma_separated)(file, cells)


def _comma_separated(file: IO[bytes], cells: Iterable[Rows]) -> int:
    """Lists are JSON. Ids hold no control characters and begin no formula: see :func:`comma_cell`."""
    text, rows = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True), 0
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(NAMES)
    for cell in cells:
        for row in zip(*(cell[name] for name in NAMES), strict=True):
            writer.writerow(map(_text, row))
            rows += 1
    text.detach()
    return rows


def _text(value: Any) -> str:
    if isinstance(value, list):
        return json.dumps([_plain(one) for one in value], ensure_ascii=False, separators=(",", ":"))
    return "" if value is None else comma_cell(str(value))


def _plain(value: str | float) -> str | float | None:
    """A part of a list: scores with the nine digits that tell numbers of 32 bits apart, null where not finite."""
    if isinstance(value, str):
        return visible(value)
    return float(f"{value:.9g}") if math.isfinite(value) else None


def _parquet(file: IO[bytes], cells: Iterable[Rows]) -> int:
    """Ids are as they are, lists are lists."""
    arrow, parquet, rows = *_pyarrow(), 0
    types = dict.fromkeys(NAMES, arrow.string()) | {"seed": arrow.int64(), "rank": arrow.int32()}
    types |= {"candidates": arrow.list_(arrow.string()), "scores": arrow.list_(arrow.float32())}
    schema = arrow.schema(list(types.items()))
    with parquet.ParquetWriter(file, schema) as writer:
        for cell in cells:
            table = arrow.table({name: cell[name] for name in NAMES}, schema=schema)
            writer.write_table(table)
            rows += len(table)
    return rows


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UserError(
            "Parquet needs the package pyarrow, which is not installed: `pip install pyarrow`, or give a name that "
            "ends in .csv"
        ) from None


@contextmanager
def _complete(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name at the end."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                yield file
                file.flush()
                os.replace(file.name, path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
