"""Which training steps become preference pairs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.data.types import Split


def choose_steps(
    split: Split, *, pairs: int, steps_per_user: int, seed: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """User and step of each pair: users in random order, and the last ``steps_per_user`` training steps with a history
    of each, until there are ``pairs`` (fewer if there are not enough). A user's steps are contiguous and ascending, so
    that their pairs share a prefix. The last user may contribute fewer steps: their latest."""
    users: list[Int64[np.ndarray, " _"]] = []
    steps: list[Int64[np.ndarray, " _"]] = []
    missing = pairs
    for user in generator(seed, "pair users").permutation(len(split.train_end)):
        end = int(split.train_end[user])
        count = min(missing, steps_per_user, end - 1)
        if count <= 0:
            continue
        steps.append(np.arange(end - count, end, dtype=np.int64))
        users.append(np.full(count, user, dtype=np.int64))
        missing -= count
        if not missing:
            break
    if not users:
        raise UserError("no user has a training step with an item before it; pairs cannot be made")
    return np.concatenate(users), np.concatenate(steps)


def mismatched(target: Int64[np.ndarray, " n"], seed: int) -> Int64[np.ndarray, " n"]:
    """For each pair the chosen item of another pair, never its own item: the other pairs in random order, from a random
    one on. UserError: all pairs have one chosen item."""
    order = generator(seed, "mismatched").permutation(len(target))
    partner = np.empty_like(target)
    for place, row in enumerate(order.tolist()):
        others = (order[(place + turn) % len(order)] for turn in range(1, len(order)))
        found = next((other for other in others if target[other] != target[row]), None)
        if found is None:
            raise UserError("all pairs have the same chosen item: no mismatched pairs can be made")
        partner[row] = target[found]
    return partner
