"""A prepared data set on disk: arrays in one .npz, the rest in one JSON file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
from rosepo_bench.data.types import Dataset, RawFile, Source


def save(dataset: Dataset, folder: Path) -> None:
    """Writes ``dataset.json`` and ``sequences.npz``."""
    words = {
        "name": dataset.name,
        "source": asdict(dataset.source),
        "titles": list(dataset.titles),
        "user_ids": list(dataset.user_ids),
        "item_ids": list(dataset.item_ids),
        "renamed": [list(one) for one in dataset.renamed],
        "merged": [list(one) for one in dataset.merged],
        "ties": dataset.ties,
        "dated": dataset.dated,
        "genres": [list(genres) for genres in dataset.genres],
        "counts": dataset.counts,
        "digest": dataset.digest,
    }
    lengths = np.array([len(sequence) for sequence in dataset.sequences], dtype=np.int64)
    store.write_npz(
        folder / "sequences.npz",
        lengths=lengths,
        items=np.concatenate(dataset.sequences),
        times=np.concatenate(dataset.times),
    )
    store.write_json(folder / "dataset.json", words)


def load(folder: Path) -> Dataset:
    """Reads what ``save`` wrote. UserError: a file is missing, torn, or says something else."""
    words, arrays = store.read_json(folder / "dataset.json"), store.read_npz(folder / "sequences.npz")
    try:
        return _dataset(words, arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: not a prepared data set ({error!r}); delete the folder and run again") from error


def _dataset(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> Dataset:
    cuts = np.cumsum(arrays["lengths"])
    if not len(words["user_ids"]) == len(cuts) or not cuts[-1] == len(arrays["items"]) == len(arrays["times"]):
        raise ValueError("its arrays have other lengths than its users")
    source = dict(words["source"])
    files = tuple(RawFile(**file) for file in source.pop("files"))
    return Dataset(
        name=words["name"],
        source=Source(**source, files=files),
        titles=tuple(words["titles"]),
        user_ids=tuple(words["user_ids"]),
        item_ids=tuple(words["item_ids"]),
        renamed=tuple((item, title) for item, title in words["renamed"]),
        merged=tuple((item, tuple(ids)) for item, ids in words["merged"]),
        ties=words["ties"],
        dated=words["dated"],
        genres=tuple(tuple(genres) for genres in words["genres"]),
        sequences=tuple(np.split(arrays["items"], cuts[:-1])),
        times=tuple(np.split(arrays["times"], cuts[:-1])),
        counts=words["counts"],
        digest=words["digest"],
    )
