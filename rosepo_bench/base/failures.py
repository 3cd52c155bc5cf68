"""Why cells failed: one file per cell, so that several processes can write into one output folder. And the failures of
the machine, after which no cell can be computed: they end a run."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.record_schema import row_of
from rosepo_bench.base.store import read_json, remove, write_json

_FIELDS = {"dataset": str, "method": str, "seed": int, "reason": str, "key": str, "settings": dict, "traceback": list,
           "created": str}  # fmt: skip

# What the machine can lack, and what to do. A library without Python's OSError gives the system's words for it.
_LACKS = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space"),
    errno.ENOMEM: ("out of memory", "free some memory, or lower batch_tokens and scoring.batch_tokens"),
}


class StoppedError(UserError):
    """The machine cannot go on; what is finished is intact, and the same command resumes."""


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
    remove(path)
    write_json(path, {**asdict(failure), "created": datetime.now(UTC).isoformat(timespec="milliseconds")})
    return path


def forget_failure(out: Path, dataset: str, method: str, seed: int) -> None:
    """Removes what was noted of this cell: it has a record now."""
    remove(failure_file(out, dataset, method, seed))


def read_failures(out: Path) -> list[Failure]:
    """The cells that failed when they were last run. UserError: a file that is no note of a failure."""
    paths = sorted((out / "failures").glob("*.json"))
    return [failure for path in paths if (failure := _read(out, path)) is not None]


def _read(out: Path, path: Path) -> Failure | None:
    """None: another process has run that cell in the meantime."""
    try:
        told = read_json(path)
    except UserError:
        if os.path.lexists(path):
            raise
        return None
    if not isinstance(told, dict) or any(not isinstance(told.get(name), kind) for name, kind in _FIELDS.items()):
        raise UserError(f"{path}: not a note of a failed cell; delete it")
    failure = Failure(**{name: told[name] for name in _FIELDS})
    if failure_file(out, failure.dataset, failure.method, failure.seed) != path:
        raise UserError(f"{path}: the note of another cell; delete it")
    return failure


@contextmanager
def stopping() -> Iterator[None]:
    """Turns an error from a full disk or from lack of memory into a StoppedError that says what to do."""
    try:
        yield
    except StoppedError:
        raise
    except Exception as error:
        if (code := lacking(error)) is None:
            raise
        what, remedy = _LACKS[code]
        told = str(error).partition(";")[0] if isinstance(error, UserError) else f"{what} ({named(error)})"
        raise StoppedError(f"{told}; {remedy}") from error


def lacking(error: BaseException) -> int | None:
    """What the machine lacked when ``error``, or one that it came from, was raised: ENOSPC, EDQUOT or ENOMEM."""
    chain: BaseException | None = error
    while chain is not None:
        own = errno.ENOMEM if isinstance(chain, MemoryError) else getattr(chain, "errno", None)
        for code in _LACKS:
            if own == code or os.strerror(code) in str(chain):
                return code
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return None


def named(error: BaseException) -> str:
    """An error's type and the first line of its text."""
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
