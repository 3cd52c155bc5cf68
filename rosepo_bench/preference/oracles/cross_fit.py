"""Cross-fitting: an oracle must not judge a pair of a user that it was fitted to, because it has memorised y_w.

The users are divided into folds, one model per fold is fitted to the histories of all *other* users, and a prompt is
scored by the model that was fitted without its user.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int, Int64

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import derive, generator
from rosepo_bench.base.work import Work
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import HoldoutView, TrainView
from rosepo_bench.recommenders.base import Oracle, State


def assign_folds(users: int, folds: int, seed: int) -> Int64[np.ndarray, " users"]:
    """The fold of each user; sizes differ by at most one."""
    check_folds(users, folds)
    return generator(seed, "oracle folds").permutation(users) % folds


def check_folds(users: int, folds: int) -> None:
    """UserError: more folds than users, or fewer than two."""
    if not 2 <= folds <= users:
        raise UserError(f"smoothing.folds = {folds}: must be between 2 and {users}, the number of users")


@dataclass(frozen=True)
class CrossFitted:
    """``states[k]`` was fitted without the users of fold k."""

    oracle: Oracle
    fold: Int64[np.ndarray, " users"]
    states: tuple[State, ...]

    def scores(self, queries: Queries, items: Int[np.ndarray, "n R"]) -> Float64[np.ndarray, "n R"]:
        """Scores of ``items`` by the model that was fitted without each query's user."""
        found = np.zeros(items.shape)
        for number, state in enumerate(self.states):
            rows = np.flatnonzero(self.fold[queries.user] == number)
            if len(rows):
                found[rows] = checked_scores(self.oracle, state, queries.take(rows), items[rows])
        return found


def checked_scores(
    oracle: Oracle, state: State, queries: Queries, items: Int[np.ndarray, "n R"]
) -> Float64[np.ndarray, "n R"]:
    """The oracle's scores. UserError: not one per item, or NaN among them."""
    found = np.asarray(oracle.scores(state, queries, items), dtype=np.float64)
    if found.shape != items.shape:
        raise UserError(f"oracle {oracle.label()}: scores of shape {found.shape} for items of shape {items.shape}")
    if np.isnan(found).any():
        row = int(np.flatnonzero(np.isnan(found).any(axis=1))[0])
        raise UserError(f"oracle {oracle.label()}: the scores of user {queries.user[row]} hold NaN")
    return found


def cross_fit(oracle: Oracle, view: TrainView, folds: int, work: Work, holdout: HoldoutView | None) -> CrossFitted:
    """Fits the oracle once per fold to the other folds' users; of ``holdout`` each sees their part alone. Finished
    folds are kept in ``work.folder``, so that an interrupted cross-fit resumes."""
    fold = assign_folds(len(view.users), folds, work.seed)
    states = []
    for number in range(folds):
        others = view.of(np.flatnonzero(fold != number))
        part = replace(
            work,
            seed=derive(work.seed, "oracle", number),
            label=f"{work.label} {number + 1}/{folds}",
            folder=work.folder and work.folder / f"fold{number}",
        )
        states.append(_fold(oracle, others, part, holdout and holdout.of(others.users)))
    return CrossFitted(oracle, fold, tuple(states))


def _fold(oracle: Oracle, view: TrainView, work: Work, holdout: HoldoutView | None) -> State:
    """The state of one fold, read from disk if it is finished."""
    if work.folder is None:
        return oracle.fit(view, work, holdout)
    finished = work.folder.with_suffix(".npz")
    if not finished.exists():
        store.write_npz(finished, **oracle.fit(view, work, holdout))
    return store.read_npz(finished)
