"""The hash of the compiled sources. Imports only the standard library, as setup.py runs this file by its path."""

from __future__ import annotations

import hashlib
from pathlib import Path

SUFFIXES = (".h", ".cpp", ".cu", ".cuh", ".py")


def source_hash(csrc: Path) -> str:
    """A hash of 16 hex digits over names and contents of the sources in ``csrc``, the build plan with its flags
    included."""
    hasher = hashlib.sha256()
    for path in sorted(csrc.iterdir()):
        if path.suffix in SUFFIXES:
            content = path.read_bytes()
            hasher.update(f"{path.name}\0{len(content)}\0".encode())
            hasher.update(content)
    return hasher.hexdigest()[:16]
