"""Frozen candidate lists: the target among uniform negatives. The seeds depend on the user, never on the target.

Negatives are items that the user had not interacted with by the time of the target, which is not among them either.
Items of the user's future may be negatives: excluding them would leak the future. Where a user has met so many items
that too few are left for a list, there is no example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import digest, generator
from rosepo_bench.base.store import read_npz, write_npz
from rosepo_bench.data.types import Dataset, Examples, Split

Part = Literal["train", "validation", "test"]
ARRAYS = ("user", "step", "target", "candidates", "position")


def draw(
    dataset: Dataset,
    split: Split,
    part: Part,
    *,
    seed: int,
    size: int = 20,
    users: int = 0,
    steps: Sequence[Sequence[int]] | None = None,
) -> Examples:
    """The examples of one part, ascending by (user, step); their prompts start at 0, the task moves them.

    Users for whom no list can be drawn (:func:`with_list`) are left out, and so are their training steps. ``users`` > 0
    keeps a random subset of that many others, the same for validation and test. ``steps`` (required for train, refused
    elsewhere) holds each user's target positions, at least 1 and below ``split.train_end``. UserError: more than half
    of the users with a target would be left out."""
    if size < 2:
        raise UserError(f"candidates: a list of {size} has nothing to rank; give at least 2")
    if part == "train":
        if steps is None or users:
            raise UserError("train examples: give `steps` for each user, and leave `users` at 0")
        user, step = _train_steps(dataset, split, steps, size)
    elif steps is not None:
        raise UserError(f"{part} examples: the split decides their steps; give no `steps`")
    else:
        positions = split.validation if part == "validation" else split.test
        check_lists(dataset, positions, size)
        user = _subset(dataset, split, with_list(dataset, positions, size), seed, users)
        step = positions[user]
    target = np.array([dataset.sequences[u][s] for u, s in zip(user, step, strict=True)], dtype=np.int64)
    candidates = np.empty((len(user), size), dtype=np.int32)
    position = np.empty(len(user), dtype=np.int64)
    for row, (u, s) in enumerate(zip(user.tolist(), step.tolist(), strict=True)):
        purpose = ("candidates", dataset.name, split.kind, part, u, *((s,) if part == "train" else ()))
        rng = generator(seed, *purpose)
        position[row] = at = int(rng.integers(size))  # drawn before the target is looked at
        negatives = _negatives(dataset, u, s, size - 1, rng)
        candidates[row] = np.insert(negatives, at, dataset.sequences[u][s])
    return Examples(user, step, np.zeros_like(step), candidates, target, position)


def longest(items: int, size: int) -> int:
    """The longest history, its target included, that leaves ``size`` - 1 of ``items`` items for a list."""
    return max(0, items - size + 1)


def with_list(dataset: Dataset, positions: Int64[np.ndarray, " users"], size: int) -> Bool[np.ndarray, " users"]:
    """Users with a target at ``positions`` (-1: none) and enough items left for a list of ``size``."""
    return (positions >= 0) & (positions < longest(dataset.items, size))


def check_lists(dataset: Dataset, positions: Int64[np.ndarray, " users"], size: int) -> None:
    """UserError: more than half of the users with a target at ``positions`` have no list of ``size``; names the largest
    size that half of them have."""
    step = np.sort(positions[positions >= 0])
    without = np.flatnonzero((positions >= 0) & ~with_list(dataset, positions, size))
    if 2 * len(without) <= len(step):
        return
    most = dataset.items - int(step[(len(step) - 1) // 2])
    raise UserError(
        f"{dataset.full_name}: {len(without)} of {len(step)} users with a target, such as user "
        f"{dataset.user_id(int(without[0]))}, have met so many of the {dataset.items} items that fewer than {size - 1} "
        f"are left to fill a list of {size}: "
        + (f"set `candidates` to at most {most}" if most > 1 else "the data set has too few items")
    )


def freeze(path: Path, examples: Examples) -> str:
    """Writes the lists together with the sha256 of their content, and returns it."""
    arrays = {name: getattr(examples, name) for name in ARRAYS}
    content = digest(*arrays.values())
    write_npz(path, **arrays, sha256=np.array(content))
    return content


def thaw(path: Path) -> Examples:
    """Reads frozen lists. UserError: missing, not a candidate file, or changed since it was written."""
    arrays = read_npz(path)
    if set(arrays) != {*ARRAYS, "sha256"}:
        raise UserError(f"{path}: not a candidate file (it holds {', '.join(sorted(arrays))}); delete it and run again")
    expected, found = str(arrays.pop("sha256")), digest(*(arrays[name] for name in ARRAYS))
    if expected != found:
        raise UserError(
            f"{path}: the lists hash to {found}, but {expected} was recorded; delete the file and run again"
        )
    return Examples(start=np.zeros_like(arrays["step"]), **arrays)


def content_hash(examples: Examples) -> str:
    """The sha256 that :func:`freeze` returns for these lists."""
    return digest(*(getattr(examples, name) for name in ARRAYS))


def _negatives(
    dataset: Dataset, user: int, step: int, number: int, rng: np.random.Generator
) -> Int64[np.ndarray, " number"]:
    fresh = np.ones(dataset.items, dtype=bool)
    fresh[dataset.sequences[user][: step + 1]] = False
    return rng.choice(np.flatnonzero(fresh), number, replace=False)


def _subset(
    dataset: Dataset, split: Split, able: Bool[np.ndarray, " users"], seed: int, users: int
) -> Int64[np.ndarray, " n"]:
    """The able users, all or a random subset. One random order of all users serves every part and size, so that a
    larger subset contains a smaller one."""
    if not users or users >= int(able.sum()):
        return np.flatnonzero(able)
    order = generator(seed, "evaluated users", dataset.name, split.kind).permutation(dataset.users)
    return np.sort(order[able[order]][:users])


def _train_steps(
    dataset: Dataset, split: Split, steps: Sequence[Sequence[int]], size: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    if len(steps) != dataset.users:
        raise UserError(f"train examples: {len(steps)} lists of steps for {dataset.users} users")
    user = np.repeat(np.arange(dataset.users), [len(own) for own in steps])
    step = np.array([position for own in steps for position in sorted(own)], dtype=np.int64)
    bad = np.flatnonzero((step < 1) | (step >= split.train_end[user]))
    if len(bad):
        name, s = dataset.user_id(int(user[bad[0]])), int(step[bad[0]])
        raise UserError(f"train examples: user {name} has no training target with a history at step {s}")
    listed = step < longest(dataset.items, size)
    return user[listed], step[listed]
