"""The truth behind a replica's rows: what each user liked, was shown and could have chosen instead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from rosepo_bench.base.errors import UserError
from rosepo_bench.data.synthetic.world import NEVER, World
from rosepo_bench.data.types import Dataset

_GRID = 0.2  # of the trapezoid rule in `log_choice`


@dataclass(frozen=True)
class GroundTruth:
    """What the rows of `replica.generate` were drawn from. ``user`` and ``step`` index the raw replica's users and
    their rows; a prepared data set has fewer of both where the k-core dropped some: `align` maps them.

    ``sequences[u]``: items; ``times[u]``: unix seconds; ``tastes[u]``: ``[steps, D]``; ``slates[u]``:
    ``[steps, ceil(I / 8)]``, what was shown as packed bits. ``world.weight`` is the popularity law of
    exposure, ``world.genres`` and ``world.predecessor`` say which items belong together."""

    kind: str
    seed: int
    world: World
    sequences: tuple[Int64[np.ndarray, " _"], ...]
    times: tuple[Int64[np.ndarray, " _"], ...]
    tastes: tuple[Float64[np.ndarray, "_ D"], ...]
    slates: tuple[UInt8[np.ndarray, "_ bytes"], ...]

    def utility(self, user: int, step: int, items: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """u of each of ``items`` for the user just before the choice at ``step``."""
        items = np.asarray(items)
        last = self._taken(user, step)[self.world.predecessor[items]]
        taste = np.broadcast_to(self.tastes[user][step], (len(items), self.world.vectors.shape[1]))
        return self.world.utility(taste, items, np.where(last == NEVER, NEVER, step - last))

    def exposure(self, user: int, step: int) -> Float64[np.ndarray, " I"]:
        """P(shown) of every item at ``step``, independently; 0 for items already taken. (An
        empty slate is drawn again, which `log_choice` accounts for.)"""
        return -np.expm1(-self._rate(user, step))

    def slate(self, user: int, step: int) -> Int64[np.ndarray, " shown"]:
        """The items that were shown, the chosen one among them, in index order."""
        self._check(user, step)
        return np.flatnonzero(np.unpackbits(self.slates[user][step], count=self.world.items))

    def log_choice(self, user: int, step: int, items: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """log P(y | x) = log P(shown and chosen) of each y in ``items``, over all slates that are not
        empty; -inf for items already taken.

        The choice truth of a pair (w chosen, l rejected; q the law that draws rejected items) is
        ``sigma(log P(l | x) - log P(w | x) + log q(w | x, l) - log q(l | x, w))``.

        Method: with 1 / S = int exp(-s S) ds and independent exposures pi, a = exp(u),
        ``P(y) = pi_y a_y int exp(-s a_y) prod_{j != y} (1 - pi_j + pi_j exp(-s a_j)) ds``; the trapezoid
        rule in log s leaves a relative error below 1e-9."""
        rate = self._rate(user, step)
        utility = self.utility(user, step, np.arange(self.world.items))
        utility -= utility.max()
        live = np.flatnonzero(rate > 0)
        log_shown = np.log(-np.expm1(-rate[live]))
        log_s = np.arange(-25.0, 30.0, _GRID)[:, None]  # [nodes, 1]
        hazard = np.exp(log_s + utility[live])  # s a_j, [nodes, live]
        factor = np.logaddexp(-rate[live], log_shown - hazard)
        integrand = np.exp(factor.sum(axis=1, keepdims=True) - factor - hazard + log_s)
        answer = np.full(self.world.items, -np.inf)
        answer[live] = log_shown + utility[live] + np.log(integrand.sum(axis=0) * _GRID)
        return (answer - np.log(-np.expm1(-rate.sum())))[np.asarray(items)]

    def align(
        self, dataset: Dataset
    ) -> tuple[Int64[np.ndarray, " users"], tuple[Int64[np.ndarray, " _"], ...], Int64[np.ndarray, " items"]]:
        """Where a prepared data set comes from: the replica's user of each sequence ``[users]``, the step
        of each of its positions (one array per user), and the world's item of each item ``[items]``.
        UserError: ``dataset`` was not prepared from this replica."""
        stranger = UserError(
            f"data set {dataset.name} was not prepared from the {self.kind} replica of {len(self.sequences)} "
            f"users with seed {self.seed}; take the ground truth of the same users and seed"
        )
        number = {title: item for item, title in enumerate(self.world.titles)}
        if not set(dataset.titles) <= set(number):
            raise stranger
        items = np.array([number[title] for title in dataset.titles])
        users: list[int] = []
        steps: list[np.ndarray] = []
        candidates = iter(range(len(self.sequences)))  # users keep their order: one pass is enough
        for sequence, times in zip(dataset.sequences, dataset.times, strict=True):
            for user in candidates:
                found = self._places(user, items[sequence], times)
                if found is not None:
                    users.append(user)
                    steps.append(found)
                    break
            else:
                raise stranger
        return np.array(users), tuple(steps), items

    def _places(
        self, user: int, items: Int64[np.ndarray, " n"], times: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"] | None:
        step = {int(item): place for place, item in enumerate(self.sequences[user])}
        if not all(int(item) in step for item in items):
            return None
        places = np.array([step[int(item)] for item in items])
        return places if np.array_equal(self.times[user][places], times) else None

    def _rate(self, user: int, step: int) -> Float64[np.ndarray, " I"]:
        return self.world.rate(self._taken(user, step)[None])[0]

    def _taken(self, user: int, step: int) -> Int64[np.ndarray, " I"]:
        self._check(user, step)
        taken = np.full(self.world.items, NEVER)
        taken[self.sequences[user][:step]] = np.arange(step)
        return taken

    def _check(self, user: int, step: int) -> None:
        if not 0 <= user < len(self.sequences):
            raise UserError(f"no user {user}: the replica has users 0 to {len(self.sequences) - 1}")
        if not 0 <= step < len(self.sequences[user]):
            raise UserError(f"no step {step}: user {user} has steps 0 to {len(self.sequences[user]) - 1}")
