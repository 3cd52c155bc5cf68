"""The preference oracle: SASRecs cross-fitted by user folds.

An oracle must not judge a pair that it was trained on, for it has memorised y_w. So the users are divided
into folds, one model is trained a fold on the histories of all *other* users, and an example is scored by the
model that never saw its user.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rosepo_bench.base.config import SASRecConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.base.work import Work
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


def cross_fit(sequences: Sequence[IntArray], items: int, config: SASRecConfig, folds: int, work: Work) -> Oracle:
    """Trains one SASRec a fold on the training histories ``sequences`` (one a user) of the other folds'
    users. In ``work.folder`` each finished fold is kept, and an interrupted cross-fit goes on."""
    fold = assign_folds(len(sequences), folds, work.seed)
    models = []
    for number in range(folds):
        others = [sequence for user, sequence in enumerate(sequences) if fold[user] != number]
        part = replace(
            work,
            seed=derive(work.seed, "oracle", number),
            label=f"{work.label} {number + 1}/{folds}",
            folder=work.folder and work.folder / f"fold{number}",
        )
        models.append(_fold(others, items, config, part))
    return Oracle(fold, tuple(models))


def _fold(sequences: Sequence[IntArray], items: int, config: SASRecConfig, work: Work) -> SASRec:
    """The SASRec of one fold, read if it is finished."""
    if work.folder is None:
        return sasrec.train(sequences, items, config, work)
    finished = work.folder.with_suffix(".safetensors")
    if not finished.exists():
        sasrec.save(sasrec.train(sequences, items, config, work), finished)
        shutil.rmtree(work.folder, ignore_errors=True)  # its checkpoint
    return sasrec.load(finished)
