"""Why cells failed: one file per cell, so that several processes can write into one output folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.record_schema import row_of
from rosepo_bench.base.store import explained, read_json, write_json

_FIELDS = {"dataset": str, "method": str, "seed": int, "reason": str, "key": str, "settings": dict, "traceback": list,
           "created": str}  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """A cell without a record. An empty ``reason``: it was never run. ``settings`` by dotted name say which row of the
    tables it would be in."""

    dataset: str
    method: str
    seed: int
    reason: str = ""
    key: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    traceback: list[str] = field(default_factory=list)
    created: str = ""

    @property
    def row(self) -> str:
        """The row of the tables, as records have it."""
        return row_of(self.method, self.settings, {})

    @property
    def place(self) -> tuple[str, str, int, str]:
        return self.dataset, self.method, self.seed, self.row


def failure_file(out: Path, dataset: str, method: str, seed: int) -> Path:
    """The file that says why a cell failed when it was last run, under whatever settings."""
    return out / "failures" / f"{dataset}-{method}-seed{seed}.json"


def write_failure(out: Path, failure: Failure) -> Path:
    """Notes that a cell failed; returns the file's path."""
    path = failure_file(out, failure.dataset, failure.method, failure.seed)
    write_json(path, {**asdict(failure), "created": datetime.now(UTC).isoformat(timespec="milliseconds")})
    return path


def forget_failure(out: Path, dataset: str, method: str, seed: int) -> None:
    """Removes what was noted of this cell: it has a record now."""
    path = failure_file(out, dataset, method, seed)
    with explained(path):
        path.unlink(missing_ok=True)


def read_failures(out: Path) -> list[Failure]:
    """The cells that failed when they were last run. UserError: a file that is no note of a failure."""
    paths = sorted((out / "failures").glob("*.json"))
    return [failure for path in paths if (failure := _read(path)) is not None]


def _read(path: Path) -> Failure | None:
    """None: another process has run that cell in the meantime."""
    try:
        told = read_json(path)
    except UserError:
        if path.exists():
            raise
        return None
    if not isinstance(told, dict) or any(not isinstance(told.get(name), kind) for name, kind in _FIELDS.items()):
        raise UserError(f"{path}: not a note of a failed cell; delete it")
    return Failure(**{name: told[name] for name in _FIELDS})
