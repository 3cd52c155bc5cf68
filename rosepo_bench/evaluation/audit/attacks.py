"""What an attack is: an order of a list's items that needs no history. It guesses that the target stands at one place
of that order, the same in every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, Int64, Num

from rosepo_bench.evaluation.audit.redraw import Draw

BUCKETS = 512  # of the words of one list


@dataclass(frozen=True)
class Name:
    """An attack's name, and what its order begins and ends with."""

    attack: str
    first: str
    last: str

    def guess(self, place: int, size: int) -> str:
        """The guess of one place of the order, from 0; places from ``size`` on are counted from the order's end."""
        if place in (0, size - 1, size):
            return self.last if place else self.first
        place, start = (place, self.first) if place < size else (place - size, self.last)
        return f"place {place + 1}; 1 is {start}"


@runtime_checkable
class Attack(Protocol):
    """A family of attacks that share their work."""

    @property
    def names(self) -> tuple[Name, ...]:
        """One a row of :meth:`ranks`."""

    def ranks(self, draw: Draw) -> Int[np.ndarray, "attacks n"]:
        """The target's place in each order, from 0."""


def target_rank(scores: Num[np.ndarray, "*attacks n size"]) -> Int64[np.ndarray, "*attacks n"]:
    """The target's place among a list's items by descending score; its own score stands in column 0."""
    found: Int64[np.ndarray, "*attacks n"] = (scores[..., 1:] > scores[..., :1]).sum(-1)
    return found


def strict(values: Sequence[float] | Num[np.ndarray, " items"], rng: np.random.Generator) -> Int32[np.ndarray, " _"]:
    """Scores of the items in the order of ``values``, all different: ties are ordered at random, once for all lists.
    Padding comes last."""
    order = np.lexsort((rng.random(len(values)), np.asarray(values)))
    return np.append(np.argsort(order), -1).astype(np.int32)


class ByItem:
    """Orders by one property of an item: its id, how its title looks, how many lists it stands in."""

    def __init__(self, named: dict[Name, Num[np.ndarray, " items"]], rng: np.random.Generator) -> None:
        self.names = tuple(named)
        self.scores = np.stack([strict(values, rng) for values in named.values()])

    def ranks(self, draw: Draw) -> Int64[np.ndarray, "attacks n"]:
        """See Attack."""
        return np.stack([target_rank(scores[draw.lists]) for scores in self.scores])


class Central:
    """The order by nearness to the list's centre of gravity, by unit vectors of the items."""

    names = (Name("centre by histories", "nearest to the others", "farthest from the others"),)

    def __init__(self, vectors: Float[np.ndarray, "items width"], rng: np.random.Generator) -> None:
        self.vectors = np.concatenate([vectors, np.zeros_like(vectors[:1])]).astype(np.float32)
        self.jitter = 1e-5 * rng.random(len(self.vectors), dtype=np.float32)  # orders ties

    def ranks(self, draw: Draw) -> Int64[np.ndarray, "1 n"]:
        """See Attack."""
        own = self.vectors[draw.lists]
        nearness = np.matmul(own, own.sum(1)[:, :, None])[:, :, 0] - np.square(own).sum(2) + self.jitter[draw.lists]
        nearness[draw.lists == len(self.vectors) - 1] = -np.inf
        return target_rank(nearness)[None]


class SharedWords:
    """The order by the words that a title shares with the others of its list: the sum of their cosines. Words of one
    list that share a bucket add noise. ``words`` and ``weights`` as :func:`features.words` gives them."""

    names = (Name("centre by titles", "nearest to the others", "farthest from the others"),)

    def __init__(
        self,
        words: Int32[np.ndarray, "items words"],
        weights: Float32[np.ndarray, "items words"],
        rng: np.random.Generator,
    ) -> None:
        bucket = rng.integers(BUCKETS, size=int(words.max()) + 1)
        self.words, self.weights = (np.concatenate([one, one[:1] * 0]) for one in (bucket[words], weights))
        self.jitter = 1e-5 * rng.random(len(self.words), dtype=np.float32)  # orders ties

    def ranks(self, draw: Draw) -> Int64[np.ndarray, "1 n"]:
        """See Attack."""
        lists, n = draw.lists, len(draw.lists)
        at, weights = self.words[lists] + np.arange(n)[:, None, None] * BUCKETS, self.weights[lists]
        total = np.bincount(at.reshape(-1), weights.reshape(-1), n * BUCKETS).astype(np.float32)
        nearness = (weights * (total.take(at) - weights)).sum(2) + self.jitter[lists]
        nearness[lists == len(self.words) - 1] = -np.inf
        return target_rank(nearness)[None]


class Places:
    """The order of the list itself, and how far an item is out of the order of ids: both need no other row."""

    names = (
        Name("position", "first in the list", "last in the list"),
        Name("out of order", "most out of the order of ids", "least out of the order of ids"),
    )

    def __init__(self, rank: Int64[np.ndarray, " items"]) -> None:
        self.rank = np.append(rank, len(rank)).astype(np.int32)  # padding: behind all others, as its place

    def ranks(self, draw: Draw) -> Int64[np.ndarray, "attacks n"]:
        """See Attack."""
        ids, places = self.rank[draw.lists], draw.places
        wrong = (places[:, :, None] < places[:, None, :]) != (ids[:, :, None] < ids[:, None, :])
        # Ties count for the item of the larger id.
        inversions = wrong.sum(2, dtype=np.int32) * np.int32(len(self.rank)) + ids
        inversions[draw.lists == len(self.rank) - 1] = -1
        return np.stack([(places[:, 1:] < places[:, :1]).sum(1), target_rank(inversions)])


class Spelling:
    """Guesses an item that is not spelled as it mostly is; ``jitter`` [n, size] in [0, 1) orders the others."""

    names = (Name("spelling", "oddly spelled", "usually spelled"),)

    def __init__(self, jitter: Float[np.ndarray, "n size"]) -> None:
        self.jitter = jitter

    def ranks(self, draw: Draw) -> Int64[np.ndarray, "1 n"]:
        """See Attack."""
        assert draw.odd is not None, "made for files with odd spellings only"
        return target_rank(draw.odd + self.jitter)[None]
