"""The preference oracle: SASRecs cross-fitted by user folds.

An oracle must not judge a pair that it was trained on, because it has memorised y_w. So the users are divided into
folds, one model per fold is trained on the histories of all *other* users, and an example is scored by the model that
was trained without its user.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int, Int64

from rosepo_bench.base.config import SASRecConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.base.work import Work
from rosepo_bench.recommenders import sasrec
from rosepo_bench.recommenders.sasrec import SASRec


def assign_folds(users: int, folds: int, seed: int) -> Int64[np.ndarray, " users"]:
    """The fold of each user; sizes differ by at most one."""
    if not 2 <= folds <= users:
        raise UserError(f"oracle.folds = {folds}: must be between 2 and {users}, the number of users")
    return generator(seed, "oracle folds").permutation(users) % folds


@dataclass(frozen=True)
class Oracle:
    """``models[k]`` was trained without the users of fold k."""

    fold: Int64[np.ndarray, " users"]
    models: tuple[SASRec, ...]

    def scores(
        self,
        user: Int64[np.ndarray, " n"],
        histories: Sequence[Int[np.ndarray, " _"]],
        candidates: Int[np.ndarray, "n size"],
    ) -> Float32[np.ndarray, "n size"]:
        """Scores of ``candidates`` by the model that was trained without ``user[i]``: log p(item | history) up to a
        constant per row."""
        found = np.zeros(candidates.shape, dtype=np.float32)
        for number, model in enumerate(self.models):
            rows = [int(row) for row in np.flatnonzero(self.fold[user] == number)]
            found[rows] = sasrec.scores(model, [histories[row] for row in rows], candidates[rows])
        return found


def cross_fit(
    sequences: Sequence[Int[np.ndarray, " _"]], items: int, config: SASRecConfig, folds: int, work: Work
) -> Oracle:
    """Trains one SASRec per fold on the training histories ``sequences`` (one per user) of the other folds' users.
    Finished folds are kept in ``work.folder``, so that an interrupted cross-fit resumes."""
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


def _fold(sequences: Sequence[Int[np.ndarray, " _"]], items: int, config: SASRecConfig, work: Work) -> SASRec:
    """The SASRec of one fold, read from disk if it is finished."""
    if work.folder is None:
        return sasrec.train(sequences, items, config, work)
    finished = work.folder.with_suffix(".safetensors")
    if not finished.exists():
        sasrec.save(sasrec.train(sequences, items, config, work), finished)
        shutil.rmtree(work.folder, ignore_errors=True)  # its checkpoint
    return sasrec.load(finished)
