"""The records of an output folder, one per cell; all tables are computed from them. A record is written completely
or not at all, holds its own hash, and names its prediction files with theirs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rosepo_bench.base import predictions, progress
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.migration import migrated
from rosepo_bench.base.record_schema import SCHEMA, all_settings, check, digest_of
from rosepo_bench.base.store import arrays_of, folders, read_bytes, read_json, remove, there, write_json, write_npz

AGAIN = "run its cell again"


@dataclass(frozen=True)
class Record:
    """One cell's record on disk: ``data`` is the JSON; the per-user arrays are read when asked for."""

    data: dict[str, Any]
    path: Path
    _read: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, compare=False, repr=False)

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

    @property
    def row(self) -> str:
        """The row of the tables that it belongs to: a hash of method and settings."""
        return str(self.data["row"])

    @property
    def created(self) -> str:
        """When it was written, in UTC; empty for a record of schema 1."""
        return str(self.data["created"])

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that can have changed its numbers, by dotted name; the data set's are left out."""
        return all_settings(self.data["settings"], self.data["config"])

    @property
    def protocols(self) -> list[str]:
        return list(self.data["evaluations"])

    def predictions(self, protocol: str) -> dict[str, np.ndarray]:
        """``users`` [n], ``rank`` [n] and what else the protocol gives. UserError: lost, or changed since."""
        if protocol not in self._read:
            told = self.data["evaluations"][protocol]["predictions"]
            path = self.path.parent / told["file"]
            if not there(path):
                raise UserError(f"{path} is missing; {AGAIN}")
            content = read_bytes(path)
            if told["sha256"] not in (None, _sha256(content)):
                raise UserError(f"{path} is not the file that the record was written with; {AGAIN}")
            arrays = arrays_of(content, path)
            predictions.check(arrays, str(path), AGAIN)
            self._read[protocol] = arrays
        return self._read[protocol]


def record_folder(out: Path, dataset: str, method: str, seed: int, key: str) -> Path:
    """The folder of a cell's record; the key's first 12 characters keep configurations apart."""
    _check_names(dataset, method, key)
    return out / "records" / dataset / method / f"seed{seed}-{key[:12]}"


def _check_names(*names: str) -> None:
    for name in names:
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise UserError(f"{name!r} cannot name a folder or file: it is empty, holds '/' or starts with '.'")


def write_record(out: Path, record: Mapping[str, Any], arrays: Mapping[str, Mapping[str, np.ndarray]]) -> Path:
    """Writes a file of predictions for each protocol, then ``record.json``, whose existence marks the cell as done.
    ``record`` is without ``schema``, ``created``, hashes and the evaluations' ``predictions``, which are added here.
    Returns its path. UserError, before anything is written: a field or an array that reports cannot use."""
    folder = record_folder(out, record["dataset"], record["method"], record["seed"], record["key"])
    path, then = folder / "record.json", "the record was not written"
    _check_names(*record["evaluations"])
    files = {protocol: folder / f"{protocol}.npz" for protocol in record["evaluations"]}
    for protocol, file in files.items():
        predictions.check(arrays[protocol], str(file), then)
    plain = json.loads(json.dumps(_whole(record, files), default=_plain))
    check(plain, str(path), then)
    if folder.is_symlink():  # it leads to another cell's record
        remove(folder)
    remove(path)  # no old record beside new predictions
    for protocol, file in files.items():
        remove(file)
        write_npz(file, **predictions.packed(arrays[protocol]))
        plain["evaluations"][protocol]["predictions"]["sha256"] = _sha256(read_bytes(file))
    write_json(path, {"schema": SCHEMA, "sha256": digest_of(plain), **plain})
    return path


def _whole(record: Mapping[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """The record with all its fields; the hashes of the files are still to come."""
    evaluations = {
        protocol: {**told, "predictions": {"file": files[protocol].name, "sha256": None}}
        for protocol, told in record["evaluations"].items()
    }
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"schema": SCHEMA, "created": created, **record, "evaluations": evaluations}


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as plain JSON values."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_record(path: Path) -> Record:
    """One record, of this schema or an earlier one. UserError: not a record, changed since it was written, another
    cell's, or of a newer schema."""
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        raise UserError(f"{path}: not a record (no schema number); {AGAIN}")
    if data["schema"] > SCHEMA:
        raise UserError(f"{path}: schema {data['schema']}, but this program knows {SCHEMA}; use a newer rosepo_bench")
    if data["schema"] == SCHEMA and data.get("sha256") != digest_of(data):
        raise UserError(f"{path} has changed since it was written: its sha256 differs; restore it, or {AGAIN}")
    present = data if data["schema"] == SCHEMA else _migrated(data, path)
    check(present, str(path), AGAIN)
    for protocol, told in present["evaluations"].items():
        if told["predictions"]["sha256"] is None and data["schema"] == SCHEMA:
            raise UserError(f"{path}: evaluations.{protocol}.predictions.sha256 is missing; {AGAIN}")
    own = record_folder(Path(), present["dataset"], present["method"], present["seed"], present["key"])
    if path.parent.parts[-3:] != own.parts[-3:]:
        raise UserError(f"{path} is the record of another cell: it belongs into {own}; {AGAIN}")
    return Record(present, path)


def _migrated(data: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        return migrated(data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: not a whole record of schema 1 ({error}); {AGAIN}") from None


def whole_record(path: Path) -> Record:
    """One record, its predictions read and verified too. UserError: any of them cannot be used."""
    record = read_record(path)
    for protocol in record.protocols:
        record.predictions(protocol)
    return record


def read_records(out: Path) -> tuple[list[Record], list[str]]:
    """All usable records below ``out``, sorted by data set, method, seed and age, the newest last; and what is wrong
    with the others. UserError: a folder cannot be read."""
    found, problems = [], []
    for path in _places(out):
        try:
            if there(path):
                found.append(whole_record(path))
        except UserError as error:
            problems.append(str(error))
    found.sort(key=lambda one: (one.dataset, one.method, one.seed, one.created, one.key))
    return found, problems


def _places(out: Path) -> Iterator[Path]:
    """Where records may lie below ``out``."""
    for dataset in folders(out / "records"):
        for method in folders(dataset):
            yield from (folder / "record.json" for folder in folders(method) if folder.name.startswith("seed"))


def usable(folder: Path, *, say: bool = True) -> bool:
    """Whether the folder holds a record of this program and all its predictions, as they were written. Where they are
    broken, says why (with ``say``): the cell is then to be run again. UserError: a folder on the way is a file, or
    cannot be read."""
    path = folder / "record.json"
    if not there(path) and not folder.is_symlink():
        return False
    try:
        whole_record(path)
    except UserError as error:
        if say:
            progress.say(f"  {folder.parent.parent.name}/{folder.parent.name}/{folder.name} is made again: {error}")
        return False
    return True
