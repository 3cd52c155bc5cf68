"""The manifest of a finished folder: what made it, and size and sha256 of every file in it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError

SCHEMA = 1
NAME = "manifest.json"


class BrokenError(Exception):
    """The folder does not hold what was written into it; the text says what is wrong."""


def write(folder: Path, facts: dict[str, Any]) -> None:
    """Describes ``folder`` as it is now: ``facts`` with ``name`` and ``key``, the time, its files."""
    facts = {
        "schema": SCHEMA,
        **facts,
        "computed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path != folder / NAME
        },
    }
    store.write_json(folder / NAME, facts)


def read(folder: Path) -> dict[str, Any]:
    """The manifest. BrokenError: it is missing, unreadable or of another schema."""
    path = folder / NAME
    if not path.is_file():
        raise BrokenError(f"it has no {NAME}")
    try:
        facts = store.read_json(path)
    except UserError:
        raise BrokenError(f"its {NAME} is unreadable") from None
    if not _valid(facts):
        raise BrokenError(f"its {NAME} is not of schema {SCHEMA}")
    return dict(facts)


def _valid(facts: Any) -> bool:
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA or not isinstance(facts.get("files"), dict):
        return False
    sized = all(isinstance(file, dict) and isinstance(file.get("bytes"), int) for file in facts["files"].values())
    return sized and all(isinstance(facts.get(name), str) for name in ("name", "key"))


def verify(folder: Path, key: str) -> dict[str, Any]:
    """The manifest of a folder that holds the result of ``key``, byte for byte. BrokenError says what differs."""
    facts = read(folder)
    if facts.get("key") != key:
        raise BrokenError(f"its {NAME} has another key")
    for name, wanted in facts["files"].items():
        path = folder / name
        if not path.is_file():
            raise BrokenError(f"{name} is missing")
        if path.stat().st_size != wanted["bytes"]:
            raise BrokenError(f"{name} has another size than when it was written")
        if sha256(path) != wanted.get("sha256"):
            raise BrokenError(f"{name} has other bytes than when it was written")
    return facts


def sha256(path: Path) -> str:
    """Of a file, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def every(parent: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The finished folders in ``parent`` with their manifests; those without a readable one are left out."""
    for path in sorted(parent.glob(f"*/{NAME}")):
        with contextlib.suppress(BrokenError, OSError):
            yield path.parent, read(path.parent)


def size(facts: dict[str, Any]) -> int:
    """Bytes of all files that a manifest lists."""
    return sum(int(file["bytes"]) for file in facts["files"].values())


def touch(folder: Path) -> None:
    """Marks the folder as read now, where it may be written to."""
    with contextlib.suppress(OSError):
        os.utime(folder / NAME)


def last_read(folder: Path) -> float:
    """Unix seconds of the last :func:`touch`; 0 without a manifest."""
    try:
        return (folder / NAME).stat().st_mtime
    except OSError:
        return 0.0
