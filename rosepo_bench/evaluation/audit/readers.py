"""Readers of others' candidate files: CSV, JSON and JSON lines; the names of LLaRA's and S-DPO's fields are known."""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.readers.reading import broken, lines
from rosepo_bench.evaluation.audit.table import RawRow

SEPARATORS = ("::", "|", " ")
ALIASES = {"historyList": "history", "itemList": "candidates", "trueSelection": "target"}


def read(path: Path, lists: bool = True) -> dict[str, list[RawRow]]:
    """The rows of a ``.csv``, ``.json`` or ``.jsonl`` file by split: all of ``""`` unless the file has a field
    ``split``. Without ``lists``, rows need no candidates. UserError: another format, no rows, or a row that is none,
    with its line."""
    kinds = {".csv": _csv, ".json": _json, ".jsonl": _json}
    if path.suffix not in kinds:
        raise UserError(f"{path}: unknown format; give a file that ends with .csv, .json, .jsonl or .npz")
    found = list(kinds[path.suffix](path))
    separator = _separator([told["candidates"] for _, told in found if isinstance(told.get("candidates"), str)])
    splits: dict[str, list[RawRow]] = {}
    for line, told in found:
        splits.setdefault(str(told.get("split") or ""), []).append(_row(path, line, told, separator, lists))
    if not splits:
        raise UserError(f"{path}: no rows; the file is empty")
    return splits


def titles(path: Path) -> dict[str, str]:
    """Titles by item, of a CSV file with the columns item and title."""
    return {told["item"]: told["title"] for _, told in _records(path, ("item", "title"))}


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    return _records(path, ("target",))


def _records(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = csv.reader((text for _, text in lines(path)), strict=True)
    try:
        header = next(rows, [])
        names = [ALIASES.get(name.strip(), name.strip()) for name in header]
        for name in wanted:
            if names.count(name) != 1:
                raise broken(path, 1, f"a header with one column {name}", ",".join(header), "rename its columns")
        for row in rows:
            if len(row) != len(names):
                cause = "quote the fields that hold commas"
                raise broken(path, rows.line_num, f"{len(names)} columns", ",".join(row), cause)
            yield rows.line_num, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise broken(path, rows.line_num, "a csv row", str(error)) from None


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = list(lines(path))
    if text and text[0][1].lstrip().startswith("["):
        yield from enumerate(_array(path, text), start=1)
        return
    for line, one in text:
        if one and not one.isspace():
            try:
                told = json.loads(one)
            except (ValueError, RecursionError) as error:
                raise broken(path, line, "a JSON object", one, f"{error}: write one object a line") from None
            yield line, _named(path, line, told)


def _array(path: Path, text: list[tuple[int, str]]) -> list[dict[str, Any]]:
    try:
        found = json.loads("\n".join(one for _, one in text))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    return [_named(path, place, told) for place, told in enumerate(found, start=1)]


def _named(path: Path, line: int, told: Any) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise broken(path, line, "an object with target and candidates", str(told), "write one object a row")
    return {str(ALIASES.get(name, name)): value for name, value in told.items()}


def _row(path: Path, line: int, told: Mapping[str, Any], separator: str, lists: bool) -> RawRow:
    def listed(name: str) -> tuple[str, ...]:
        value = told.get(name)
        if isinstance(value, str):
            value = _literal(value) if value.startswith("[") and value.endswith("]") else value
        if isinstance(value, str):
            value = value.split(separator if separator.strip() else None) if value else []
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(one, str | int) for one in value):
            raise broken(
                path, line, f"{name} to be a list of items", str(value), "separate its items by ::, | or blanks"
            )
        return tuple(map(str, value))

    target = told.get("target")
    if not isinstance(target, str | int) or str(target) == "":
        raise broken(path, line, "a target", str(target), "give each row one item as its target")
    candidates = listed("candidates")
    if lists and not candidates:
        raise broken(path, line, "candidates", "none", "give each row the list of which its target is one")
    user = told.get("user")
    return RawRow("" if user is None else str(user), listed("history"), str(target), candidates)


def _literal(text: str) -> Any:
    """A list as Python or pandas writes it; the text itself where it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _separator(lists: Sequence[str]) -> str:
    """The first separator that stands in every list of the file: titles may hold the later ones."""
    plain = [text for text in lists if not text.startswith("[")]
    return next((one for one in SEPARATORS if all(one in text for text in plain)), SEPARATORS[0])
