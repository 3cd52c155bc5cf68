"""All randomness derives from one seed: the purpose of each draw is hashed into it, so that no two share a stream."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def derive(seed: int, *parts: str | int) -> int:
    """A 63-bit seed for one purpose, e.g. ``derive(seed, "candidates", "test", user)``."""
    text = json.dumps([seed, *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *parts: str | int) -> np.random.Generator:
    """The numpy generator for one purpose."""
    return np.random.default_rng(derive(seed, *parts))


def digest(*parts: Any) -> str:
    """sha256 (hex) of arrays, bytes and JSON values; of arrays dtype and shape are hashed too."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(f"{part.dtype.str}{part.shape}".encode())
            state.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, bytes):
            state.update(len(part).to_bytes(8, "big") + part)
        else:
            text = json.dumps(part, sort_keys=True, ensure_ascii=False)
            state.update(text.encode(errors="backslashreplace") + b"\0")  # a path's undecodable bytes count too
    return state.hexdigest()
