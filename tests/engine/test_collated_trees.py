"""What `collate` refuses: trees whose indices lead outside of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rosepo_bench.engine.forest import Tree, build, collate


def tree(**changes: Any) -> Tree:
    whole = build([(np.array([1, 2]), np.array([3, 4])), (np.array([1, 2]), np.array([5]))], context=9)
    return replace(whole, **{name: np.array(x) if isinstance(x, list) else x for name, x in changes.items()})


BAD = [
    ({"end": [2**63 - 1, 3, 3]}, "a subtree ends outside of its tree"),
    ({"end": [3, 1, 3]}, "a subtree ends outside of its tree"),
    ({"end": [3, 3, 4]}, "a subtree ends outside of its tree"),
    ({"node": [0, 3, 0]}, "names a node that its tree does not have"),
    ({"node": [0, -1, 0]}, "names a node that its tree does not have"),
    ({"sequence": [0, 0, 2]}, "names a sequence that its tree does not have"),
    ({"sequence": [0, -1, 1]}, "names a sequence that its tree does not have"),
    ({"sequences": -1}, "a tree has no such number of sequences"),
    ({"sequences": 2**62}, "a tree has no such number of sequences"),
]


@pytest.mark.parametrize(("changes", "why"), BAD, ids=[str(case[0]) for case in BAD])
def test_an_index_that_leads_outside_is_refused(changes: dict[str, Any], why: str) -> None:
    assert len(collate([tree(), tree()])) == 2 * len(tree())
    with pytest.raises(ValueError, match=why):
        collate([tree(), tree(**changes)])
