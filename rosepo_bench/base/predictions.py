"""The arrays of a file of predictions: a row per test user in each but ``counts``, which has one per item. What reports
and metrics read of them is checked; a protocol may add more."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rosepo_bench.base.errors import UserError

FLAGS = ("tied", "valid", "seen", "correct")
ITEMS = ("top", "named", "target", "items")
PER_ITEM = ("counts",)  # of the catalogue, all others per test user
KINDS = {
    "rank": ("i", "whole numbers"),
    "scores": ("f", "numbers"),
    "counts": ("i", "whole numbers"),
    "text": ("U", "text"),
    **dict.fromkeys(ITEMS, ("i", "whole numbers")),
    **dict.fromkeys(FLAGS, ("b", "true or false")),
}


def check(arrays: Mapping[str, np.ndarray], where: str, then: str) -> None:
    """UserError: no ``users`` [n] (numbers or names, each once); another array without a row for each of them;
    ``rank`` [n] that is no whole number from 1 up; ITEMS [n] that are no whole numbers, or none of the catalogue's;
    FLAGS [n] that are no truth values; ``scores`` [n, m] that are no numbers, or other numbers than there are
    ``candidates`` [n, m]."""

    def refuse(name: str, problem: str) -> None:
        raise UserError(f"{where}: {name} {problem}; {then}")

    if "users" not in arrays:
        refuse("users", "is missing")
    users = arrays["users"]
    if users.ndim != 1 or users.dtype.kind not in "iuU":
        refuse("users", f"has dtype {users.dtype} and shape {users.shape}, want one number or name per user")
    if len(np.unique(users)) != len(users):
        refuse("users", "names a user twice")
    for name, array in arrays.items():
        if array.shape[:1] != users.shape and name not in PER_ITEM:
            refuse(name, f"has shape {array.shape}, want a row for each of {len(users)} users")
        kind, wanted = KINDS.get(name, (array.dtype.kind, ""))
        if array.dtype.kind != kind:
            refuse(name, f"has dtype {array.dtype}, want {wanted}")
    for name in ("rank", "top", "named", "target", "text", "counts", *FLAGS):
        if name in arrays and arrays[name].ndim != 1:
            refuse(name, f"has shape {arrays[name].shape}, want one value per user")
    if "scores" in arrays and arrays["scores"].shape != arrays.get("candidates", arrays["scores"]).shape:
        refuse("candidates", f"has shape {arrays['candidates'].shape}, want that of scores, {arrays['scores'].shape}")
    if "scores" in arrays and np.isnan(arrays["scores"]).any():
        refuse("scores", "holds NaN")
    for name in ITEMS if "counts" in arrays else ():
        items, least = arrays.get(name, np.zeros(0, dtype=int)), -1 if name == "named" else 0
        if np.any((items < least) | (items >= len(arrays["counts"]))):
            refuse(name, f"names an item outside of the catalogue, which has {len(arrays['counts'])}")
    if "rank" in arrays and arrays["rank"].min(initial=1) < 1:
        refuse("rank", "holds a number below 1, the best rank")


def packed(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as they are stored: ranks as int16, or int32 where that is too short; scores as float32."""
    found = dict(arrays)
    if "rank" in found:
        short = found["rank"].max(initial=0) <= np.iinfo(np.int16).max
        found["rank"] = found["rank"].astype(np.int16 if short else np.int32)
    if "scores" in found:
        found["scores"] = found["scores"].astype(np.float32)
    return found
