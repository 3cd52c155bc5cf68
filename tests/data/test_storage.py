"""A prepared data set comes back from disk as it was."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from rosepo_bench.data import sequences, storage
from rosepo_bench.data.types import Dataset, RawFile, RawInteractions, Source


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    source = Source("three", "real", (RawFile("u.data", 10, "f" * 64),), "citation", "terms", "note")
    user, item = np.repeat([0, 1, 2], 3), np.tile([0, 1, 2], 3)
    labels, ids = (("g", "h"), (), ("g",)), ("i7", "i8", "i9")
    raw = RawInteractions(source, user, item, item % 2, ("x", "y", "z"), tuple("abc"), labels, item_ids=ids)
    raw = replace(raw, titles=("a", "a", "c"), works=np.arange(3))
    dataset = replace(sequences.prepare(raw, 1, ties="item"), merged=((0, ("i7", "i5")),))
    assert dataset.renamed == ((1, "a"),)
    storage.save(dataset, tmp_path)
    found = storage.load(tmp_path)
    for name in {field.name for field in fields(Dataset)} - {"sequences", "times"}:
        assert getattr(found, name) == getattr(dataset, name), name
    assert (found.item_ids, found.ties) == (("i7", "i8", "i9"), "item")
    for name in ("sequences", "times"):
        assert [own.tolist() for own in getattr(found, name)] == [own.tolist() for own in getattr(dataset, name)]
