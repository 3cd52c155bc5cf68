"""Noise on purpose: replaces items of training and validation interactions, as targets and in later histories alike.

The test targets and their candidate lists stay those of the clean data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int32

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import digest, generator
from rosepo_bench.data import views
from rosepo_bench.data.types import Dataset, Split

Law = Literal["uniform", "popularity"]


def corrupt(dataset: Dataset, split: Split, *, rate: float, law: Law, seed: int) -> Dataset:
    """``dataset`` with each interaction before the user's test target (all of them where there is none) replaced with
    probability ``rate`` by an item z drawn from n(z): every item alike (``uniform``), or in proportion to its clean
    training interactions (``popularity``). Never by an item of the user's own history, the test target included, nor
    twice by the same one. What is replaced at one rate is replaced, by the same item, at every higher rate.

    UserError: a user's own history leaves too few items to draw from.
    """
    assert 0 <= rate < 1, rate
    weights = np.ones(dataset.items)
    if law == "popularity":
        weights = views.train_view(dataset, split).counts.astype(np.float64)
    sequences = []
    for user, sequence in enumerate(dataset.sequences):
        stop = int(split.test[user])
        draw = generator(seed, "noise", law, user)
        noisy = _replaced(sequence, len(sequence) if stop < 0 else stop, rate, weights, draw)
        if noisy is None:
            raise UserError(
                f"{dataset.full_name}: noise of law {law!r} finds too few items that user {dataset.user_id(user)} has "
                "not met; set a lower noise rate"
            )
        sequences.append(noisy)
    changed = digest(dataset.digest, rate, law, seed, np.concatenate(sequences))
    return replace(dataset, sequences=tuple(sequences), digest=changed)


def replaced(clean: Dataset, noisy: Dataset) -> int:
    """How many interactions differ."""
    return sum(int(np.sum(one != other)) for one, other in zip(clean.sequences, noisy.sequences, strict=True))


def _replaced(
    sequence: Int32[np.ndarray, " n"],
    stop: int,
    rate: float,
    weights: Float64[np.ndarray, " items"],
    draw: np.random.Generator,
) -> Int32[np.ndarray, " n"] | None:
    """A user's noisy history; None: too few items. All random numbers are drawn whatever the rate is, and the items are
    handed out in the order in which the positions fall to rising rates."""
    luck = draw.random(stop)
    places = np.argsort(luck, kind="stable")[: int(np.sum(luck < rate))]
    free = np.flatnonzero(weights > 0)
    free = free[~np.isin(free, sequence)]
    if len(free) < len(places):
        return None
    keys = np.log(weights[free]) + draw.gumbel(size=len(free))  # the largest are draws without replacement
    noisy = sequence.copy()
    noisy[places] = free[np.argsort(-keys, kind="stable")[: len(places)]]
    noisy.setflags(write=False)
    return noisy
