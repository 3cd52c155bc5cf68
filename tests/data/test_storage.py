"""A prepared data set comes back from disk as it was."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import sequences, storage
from rosepo_bench.data.types import Dataset, RawFile, RawInteractions, Source


def prepared() -> Dataset:
    source = Source("three", "real", (RawFile("u.data", 10, "f" * 64),), "citation", "terms", "note")
    user, item = np.repeat([0, 1, 2], 3), np.tile([0, 1, 2], 3)
    labels, ids = (("g", "h"), (), ("g",)), ("i7", "i8", "i9")
    raw = RawInteractions(source, user, item, item % 2, ("x", "y", "z"), tuple("abc"), labels, item_ids=ids)
    raw = replace(raw, titles=("a", "a", "c"), works=np.arange(3))
    dataset = replace(sequences.prepare(raw, 1, ties="item"), merged=((0, ("i7", "i5")),))
    assert dataset.renamed == ((1, "a"),)
    return dataset


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    dataset = prepared()
    storage.save(dataset, tmp_path)
    found = storage.load(tmp_path)
    for name in {field.name for field in fields(Dataset)} - {"sequences", "times"}:
        assert getattr(found, name) == getattr(dataset, name), name
    assert (found.item_ids, found.ties) == (("i7", "i8", "i9"), "item")
    for name in ("sequences", "times"):
        assert [own.tolist() for own in getattr(found, name)] == [own.tolist() for own in getattr(dataset, name)]


@pytest.mark.parametrize(
    "change",
    [
        {"source": 3},
        {"source": {"files": [{"name": "u.data"}]}},
        {"titles": None},
        {"user_ids": ["x"]},
        {"merged": [3]},
        {"genres": [1]},
    ],
    ids=str,
)
def test_what_was_not_saved_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    storage.save(prepared(), tmp_path)
    store.write_json(tmp_path / "dataset.json", store.read_json(tmp_path / "dataset.json") | change)
    with pytest.raises(UserError, match=r"not a prepared data set .*; delete the folder and run again"):
        storage.load(tmp_path)


@pytest.mark.parametrize("name", ["lengths", "items", "times"])
def test_sequences_of_other_lengths_are_named(name: str, tmp_path: Path) -> None:
    storage.save(prepared(), tmp_path)
    arrays = store.read_npz(tmp_path / "sequences.npz")
    for changed in ({**arrays, name: arrays[name][:-1]}, {key: one for key, one in arrays.items() if key != name}):
        store.write_npz(tmp_path / "sequences.npz", **changed)
        with pytest.raises(UserError, match="not a prepared data set"):
            storage.load(tmp_path)


@pytest.mark.parametrize("content", ["null", "[]", "3", "{}"])
def test_other_json_is_named(content: str, tmp_path: Path) -> None:
    storage.save(prepared(), tmp_path)
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(UserError, match="not a prepared data set"):
        storage.load(tmp_path)
