"""The preference oracle: SASRecs cross-fitted by user folds.

An oracle must not judge a pair that it was trained on, for it has memorised y_w. So the users are divided
into folds, one model is trained a fold on the histories of all *other* users, and an example is scored by the
model that never saw its user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rosepo_bench.base.config import SASRecConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.data.types import FloatArray, IntArray
from rosepo_bench.recommenders import sasrec
from rosepo_bench.recommenders.sasrec import SASRec


def assign_folds(users: int, folds: int, seed: int) -> IntArray:
    """The fold of each user, int64 ``[users]``; sizes differ by one at most."""
    if not 2 <= folds <= users:
        raise UserError(f"oracle.folds = {folds}: needs 2 to {users} (the users) folds")
    return generator(seed, "oracle folds").permutation(users) % folds


@dataclass(frozen=True)
class Oracle:
    """``models[k]`` was trained without the users of fold k; ``fold`` int64 ``[users]``."""

    fold: IntArray
    models: tuple[SASRec, ...]

    def scores(self, user: IntArray, histories: Sequence[IntArray], candidates: IntArray) -> FloatArray:
        """float32 ``[n, m]`` scores of ``candidates`` ``[n, m]`` by the model that never saw ``user[i]``;
        equal to log p(item | history) up to a constant of the row."""
        found = np.zeros(candidates.shape, dtype=np.float32)
        for number, model in enumerate(self.models):
            rows = [int(row) for row in np.flatnonzero(self.fold[user] == number)]
            found[rows] = sasrec.scores(model, [histories[row] for row in rows], candidates[rows])
        return found


def cross_fit(
    sequences: Sequence[IntArray],
    items: int,
    config: SASRecConfig,
    *,
    folds: int,
    seed: int,
    folder: Path | None = None,
    checkpoint_seconds: float = 15.0,
) -> Oracle:
    """Trains one SASRec a fold on the training histories ``sequences`` (one a user) of the other folds'
    users. With ``folder`` each finished fold is kept there, and an interrupted cross-fit goes on."""
    fold = assign_folds(len(sequences), folds, seed)
    models = []
    for number in range(folds):
        finished = folder / f"fold{number}.safetensors" if folder else None
        if finished and finished.exists():
            models.append(sasrec.load(finished))
            continue
        checkpoint = folder / f"fold{number}.checkpoint" if folder else None
        others = [sequence for user, sequence in enumerate(sequences) if fold[user] != number]
        label = f"oracle {number + 1}/{folds}"
        model = sasrec.train(
            others,
            items,
            config,
            seed=derive(seed, "oracle", number),
            checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
            label=label,
        )
        if finished and checkpoint:
            sasrec.save(model, finished)
            checkpoint.unlink(missing_ok=True)
        models.append(model)
    return Oracle(fold, tuple(models))
