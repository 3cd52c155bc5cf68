"""What is known of items without any history of a row: their ids, titles, and the company they keep in histories."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int32, Num
from scipy import sparse
from scipy.sparse import linalg

from rosepo_bench.evaluation.audit.attacks import Name
from rosepo_bench.evaluation.audit.table import Table

WIDTH = 16  # of item vectors


def properties(table: Table) -> dict[Name, Num[np.ndarray, " items"]]:
    """The properties of an item by which a list is ordered; descending, so the largest comes first."""
    listed = table.rows.candidates[table.rows.candidates >= 0]
    found: dict[Name, Num[np.ndarray, " items"]] = {
        Name("id order", "the largest id", "the smallest id"): table.rank,
        Name("repetition", "in most lists", "in fewest lists"): np.bincount(listed, minlength=len(table.items)),
    }
    if table.titles:
        words: dict[Name, list[int]] = {
            Name("title length", "the longest title", "the shortest title"): [len(title) for title in table.titles],
            Name("title case", "most capitals", "fewest capitals"): [
                sum(map(str.isupper, title)) for title in table.titles
            ],
            Name("title punctuation", "most punctuation", "least punctuation"): [
                len(re.findall(r"[^\w\s]|^\s|\s$|\s\s", title)) for title in table.titles
            ],
        }
        found |= {name: np.array(values) for name, values in words.items()}
    return found


def spaces(table: Table) -> dict[Name, Float64[np.ndarray, "items width"]]:
    """Unit vectors of items, by their titles' words and by the histories that hold them; none where too little is
    known."""
    found = {}
    histories = [history for rows in (table.rows, *table.others) for history in rows.histories]
    for what, counts in (("titles", _words(table.titles)), ("histories", _held(histories, len(table.items)))):
        if counts is not None:
            name = Name(f"centre by {what}", "nearest to the others", "farthest from the others")
            found[name] = _vectors(counts)
    return found


def _words(titles: Sequence[str]) -> sparse.csr_array | None:
    words: dict[str, int] = {}
    pairs = [
        (item, words.setdefault(word, len(words)))
        for item, title in enumerate(titles)
        for word in Counter(re.findall(r"\w+", title.casefold()))
    ]
    return _incidence(pairs, (len(titles), len(words)))


def _held(histories: Sequence[Int32[np.ndarray, " _"]], items: int) -> sparse.csr_array | None:
    pairs = [(item, row) for row, history in enumerate(histories) for item in set(history.tolist())]
    return _incidence(pairs, (items, len(histories)))


def _incidence(pairs: list[tuple[int, int]], shape: tuple[int, int]) -> sparse.csr_array | None:
    """Items × words or histories, rare columns weighing more; None for tables too small for vectors."""
    if min(shape) <= WIDTH or not pairs:
        return None
    item, column = np.array(pairs).T
    weight = np.log(shape[0] / np.bincount(column, minlength=shape[1]).clip(1))
    return sparse.csr_array((weight[column], (item, column)), shape=shape)


def _vectors(counts: sparse.csr_array) -> Float64[np.ndarray, "items width"]:
    left, values, _ = linalg.svds(counts, k=WIDTH, v0=np.ones(min(counts.shape)))
    vectors = left * values
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float64[np.ndarray, "items width"] = np.divide(
        vectors, length, where=length > 1e-9, out=np.zeros_like(vectors)
    )
    return unit
