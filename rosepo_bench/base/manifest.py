"""The manifest of a finished folder: what made it, size and sha256 of every file in it, and its own sha256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import digest

SCHEMA = 2
NAME = "manifest.json"


class BrokenError(Exception):
    """The folder does not hold what was written into it; the text says what is wrong."""


def write(folder: Path, facts: dict[str, Any]) -> None:
    """Describes ``folder`` as it is now: ``facts`` with ``name`` and ``key``, the time, its files."""
    facts = {
        **facts,
        "schema": SCHEMA,
        "computed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path != folder / NAME
        },
    }
    plain = json.loads(json.dumps(facts))  # as it will be read
    store.write_json(folder / NAME, {**plain, "sha256": _own_digest(plain)})


def read(folder: Path) -> dict[str, Any]:
    """The manifest. BrokenError: it is missing, unreadable, of another schema, or changed since it was written."""
    path = folder / NAME
    if not os.path.lexists(path):
        raise BrokenError(f"it has no {NAME}")
    try:
        facts = store.read_json(path)
    except UserError:
        raise BrokenError(f"its {NAME} is unreadable") from None
    if not _valid(facts):
        raise BrokenError(f"its {NAME} is not of schema {SCHEMA}")
    if facts.get("sha256") != _own_digest(facts):
        raise BrokenError(f"its {NAME} has changed since it was written")
    return dict(facts)


def _valid(facts: Any) -> bool:
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA or not isinstance(facts.get("files"), dict):
        return False
    inside = all(Path("/", name) == Path(os.path.normpath(f"/{name}")) for name in facts["files"])
    hashed = all(
        isinstance(file, dict) and isinstance(file.get("bytes"), int) and isinstance(file.get("sha256"), str)
        for file in facts["files"].values()
    )
    return inside and hashed and all(isinstance(facts.get(name), str) for name in ("name", "key"))


def _own_digest(facts: dict[str, Any]) -> str:
    return digest({name: value for name, value in facts.items() if name != "sha256"})


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
        if sha256(path) != wanted["sha256"]:
            raise BrokenError(f"{name} has other bytes than when it was written")
    return facts


def sha256(path: Path) -> str:
    """Of a file, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def every(parent: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The finished folders in ``parent`` with their manifests. Those without a readable one are left out, and links:
    what they lead to belongs to others."""
    for path in sorted(parent.glob(f"*/{NAME}")):
        with contextlib.suppress(BrokenError, OSError):
            if not path.parent.is_symlink():
                yield path.parent, read(path.parent)


def size(facts: dict[str, Any]) -> int:
    """Bytes of all files that a manifest lists."""
    return sum(int(file["bytes"]) for file in facts["files"].values())


def touch(folder: Path) -> None:
    """Marks the folder as read now, where it may be written to."""
    with contextlib.suppress(OSError):
        os.utime(folder / NAME, follow_symlinks=False)


def last_read(folder: Path) -> float:
    """Unix seconds of the last :func:`touch`; 0 without a manifest."""
    try:
        return (folder / NAME).stat().st_mtime
    except OSError:
        return 0.0
