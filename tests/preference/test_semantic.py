"""The text encoder: what it finds alike."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_world as tiny

from rosepo_bench.preference.samplers import semantic
from rosepo_bench.preference.samplers.mixed import Mixed
from rosepo_bench.preference.samplers.popularity import Popularity
from rosepo_bench.preference.samplers.self_hard import SelfHard
from rosepo_bench.preference.samplers.uniform import Uniform

TITLES = ["Star Wars (1977)", "Star Trek (1979)", "Fargo (1996)", "Stargate (1994)", "Fargo (1996)", ""]
GENRES = [["Action"], ["Action"], ["Crime"], ["Action"], ["Crime"], []]


def test_cosines() -> None:
    vectors = semantic.encode(TITLES, GENRES)
    cosines = semantic.similarity(vectors, vectors)
    np.testing.assert_allclose(np.diag(cosines), [1, 1, 1, 1, 1, 0], atol=1e-12)  # an empty text is like nothing
    np.testing.assert_allclose(cosines, cosines.T, atol=1e-12)
    assert cosines[2, 4] > 1 - 1e-12
    assert cosines[0, 1] > cosines[0, 3] > cosines[0, 2] > 0
    assert cosines.max() < 1 + 1e-12


def test_weights_by_hand() -> None:
    """Two one-word texts: they share the grams of their common letters, weighted (1 + log
    tf)(log((1+n)/(1+df)) + 1)."""
    assert sorted(semantic.grams("abab")) == sorted([" ab", "aba", "bab", "ab ", " aba", "abab", "bab "])
    vectors = semantic.encode(["abc", "abd"], [[], []])
    rare = np.log(3 / 2) + 1  # " ab" is in both texts and weighs 1; "abc", "bc ", " abc", "abc " are in one
    np.testing.assert_allclose(semantic.similarity(vectors, vectors)[0, 1], 1 / (1 + 4 * rare**2), rtol=1e-12)


def test_genres_count() -> None:
    vectors = semantic.encode(["Heat", "Clue", "Babe"], [["Crime"], ["Crime"], ["Comedy"]])
    cosines = semantic.similarity(vectors, vectors)
    assert cosines[0, 1] > cosines[0, 2]


def test_history_is_the_mean_of_its_items() -> None:
    vectors = semantic.encode(TITLES, GENRES)
    histories = [np.array([0, 2]), np.array([], dtype=np.int32), np.array([3])]
    found = semantic.history_vectors(vectors, histories).toarray()
    mean = (vectors[0] + vectors[2]).toarray().ravel()
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), rtol=1e-12)
    assert not found[1].any()
    np.testing.assert_allclose(found[2], vectors[3].toarray().ravel(), rtol=1e-12)


def test_texts_are_encoded_once_a_view_for_those_who_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, encode = [], semantic.encode
    monkeypatch.setattr(semantic, "encode", lambda *texts: calls.append(texts) or encode(*texts))
    prompts, chosen = tiny.asked(tiny.ONCE)
    view, given = tiny.view(), tiny.scored(prompts)
    for sampler in (Uniform(), Popularity(), SelfHard()):
        sampler.draw(view, given, chosen, 2, seed=0)
    assert not calls
    for _ in range(2):
        semantic.Semantic(anchor="target").draw(view, given, chosen, 2, seed=0)
        Mixed().draw(view, given, chosen, 2, seed=0)
    assert len(calls) == 1
    semantic.Semantic().draw(view.of([0, 1]), given, chosen, 1, seed=0)
    assert len(calls) == 2
