"""Synthetic replicas of Steam and Goodreads, for machines without the real files: simulated people in an
invented world (`world`), calibrated to real facts (`calibration`). The ground truth behind every row is kept (`truth`),
so that a study can compare what a model learned with it. What is measured on a replica says nothing about real players
or readers; names, notes and tables say *synthetic*."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, Shaped, UInt8

from rosepo_bench.base.errors import UserError, nearest
from rosepo_bench.base.seeds import generator
from rosepo_bench.data.synthetic.truth import GroundTruth
from rosepo_bench.data.synthetic.world import NEVER, Laws, World, build
from rosepo_bench.data.types import RawInteractions, Source

FEWEST_USERS = 50
_DAY = 86_400
_START = {"steam": 1_287_100_800, "goodreads": 1_262_304_000}  # 2010-10-15, 2010-01-01
# Steam: lengths 5 to 12 before the 5-core, which shortens some; Goodreads: normal within the published range
_STEAM_LENGTHS = (0.22, 0.50, 0.16, 0.07, 0.03, 0.01, 0.005, 0.005)
_GOODREADS_LENGTHS = {"mean": 111.87, "sd": 26.07, "least": 19, "most": 200}
_TIE = 0.07  # share of Steam steps on the day of the step before

LAWS: dict[str, Laws] = {
    "steam": Laws(
        concentration=0.64,
        offset=4.0,
        falling=0.85,
        slate=0.042,
        floor=0.25,
        taste=1.8,
        drift=0.25,
        quality=0.4,
        bonus=3.5,
        penalty=2.0,
        memory=3.0,
        boost=40.0,
        serial=0.5,
        longest=4,
        spinoffs=0.25,
    ),
    "goodreads": Laws(
        concentration=0.82,
        offset=40.0,
        falling=0.85,
        slate=0.025,
        floor=0.08,
        taste=2.2,
        drift=0.15,
        quality=0.4,
        bonus=6.0,
        penalty=2.0,
        memory=3.0,
        boost=100.0,
        serial=0.25,
        longest=6,
        spinoffs=0.25,
    ),
}


def generate(kind: str, users: int, seed: int) -> RawInteractions:
    """The replica as raw rows, user by user in the order of time. UserError: an unknown kind, or fewer than
    50 users."""
    truth = ground_truth(kind, users, seed)
    lengths = [len(sequence) for sequence in truth.sequences]
    note = (
        f"synthetic: {users} simulated users in an invented world (seed {seed}), calibrated to facts of "
        f"{kind.capitalize()}; no real person, no real title"
    )
    return RawInteractions(
        source=Source(name=f"{kind}-replica", kind="synthetic", note=note),
        user=np.repeat(np.arange(users), lengths),
        item=np.concatenate(truth.sequences),
        time=np.concatenate(truth.times),
        user_ids=tuple(f"simulated-{user}" for user in range(users)),
        titles=truth.world.titles,
        genres=truth.world.genres,
    )


@lru_cache(maxsize=2)
def ground_truth(kind: str, users: int, seed: int) -> GroundTruth:
    """The world and the people behind ``generate(kind, users, seed)``: the same draws, the same errors."""
    if kind not in LAWS:
        raise UserError(f"no replica of {kind!r}; {nearest(kind, LAWS)}")
    if users < FEWEST_USERS:
        raise UserError(f"a replica of {users} users is too small; give at least {FEWEST_USERS}")
    world = build(kind, _items(kind, users), LAWS[kind], generator(seed, "replica", kind, "world"))
    lengths = _lengths(kind, users, generator(seed, "replica", kind, "lengths"))
    times = _times(kind, lengths, generator(seed, "replica", kind, "times"))
    sequences, tastes, slates = _live(world, lengths, generator(seed, "replica", kind, "lives"))
    return GroundTruth(kind, seed, world, sequences, times, tastes, slates)


def _items(kind: str, users: int) -> int:
    """Catalogue size: grows with the users, so that most items have the interactions that the 5-core needs."""
    return int(260 * (users / 800) ** 0.75) if kind == "steam" else int(min(600 + 1.125 * users, 1500))


def _lengths(kind: str, users: int, rng: np.random.Generator) -> Int64[np.ndarray, " users"]:
    if kind == "steam":
        return rng.choice(np.arange(5, 5 + len(_STEAM_LENGTHS)), size=users, p=_STEAM_LENGTHS)
    law = _GOODREADS_LENGTHS
    drawn = np.rint(rng.normal(law["mean"], law["sd"], users))
    return np.clip(drawn, law["least"], law["most"]).astype(np.int64)


def _times(
    kind: str, lengths: Int64[np.ndarray, " users"], rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " _"], ...]:
    """Steam has whole days, some of them repeated; Goodreads has seconds."""
    times = []
    for length in lengths:
        start = _START[kind] + _DAY * int(rng.integers(1200))
        if kind == "steam":
            gaps = np.where(rng.random(length) < _TIE, 0, rng.geometric(1 / 60, length)) * _DAY
        else:
            gaps = 1 + rng.exponential(9 * _DAY, length).astype(np.int64)
        times.append(start + np.cumsum(gaps))
    return tuple(times)


def _live(
    world: World, lengths: Int64[np.ndarray, " users"], rng: np.random.Generator
) -> tuple[
    tuple[Int64[np.ndarray, " _"], ...],
    tuple[Float64[np.ndarray, "_ D"], ...],
    tuple[UInt8[np.ndarray, "_ bytes"], ...],
]:
    """Choices, tastes and slates of all users; each step is simulated for all users who still have one."""
    users, longest, laws = len(lengths), int(lengths.max()), world.laws
    taken = np.full((users, world.items), NEVER, dtype=np.int32)
    taste = rng.normal(0.0, laws.taste, (users, world.vectors.shape[1]))
    chosen = np.zeros((users, longest), dtype=np.int64)
    tastes = np.zeros((users, longest, taste.shape[1]))
    slates = np.zeros((users, longest, (world.items + 7) // 8), dtype=np.uint8)
    for step in range(longest):
        live = np.flatnonzero(lengths > step)
        shown = _show(world.rate(taken[live]), rng)
        chosen[live, step] = _choose(world, taste[live], taken[live], shown, step, rng)
        taken[live, chosen[live, step]] = step
        tastes[live, step], slates[live, step] = taste[live], np.packbits(shown, axis=1)
        taste = np.sqrt(1 - laws.drift**2) * taste + laws.drift * rng.normal(0.0, laws.taste, taste.shape)
    return _cut(chosen, lengths), _cut(tastes, lengths), _cut(slates, lengths)


def _cut(
    padded: Shaped[np.ndarray, "users longest ..."], lengths: Int64[np.ndarray, " users"]
) -> tuple[np.ndarray, ...]:
    """Rows of ``padded`` without their padding."""
    return tuple(padded[user, :length].copy() for user, length in enumerate(lengths.tolist()))


def _show(rate: Float64[np.ndarray, "n items"], rng: np.random.Generator) -> Bool[np.ndarray, "n items"]:
    """Slates; an empty one is drawn again."""
    probability = -np.expm1(-rate)
    shown = rng.random(rate.shape) < probability
    while not (full := shown.any(axis=1)).all():
        shown[~full] = rng.random((int((~full).sum()), rate.shape[1])) < probability[~full]
    return shown


def _choose(
    world: World,
    taste: Float64[np.ndarray, "n D"],
    taken: Int32[np.ndarray, "n items"],
    shown: Bool[np.ndarray, "n items"],
    step: int,
    rng: np.random.Generator,
) -> Int64[np.ndarray, " n"]:
    """One item per row, drawn from the softmax of the utilities over what is shown (Gumbel-max trick)."""
    row, item = np.nonzero(shown)
    last = taken[row, world.predecessor[item]]
    utility = world.utility(taste[row], item, np.where(last == NEVER, NEVER, step - last))
    score = np.full(shown.shape, -np.inf)
    score[row, item] = utility + rng.gumbel(size=len(row))
    return score.argmax(axis=1)
