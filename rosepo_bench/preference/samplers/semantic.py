"""How alike two titles read: TF-IDF over the characters of title and genres. Small, deterministic, and
nothing to download.

A metric of semantic harm has to use another encoder than this one, because the semantic sampler optimises it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from rosepo_bench.data.types import FloatArray, IntArray

GRAMS = (3, 4)


def item_text(title: str, genres: Sequence[str]) -> str:
    """What is encoded: lower-case title, then the genres."""
    return " ".join([title, *genres]).casefold()


def grams(text: str) -> list[str]:
    """The character 3- and 4-grams of each word, a blank at both ends of it; with repetitions."""
    words = [f" {word} " for word in text.split()]
    return [word[at : at + size] for word in words for size in GRAMS for at in range(len(word) - size + 1)]


def encode(titles: Sequence[str], genres: Sequence[Sequence[str]]) -> sparse.csr_matrix:
    """float64 ``[items, grams]``: (1 + log tf)(log((1 + n)/(1 + df)) + 1), rows of length 1; a text without
    any gram is a row of zeros, alike to nothing."""
    assert len(titles) == len(genres), "one list of genres a title"
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


def history_vectors(vectors: sparse.csr_matrix, histories: Sequence[IntArray]) -> sparse.csr_matrix:
    """``[n, grams]``: the normalised mean of each history's item vectors; an empty history is a row of
    zeros."""
    ends = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    flat = np.concatenate([*histories, np.empty(0, dtype=np.int64)]).astype(np.int64)
    chosen = sparse.csr_matrix((np.ones(len(flat)), flat, ends), shape=(len(histories), vectors.shape[0]))
    return normalise(sparse.csr_matrix(chosen @ vectors))


def similarity(queries: sparse.csr_matrix, vectors: sparse.csr_matrix) -> FloatArray:
    """Cosines, float64 ``[n, items]``, of unit rows ``[n, grams]`` with all item vectors."""
    return np.asarray((queries @ vectors.T).toarray())
