"""The semantic sampler, and the similarity of items by text that it reads: TF-IDF over character n-grams of title and
genres. Small, deterministic, and nothing to download.

A metric of semantic harm must use a different encoder, because the semantic sampler optimises this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float64, Int, Int64
from scipy import sparse

from rosepo_bench.base.component import setting
from rosepo_bench.data.types import Queries
from rosepo_bench.data.views import TrainView
from rosepo_bench.preference.samplers.base import Sampler

GRAMS = (3, 4)


class Semantic(Sampler):
    """softmax(cosine / temperature) around the history, or around the chosen item."""

    name = "semantic"
    about = "items whose text is similar to the history, or to the chosen item"
    paper = "arXiv 2410.12519 (RosePO)"
    anchor: Literal["history", "target"] = setting("history", about="what rejected items are similar to")
    temperature: float = setting(0.05, gt=0, about="temperature of the softmax over cosine similarities")
    history: int = setting(19, ge=1, about="how many of the last items are read; no effect with anchor = target")

    @property
    def by_chosen(self) -> bool:
        return self.anchor == "target"

    def log_weights(
        self, view: TrainView, prompts: Queries, chosen: Int64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, "n items"]:
        vectors = encoded(view)
        recent = [past[-self.history :] for past in prompts.histories]
        anchors = vectors[chosen] if self.anchor == "target" else history_vectors(vectors, recent)
        return similarity(anchors, vectors) / self.temperature


_encoded: WeakKeyDictionary[TrainView, sparse.csr_matrix] = WeakKeyDictionary()


def encoded(view: TrainView) -> sparse.csr_matrix:
    """The encoding ``[items, grams]`` of the view's items, made once for each view."""
    if view not in _encoded:
        _encoded[view] = encode(view.titles, view.genres)
    return _encoded[view]


def item_text(title: str, genres: Sequence[str]) -> str:
    """The text that is encoded: title, then genres, in lower case."""
    return " ".join([title, *genres]).casefold()


def grams(text: str) -> list[str]:
    """The character 3- and 4-grams of each word, padded with a blank at both ends; with repetitions."""
    words = [f" {word} " for word in text.split()]
    return [word[at : at + size] for word in words for size in GRAMS for at in range(len(word) - size + 1)]


def encode(titles: Sequence[str], genres: Sequence[Sequence[str]]) -> sparse.csr_matrix:
    """float64 ``[items, grams]``: (1 + log tf)(log((1 + n)/(1 + df)) + 1), rows of length 1; a text without any gram is
    a row of zeros."""
    assert len(titles) == len(genres), "one list of genres per title"
    vocabulary: dict[str, int] = {}
    columns: list[int] = []
    ends = [0]
    for title, names in zip(titles, genres, strict=True):
        columns += [vocabulary.setdefault(gram, len(vocabulary)) for gram in grams(item_text(title, names))]
        ends.append(len(columns))
    shape = (len(titles), max(1, len(vocabulary)))
    counts = sparse.csr_matrix((np.ones(len(columns)), columns, ends), shape=shape)
    counts.sum_duplicates()
    document_frequency = np.bincount(counts.indices, minlength=shape[1])
    counts.data = (1 + np.log(counts.data)) * (np.log((1 + len(titles)) / (1 + document_frequency)) + 1)[counts.indices]
    return normalise(counts)


def normalise(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows of length 1 (L2); zero rows stay zero."""
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return sparse.csr_matrix(sparse.diags(scale) @ rows)


def history_vectors(vectors: sparse.csr_matrix, histories: Sequence[Int[np.ndarray, " _"]]) -> sparse.csr_matrix:
    """``[n, grams]``: the normalised mean of each history's item vectors; zeros for an empty history."""
    ends = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    flat = np.concatenate([*histories, np.empty(0, dtype=np.int64)]).astype(np.int64)
    chosen = sparse.csr_matrix((np.ones(len(flat)), flat, ends), shape=(len(histories), vectors.shape[0]))
    return normalise(sparse.csr_matrix(chosen @ vectors))


def similarity(queries: sparse.csr_matrix, vectors: sparse.csr_matrix) -> Float64[np.ndarray, "n items"]:
    """Cosine similarities of unit rows ``queries`` ``[n, grams]`` to all item vectors ``[items, grams]``."""
    return np.asarray((queries @ vectors.T).toarray())
