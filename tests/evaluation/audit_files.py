"""Made-up candidate files: honest ones of three kinds, and leaks that are planted into some of their rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rosepo_bench.evaluation.audit.table import RawRow, Table

SIZE = 20
WORDS = 60
KINDS = ("uniform", "popularity", "mixed")


@dataclass
class Row:
    """A row in the making; ``place`` is the target's. ``shout``: the target is written in capitals."""

    history: list[int]
    target: int
    negatives: list[int]
    place: int
    shout: bool = False

    def can_take(self, items: np.ndarray) -> list[int]:
        """Those of ``items`` that can be negatives here."""
        return [item for item in items.tolist() if item not in self.history and item != self.target]


@dataclass
class World:
    """``items`` with titles of four words, and the rows of two splits. Targets and histories follow popularity."""

    rng: np.random.Generator
    titles: list[str]
    words: np.ndarray
    popularity: np.ndarray
    test: list[Row]
    validation: list[Row]

    @property
    def items(self) -> np.ndarray:
        return np.arange(len(self.titles))

    def table(self, *, titled: bool = False) -> Table:
        """As the audit reads it; ``titled``: titles stand for the ids, as in LLaRA's files."""
        splits = {"test": self.raw(self.test, titled), "validation": self.raw(self.validation, titled)}
        return Table.of(splits, None if titled else {str(item): title for item, title in enumerate(self.titles)})

    def raw(self, rows: list[Row], titled: bool) -> list[RawRow]:
        """The rows as a file has them."""
        name = self.titles.__getitem__ if titled else str
        made = []
        for user, row in enumerate(rows):
            target = name(row.target).upper() if row.shout else name(row.target)
            listed = [name(item) for item in row.negatives]
            listed.insert(row.place, target)
            made.append(RawRow(f"u{user}", tuple(map(name, row.history)), target, tuple(listed)))
        return made


def honest(kind: str, seed: int, rows: int = 300, items: int = 400) -> World:
    """Negatives drawn by the law ``kind``; mixed: half of each list by one, half by the other."""
    rng = np.random.default_rng(seed)
    words = np.stack([rng.choice(WORDS, 4, replace=False) for _ in range(items)])
    fillers = [" " + "x" * rng.integers(12) + "!" * rng.integers(4) for _ in range(items)]
    titles = [
        " ".join(f"{'Ww'[int(rng.integers(2))]}{word:02d}" for word in own) + end + f" {item}"
        for item, (own, end) in enumerate(zip(words, fillers, strict=True))
    ]
    popularity = rng.permutation(1 / np.arange(1, items + 1) ** 0.8)
    world = World(rng, titles, words, popularity / popularity.sum(), [], [])
    laws = {"uniform": np.full(items, 1 / items), "popularity": world.popularity}
    drawn = [kind] if kind in laws else list(laws)
    for part in (world.test, world.validation):
        for _ in range(rows):
            own = rng.choice(items, rng.integers(5, 30), replace=False, p=world.popularity).tolist()
            listed: list[int] = []
            for place, one in enumerate(drawn):
                law = laws[one].copy()
                law[own + listed] = 0
                number = (SIZE - 1 + place) // len(drawn)
                listed += rng.choice(items, number, replace=False, p=law / law.sum()).tolist()
            part.append(Row(own[1:], own[0], listed, int(rng.integers(SIZE))))
    return world


Plant = Callable[[World, list[Row]], None]


def chosen(world: World, share: float) -> list[Row]:
    """A random share of the test rows, to be made to leak."""
    return [world.test[at] for at in world.rng.choice(len(world.test), round(share * len(world.test)), replace=False)]


def _negatives(world: World, rows: list[Row], fit: Callable[[Row], np.ndarray]) -> None:
    """Draws the negatives of as many rows as are given from the items that ``fit``; other rows stand in for those that
    too few items fit."""
    rest = [row for row in world.test if not any(row is one for one in rows)]
    left = len(rows)
    for row in (*rows, *rest):
        able = row.can_take(np.flatnonzero(fit(row)))
        if left and len(able) >= SIZE - 1:
            row.negatives, left = world.rng.choice(able, SIZE - 1, replace=False).tolist(), left - 1


def position(world: World, rows: list[Row]) -> None:
    """The target comes first."""
    for row in rows:
        row.place = 0


def id_order(world: World, rows: list[Row]) -> None:
    """All negatives have larger ids."""
    _negatives(world, rows, lambda row: world.items > row.target)


def out_of_order(world: World, rows: list[Row]) -> None:
    """The negatives are sorted, the target is put anywhere."""
    for row in rows:
        row.negatives.sort()


def title_length(world: World, rows: list[Row]) -> None:
    """All negatives have shorter titles."""
    lengths = np.array([len(title) for title in world.titles])
    _negatives(world, rows, lambda row: lengths < lengths[row.target])


def punctuation(world: World, rows: list[Row]) -> None:
    """All negatives have fewer punctuation marks."""
    marks = np.array([title.count("!") for title in world.titles])
    _negatives(world, rows, lambda row: marks < marks[row.target])


def spelling(world: World, rows: list[Row]) -> None:
    """The target is written in capitals."""
    for row in rows:
        row.shout = True


def rarity(world: World, rows: list[Row]) -> None:
    """All negatives stand in many more lists than the target."""
    seen = np.bincount(
        [item for row in world.test for item in (*row.negatives, row.target)], minlength=len(world.items)
    )
    _negatives(world, rows, lambda row: seen > 1.5 * seen[row.target])


def centre(world: World, rows: list[Row]) -> None:
    """All negatives share a word with the target's title."""
    _negatives(world, rows, lambda row: np.isin(world.words, world.words[row.target]).any(1))


def seed_reuse(world: World, rows: list[Row]) -> None:
    """All have the same negatives, as far as they can."""
    pool = world.rng.permutation(world.items)
    for row in rows:
        row.negatives = world.rng.permutation(row.can_take(pool)[: SIZE - 1]).tolist()


def seeded_by_target(world: World, rows: list[Row]) -> None:
    """Rows of one target have the same negatives; as many rows as are given, those that share targets."""
    targets = [row.target for row in world.test]
    shared = sorted((row for row in world.test if targets.count(row.target) > 1), key=lambda row: row.target)
    for row in shared[: len(rows)]:
        _seeded(world, row)


def repeated_between_splits(world: World, rows: list[Row]) -> None:
    """A user's negatives are those of validation."""
    for row, other in zip(world.test, world.validation, strict=True):
        if any(row is one for one in rows):
            row.negatives = _reused(world, row, other)


def look_up(world: World, rows: list[Row]) -> None:
    """Rows of one target have the same negatives as those of validation; as many as are given, with such targets."""
    known = {row.target for row in world.validation}
    shared = [row for row in world.test if row.target in known][: len(rows)]
    leaking = {row.target for row in shared}
    for row in (*shared, *(row for row in world.validation if row.target in leaking)):
        _seeded(world, row)


def _seeded(world: World, row: Row) -> None:
    """Negatives that depend on the target, in a random order."""
    pool = np.random.default_rng(row.target).permutation(world.items)
    row.negatives = world.rng.permutation(row.can_take(pool)[: SIZE - 1]).tolist()


def _reused(world: World, row: Row, other: Row) -> list[int]:
    more = world.rng.permutation(world.items)
    kept = dict.fromkeys([*row.can_take(np.array(other.negatives)), *row.can_take(more)])
    return world.rng.permutation(list(kept)[: SIZE - 1]).tolist()


LEAKS: dict[str, tuple[Plant, str]] = {
    "the target comes first": (position, "position"),
    "negatives of larger ids": (id_order, "id order"),
    "sorted negatives": (out_of_order, "out of order"),
    "shorter negatives": (title_length, "title length"),
    "negatives with less punctuation": (punctuation, "title punctuation"),
    "target in capitals": (spelling, "spelling"),
    "negatives seen far more often": (rarity, "repetition"),
    "negatives near the target": (centre, "centre by titles"),
    "one seed for several rows": (seed_reuse, "lists in other rows"),
    "negatives seeded by the target": (seeded_by_target, "targets in other rows"),
    "validation's negatives again": (repeated_between_splits, "lists in validation"),
    "negatives of validation's same target": (look_up, "targets in validation"),
}


def leaking(name: str, seed: int, rows: int = 300, share: float = 0.1) -> Table:
    """An honest uniform file with one leak in a share of its rows."""
    plant, _ = LEAKS[name]
    world = honest("uniform", seed, rows)
    plant(world, chosen(world, share))
    return world.table(titled=plant is spelling)
