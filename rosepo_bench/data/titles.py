"""A title is a name, not an identity: items of one title are told apart for a model, which reads nothing else."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64


def told_apart(titles: Sequence[str], hints: Sequence[str] = ()) -> tuple[str, ...]:
    """The titles, all different. Where several items have the same title and their ``hints`` (years or authors, empty
    where not known) differ, each has its own appended: `Selected Poems (1992)`. Where titles are the same even then,
    the second and later ones are counted: `Emma (1996) (2)`. All others stay as they are."""
    known: defaultdict[str, set[str]] = defaultdict(set)
    for title, hint in zip(titles, hints, strict=False):
        known[title].add(hint)
    several = {title for title, own in known.items() if len(own) > 1}
    names = list(titles)
    for item, hint in enumerate(hints):
        if hint and names[item] in several and not names[item].endswith(f"({hint})"):
            names[item] = f"{names[item]} ({hint})"
    return _counted(names)


def first_of_title(titles: Sequence[str]) -> Int64[np.ndarray, " items"]:
    """For each item the first item of the same title: the works of a list in which an item stands twice."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(title, index) for index, title in enumerate(titles)], dtype=np.int64)


def _counted(names: Sequence[str]) -> tuple[str, ...]:
    taken, met, out = set(names), Counter[str](), []
    for name in names:
        met[name] += 1
        counted = name
        if met[name] > 1:
            while (counted := f"{name} ({met[name]})") in taken:
                met[name] += 1
            taken.add(counted)
        out.append(counted)
    return tuple(out)
