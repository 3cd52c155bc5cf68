"""What is known of items without any history of a row: their ids, titles, and the company they keep in histories."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int32, Num
from scipy import sparse
from scipy.sparse import linalg

from rosepo_bench.evaluation.audit.attacks import Name
from rosepo_bench.evaluation.audit.table import Table

WIDTH = 16  # of item vectors
WORDS = 8  # of a title


def properties(table: Table) -> dict[Name, Num[np.ndarray, " items"]]:
    """The properties of an item by which a list is ordered; descending, so the largest comes first."""
    listed = table.rows.candidates[table.rows.candidates >= 0]
    found: dict[Name, Num[np.ndarray, " items"]] = {
        Name("id order", "the largest id", "the smallest id"): table.rank,
        Name("repetition", "in most lists", "in fewest lists"): np.bincount(listed, minlength=len(table.items)),
    }
    if table.titles:
        looks: dict[Name, list[int]] = {
            Name("title length", "the longest title", "the shortest title"): [len(title) for title in table.titles],
            Name("title case", "most capitals", "fewest capitals"): [
                sum(map(str.isupper, title)) for title in table.titles
            ],
            Name("title punctuation", "most punctuation", "least punctuation"): [
                len(re.findall(r"[^\w\s]|^\s|\s$|\s\s", title)) for title in table.titles
            ],
        }
        found |= {name: np.array(values) for name, values in looks.items()}
    return found


def words(titles: Sequence[str]) -> tuple[Int32[np.ndarray, "items words"], Float32[np.ndarray, "items words"]]:
    """The rarest words of each title, numbered from 1, and their weights: log inverse frequencies at unit length; 0 and
    weight 0 where a title has fewer."""
    told = [sorted(set(re.findall(r"\w+", title.casefold()))) for title in titles]
    frequency = Counter(word for own in told for word in own)
    number = {word: place for place, word in enumerate(frequency, start=1)}
    found, weight = np.zeros((len(titles), WORDS), dtype=np.int32), np.zeros((len(titles), WORDS), dtype=np.float32)
    for item, own in enumerate(told):
        rarest = sorted(own, key=frequency.__getitem__)[:WORDS]
        found[item, : len(rarest)] = [number[word] for word in rarest]
        weight[item, : len(rarest)] = [np.log(1 + len(titles) / frequency[word]) for word in rarest]
    return found, weight / np.linalg.norm(weight, axis=1, keepdims=True).clip(1e-9)


def vectors(table: Table) -> Float64[np.ndarray, "items width"] | None:
    """Unit vectors of the items by the histories that hold them; None where there are too few."""
    histories = [history for rows in (table.rows, *table.others) for history in rows.histories]
    items, shape = len(table.items), (len(table.items), len(histories))
    if min(shape) <= WIDTH:
        return None
    column = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    item = np.concatenate(histories)
    weight = np.log(1 + items / np.bincount(column, minlength=len(histories)).clip(1))
    counts = sparse.csr_array((weight[column], (item, column)), shape=shape)
    left, values, _ = linalg.svds(counts, k=WIDTH, v0=np.ones(min(shape)))
    found = left * values
    length = np.linalg.norm(found, axis=1, keepdims=True)
    unit: Float64[np.ndarray, "items width"] = np.divide(found, length, where=length > 1e-9, out=np.zeros_like(found))
    return unit
