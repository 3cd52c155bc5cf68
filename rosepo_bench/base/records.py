"""The records of an output folder, one per cell; all tables are computed from them. A record is written completely
or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.store import explained, read_json, read_npz, write_json, write_npz

Failure = tuple[str, str, int, str]
"""Data set, method, seed, reason; the reason is empty if the cell was never run."""


SCHEMA = 1


@dataclass(frozen=True)
class Record:
    """One cell's record on disk: ``data`` is the JSON; the per-user arrays are read when asked for."""

    data: dict[str, Any]
    path: Path

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    @property
    def dataset(self) -> str:
        return str(self.data["dataset"])

    @property
    def method(self) -> str:
        return str(self.data["method"])

    @property
    def seed(self) -> int:
        return int(self.data["seed"])

    @property
    def key(self) -> str:
        return str(self.data["key"])

    @cached_property
    def predictions(self) -> dict[str, np.ndarray]:
        """``users`` int64 [n], ``rank`` int32 [n], ``scores`` float32 [n, candidates], ``top`` int32 [n]."""
        return read_npz(self.path.parent / "predictions.npz")


def record_folder(out: Path, dataset: str, method: str, seed: int, key: str) -> Path:
    """The folder of a cell's record; the key's first 12 characters keep configurations apart."""
    for name in (dataset, method, key):
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise UserError(f"{name!r} cannot name a folder: it is empty, holds '/' or starts with '.'")
    return out / "records" / dataset / method / f"seed{seed}-{key[:12]}"


def write_record(out: Path, record: Mapping[str, Any], predictions: Mapping[str, np.ndarray]) -> Path:
    """Writes ``predictions.npz``, then ``record.json``, whose existence marks the cell as done. Returns its path."""
    assert record["schema"] == SCHEMA, f"this program writes schema {SCHEMA}"
    assert len(predictions["users"]) == len(predictions["rank"]), "one rank per user"
    folder = record_folder(out, record["dataset"], record["method"], record["seed"], record["key"])
    path = folder / "record.json"
    with explained(path):
        path.unlink(missing_ok=True)  # no old record beside new predictions
    write_npz(folder / "predictions.npz", **predictions)
    write_json(path, record)
    return path


def read_records(out: Path, keys: set[str] | None = None) -> list[Record]:
    """All records below ``out``, sorted by (data set, method, seed, key); with ``keys`` only those.

    UserError: a broken record, a newer schema, or several configurations of one cell.
    """
    paths = sorted((out / "records").glob("*/*/seed*/record.json"))
    records = [Record(_checked(path), path) for path in paths]
    records = [record for record in records if keys is None or record.key in keys]
    records.sort(key=lambda record: (record.dataset, record.method, record.seed, record.key))
    for one, two in itertools.pairwise(records):
        if (one.dataset, one.method, one.seed) == (two.dataset, two.method, two.seed):
            raise UserError(
                f"{one.path.parent} and {two.path.parent}: two configurations of one cell must not be mixed; "
                "give the profile and settings that the report is for, or delete one of the two folders"
            )
    return records


def _checked(path: Path) -> dict[str, Any]:
    """Reads a record and checks its schema number and the fields that name its cell."""
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        raise UserError(f"{path}: not a record (no schema number); delete it and run again")
    if data["schema"] > SCHEMA:
        raise UserError(f"{path}: schema {data['schema']}, but this program knows {SCHEMA}; use a newer rosepo_bench")
    if missing := [name for name in ("key", "dataset", "method", "seed") if name not in data]:
        raise UserError(f"{path}: the record lacks {', '.join(missing)}; delete it and run again")
    return data
