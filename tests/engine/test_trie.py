"""The title trie against a plain one of dictionaries."""

from __future__ import annotations

import numpy as np
import pytest

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import generator
from rosepo_bench.engine.ranking.trie import Trie, build

Titles = list[np.ndarray]


def random_titles(draw: np.random.Generator) -> Titles:
    """Titles that share beginnings; some are the beginning of another, some are equal."""
    titles = [draw.integers(0, 5, size=int(draw.integers(1, 9))).astype(np.int32) for _ in range(draw.integers(1, 40))]
    return [*titles, titles[0], np.append(titles[0], 300).astype(np.int32), np.append(titles[0], 2).astype(np.int32)]


def paths(trie: Trie) -> list[tuple[int, ...]]:
    """Every node's tokens from the root."""
    found: list[tuple[int, ...]] = [()]
    for node in range(1, len(trie)):
        assert trie.parent[node] < node
        found.append((*found[trie.parent[node]], int(trie.token[node])))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_every_array_is_what_dictionaries_say(seed: int) -> None:
    titles = random_titles(generator(seed, "trie"))
    trie = build(titles)
    keys = [tuple(title.tolist()) for title in titles]
    prefixes = {key[:n] for key in keys for n in range(len(key) + 1)}
    found = paths(trie)
    assert found == sorted(prefixes)  # depth-first order, each prefix once
    assert trie.depth.tolist() == [len(path) for path in found]
    assert [found[leaf] for leaf in trie.leaf] == keys
    assert trie.lengths.tolist() == [len(key) for key in keys]
    for node, path in enumerate(found):
        below = [n for n, other in enumerate(found) if other[: len(path)] == path]
        assert below == list(range(node, trie.end[node]))
        children = [n for n in below if len(found[n]) == len(path) + 1]
        assert trie.children(np.array([node]))[0].tolist() == children
        assert trie.has_children[node] == bool(children)
        assert trie.goes_on[node] == any(trie.has_children[child] for child in children)
        ending = [item for item, key in enumerate(keys) if key == path]
        assert trie.ended(node).tolist() == ending
        assert trie.has_items[node] == bool(ending)
        run = node + 1
        while len(trie.children(np.array([run - 1]))[0]) == 1 and trie.has_children[run]:
            run += 1
        assert trie.run[node] == run
        assert trie.longest[node] == max(len(key) for key in keys if key[: len(path)] == path)
    assert trie.inner.tolist() == [n for n in range(1, len(found)) if trie.has_children[n]]


def test_children_of_many_nodes_come_in_their_order() -> None:
    titles = [np.array(t, dtype=np.int32) for t in ([1, 2, 9], [1, 3, 9], [4, 9])]
    trie = build(titles)  # 0 root; 1: 1; 2: 1 2; 3: end; 4: 1 3; 5: end; 6: 4; 7: end
    children, place = trie.children(np.array([6, 0, 1]))
    assert children.tolist() == [7, 1, 6, 2, 4]
    assert place.tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("titles", [[], [[1], []], [[1, -1]]])
def test_what_is_no_catalogue_is_refused(titles: list[list[int]]) -> None:
    with pytest.raises(UserError, match="titles of at least one token each, with ids of 0 or more"):
        build([np.array(title, dtype=np.int32) for title in titles])
