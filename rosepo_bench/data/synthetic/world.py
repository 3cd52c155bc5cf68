"""The laws of the synthetic worlds: taste, exposure and sequels.

U users, I items, D latent dimensions: one for each genre, then `TONES` more that no label shows. x is a
user's history, t the step.

utility   u(x, i) = p_t . q_i + quality_i + sequel(x, i)
taste     p_t = sqrt(1 - drift^2) p_{t-1} + drift * noise: a random walk whose spread does not grow
sequel    bonus * exp(-(steps since the predecessor - 1) / memory) once the previous volume was taken,
          else -penalty; 0 for items without a predecessor
exposure  P(i shown) = 1 - exp(-slate * I * w_i * boost), independently of other items; boost for a volume
          whose predecessor was taken, 0 for items already taken; w: Zipf-Mandelbrot over works, falling with
          the volume
choice    softmax of u over what is shown
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Int64

from rosepo_bench.data.synthetic.calibration import gini
from rosepo_bench.data.synthetic.titles import GENRE_NOUNS, TitleMaker

TONES = 4
NEVER = -1


@dataclass(frozen=True)
class Laws:
    """The constants of a kind of world, chosen so that its replica meets `calibration`."""

    concentration: float  # Gini of the exposure weights; the Zipf exponent is solved for it
    offset: float  # Mandelbrot's shift of the rank: flattens the head
    falling: float  # exposure of a volume relative to the one before
    slate: float  # expected share of the catalogue that is shown, before saturation
    floor: float  # share of the exposure that is spread evenly
    taste: float  # standard deviation of a user's taste in each latent dimension
    drift: float  # share of the taste's standard deviation renewed in one step
    quality: float  # standard deviation of the items' quality
    bonus: float
    penalty: float
    memory: float  # steps
    boost: float  # factor on the exposure of the next volume
    serial: float  # share of works that are series
    longest: int  # volumes of the longest series
    spinoffs: float  # share of series with a spin-off
    spinoff_quality: float = -1.5


@dataclass(frozen=True)
class World:
    """Items and their laws. ``weight`` sums to 1; ``vectors`` is q; ``predecessor`` is the item of the previous volume,
    or -1."""

    laws: Laws
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    weight: Float64[np.ndarray, " I"]
    quality: Float64[np.ndarray, " I"]
    vectors: Float64[np.ndarray, "I D"]
    predecessor: Int64[np.ndarray, " I"]

    @property
    def items(self) -> int:
        return len(self.titles)

    def utility(
        self, taste: Float64[np.ndarray, "n D"], items: Int64[np.ndarray, " n"], since: Int[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " n"]:
        """u of pairs of a taste and an item. ``since``: steps since the predecessor of the item was taken (-1: never;
        ignored where the item has none)."""
        own = np.einsum("nd,nd->n", taste, self.vectors[items]) + self.quality[items]
        return own + self.sequel(items, since)

    def sequel(self, items: Int64[np.ndarray, " n"], since: Int[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """The part of the utility that depends on the previous volume."""
        laws = self.laws
        follows = laws.bonus * np.exp(-(np.maximum(since, 1) - 1) / laws.memory)
        return np.where(self.predecessor[items] < 0, 0.0, np.where(since >= 0, follows, -laws.penalty))

    def rate(self, taken: Int[np.ndarray, "n I"]) -> Float64[np.ndarray, "n I"]:
        """-log P(not shown) for users who took item i at step ``taken[., i]`` (-1: never)."""
        rate = np.broadcast_to(self.laws.slate * self.items * self.weight, taken.shape).copy()
        sequels = np.flatnonzero(self.predecessor >= 0)
        started = taken[:, self.predecessor[sequels]] != NEVER
        rate[:, sequels] *= np.where(started, self.laws.boost, 1.0)
        rate[taken != NEVER] = 0.0
        return rate


@dataclass
class _Draft:
    """Items while the catalogue is being invented, one entry per item."""

    titles: list[str]
    genres: list[tuple[int, ...]]
    predecessor: list[int]
    work: list[int]
    volume: list[int]
    spinoff: list[bool]

    def add(self, title: str, genres: tuple[int, ...], predecessor: int, work: int, volume: int, spinoff: bool) -> None:
        self.titles.append(title)
        self.genres.append(genres)
        self.predecessor.append(predecessor)
        self.work.append(work)
        self.volume.append(volume)
        self.spinoff.append(spinoff)


def build(kind: str, items: int, laws: Laws, rng: np.random.Generator) -> World:
    """Invents ``items`` items."""
    names = list(GENRE_NOUNS[kind])
    draft = _invent(kind, items, laws, names, rng)
    spinoff = np.array(draft.spinoff)
    quality = rng.normal(0.0, laws.quality, items) + laws.spinoff_quality * spinoff
    return World(
        laws=laws,
        titles=tuple(draft.titles),
        genres=tuple(tuple(names[g] for g in genres) for genres in draft.genres),
        weight=_popularity(draft, laws, rng),
        quality=quality,
        vectors=_vectors(draft, len(names), rng),
        predecessor=np.array(draft.predecessor, dtype=np.int64),
    )


def _invent(kind: str, items: int, laws: Laws, names: list[str], rng: np.random.Generator) -> _Draft:
    draft, maker, work = _Draft([], [], [], [], [], []), TitleMaker(kind, rng), 0
    while len(draft.titles) < items:
        room = items - len(draft.titles)
        genres = tuple(int(g) for g in rng.choice(len(names), size=1 + int(rng.random() < 0.3), replace=False))
        if rng.random() >= laws.serial or room < 3:
            draft.add(maker.single(names[genres[0]]), genres, -1, work, 0, False)
        else:
            volumes = int(rng.integers(2, min(laws.longest, room - 1) + 1))
            name, titles = maker.series(names[genres[0]], volumes)
            for volume, title in enumerate(titles):
                draft.add(title, genres, len(draft.titles) - 1 if volume else -1, work, volume, False)
            if rng.random() < laws.spinoffs:
                other = (genres[0] + 1 + int(rng.integers(len(names) - 1))) % len(names)
                draft.add(maker.spinoff(name), (other,), -1, work, 0, True)
        work += 1
    return draft


def _popularity(draft: _Draft, laws: Laws, rng: np.random.Generator) -> Float64[np.ndarray, " I"]:
    """w: Zipf-Mandelbrot over the works in random order, times `falling` per volume, plus an even share. The
    exponent is solved for the Gini `concentration`, which is thus the same for all seeds and sizes."""
    rank = (rng.permutation(max(draft.work) + 1) + 1.0 + laws.offset)[np.array(draft.work)]
    falling = laws.falling ** np.array(draft.volume)

    def weight(exponent: float) -> Float64[np.ndarray, " I"]:
        mine = rank**-exponent * falling
        return (1 - laws.floor) * mine / mine.sum() + laws.floor / len(mine)

    low, high = 0.0, 6.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if gini(weight(middle)) < laws.concentration else (low, middle)
    return weight(high)


def _vectors(draft: _Draft, genres: int, rng: np.random.Generator) -> Float64[np.ndarray, "I D"]:
    """q: 1 on the first genre, 0.5 on the second, and tones that the volumes of a work share."""
    vectors = np.zeros((len(draft.titles), genres + TONES))
    tones = rng.normal(0.0, 0.5, (max(draft.work) + 1, TONES))
    for item, labels in enumerate(draft.genres):
        vectors[item, labels[0]] = 1.0
        vectors[item, labels[1:]] = 0.5
        vectors[item, genres:] = rng.normal(0.0, 0.5, TONES) if draft.spinoff[item] else tones[draft.work[item]]
    return vectors
