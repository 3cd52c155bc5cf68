"""Which training steps become preference pairs."""

from __future__ import annotations

import numpy as np

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.data.types import IntArray, Split


def choose_steps(split: Split, *, pairs: int, steps_per_user: int, seed: int) -> tuple[IntArray, IntArray]:
    """(user, step), int64 ``[n]``, n <= ``pairs``: users in random order, of each his last ``steps_per_user``
    training steps that have a history. A user's steps are contiguous and
    ascending, so that his pairs share a trunk; the user with whom ``pairs`` is reached gives his last ones.
    Fewer come back where there are not more."""
    users: list[IntArray] = []
    steps: list[IntArray] = []
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
