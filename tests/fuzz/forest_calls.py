"""Calls of the compiled forest module with random groups and trees, right and wrong: a tree is that of the readable
twin, or an error is raised."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import forest_twin
import numpy as np
from chance import FAR, NUMBERS, Chance

from rosepo_bench.engine import forest

FIELDS = ("tokens", "depth", "end", "node", "target", "sequence")
INTEGERS = ("int32", "int64", "uint8", "uint64", "int16")
CONTEXT = 40


def shake_build(seed: int, spoils: int = 15) -> int:
    """One group built and compared, then spoiled; the number of calls. AssertionError: not the twin's tree."""
    chance = Chance(seed)
    group = _group(chance)
    found, wanted = forest.build(group, context=CONTEXT), forest_twin.build(group)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(found, field), getattr(wanted, field), err_msg=f"seed {seed}: {field}")
    limits = {"context": CONTEXT, "vocabulary": 5, "budget": 0, "square": 0.0, "unit": 1, "distinct": False}
    for _ in range(spoils):
        worse: list[Any] = list(group)
        options = dict(limits)
        if chance.under(0.4):
            options[chance.choice(sorted(options))] = chance.choice((*NUMBERS, *FAR))
        else:
            worse[chance.randrange(len(worse))] = _worse_pair(chance, chance.choice(worse))
        name = (lambda group, sequence: f"{group}/{sequence}") if chance.under(0.95) else (lambda *_: 1 / 0)
        _survive(forest.native().build, [worse, *([group] if chance.under(0.3) else [])], name=name, **options)
    return 1 + spoils


def shake_collate(seed: int, spoils: int = 15) -> int:
    """Trees collated and compared, then spoiled; the number of calls."""
    chance = Chance(seed)
    trees = [forest.build(_group(chance), context=CONTEXT) for _ in range(chance.randint(1, 3))]
    batch = forest.collate(trees)
    np.testing.assert_array_equal(batch.tokens.numpy(), np.concatenate([tree.tokens for tree in trees]))
    named = np.concatenate([tree.tokens[tree.node] for tree in trees])
    np.testing.assert_array_equal(batch.tokens[batch.rows[batch.row_of_target]].numpy(), named)
    for _ in range(spoils):
        worse = list(trees)
        place = chance.randrange(len(worse))
        field = chance.choice((*FIELDS, "sequences"))
        worse[place] = replace(worse[place], **{field: _worse_field(chance, getattr(worse[place], field))})
        _survive(forest.native().collate, worse)
    return 1 + spoils


def _group(chance: Chance) -> list[tuple[np.ndarray, np.ndarray]]:
    def ids(most: int) -> np.ndarray:
        drawn = np.array([chance.randrange(4) for _ in range(chance.randint(1, most))], chance.choice(INTEGERS))
        return np.repeat(drawn, 2)[::2] if chance.under(0.3) else drawn

    shared = ids(9)
    return [(shared if chance.under(0.5) else ids(9), ids(5)) for _ in range(chance.randint(1, 6))]


def _worse_pair(chance: Chance, pair: tuple[np.ndarray, np.ndarray]) -> Any:
    ways: list[Any] = [None, (), pair[:1], (*pair, pair[0]), "ab", [[1], [2]], ([1, [2]], [1])]
    if chance.under(0.1):
        return chance.choice(ways)
    both: list[Any] = list(pair)
    place = chance.randrange(2)
    ids = both[place].astype("int64")
    ids[chance.randrange(len(ids))] = chance.choice(FAR)
    kinds = (ids, ids[:0], ids[None], ids.astype("float64"), ids.astype("O"), np.float64("nan"), None, np.arange(60))
    both[place] = chance.choice((ids, ids.astype("uint64"), *kinds))
    return tuple(both)


def _worse_field(chance: Chance, x: Any) -> Any:
    if isinstance(x, int):
        return chance.choice((*FAR, None, 1.5, "x"))
    worse = x.astype("int64")
    if len(worse):
        worse[chance.randrange(len(worse))] = chance.choice(FAR)
    floats = np.where(worse > 100, np.nan, worse)
    return chance.choice((worse, worse, worse[:-1], worse[:0], worse[None], np.append(worse, 0), floats, None, "x"))


def _survive(call: Any, *arguments: Any, **options: Any) -> None:
    # Errors of any kind; what is looked for is a crash. numpy warns where it makes integers of NaN.
    with contextlib.suppress(Exception), np.errstate(all="ignore"):
        call(*arguments, **options)
