"""The project's own candidate lists as an audit reads them."""

from __future__ import annotations

import numpy as np

from rosepo_bench.data.types import Dataset, Examples, Split
from rosepo_bench.evaluation.audit.table import Rows, Table


def table(dataset: Dataset, split: Split, audited: Examples, **others: Examples) -> Table:
    """The audited examples and further parts, by name, of one data set. Popularity counts training interactions."""
    trained = [own[:end] for own, end in zip(dataset.sequences, split.train_end.tolist(), strict=True)]
    popularity = np.bincount(np.concatenate(trained), minlength=dataset.items).astype(np.float64)
    items = dataset.item_ids or tuple(map(str, range(dataset.items)))
    rows = tuple(_rows(dataset, name, part) for name, part in others.items())
    return Table(items, dataset.titles, _rows(dataset, dataset.full_name, audited), rows, popularity)


def untold(audited: Examples, name: str) -> Table:
    """Frozen lists alone: items are numbers, without titles or histories."""
    items = int(max(audited.candidates.max(), audited.target.max())) + 1
    users = tuple(map(str, audited.user.tolist()))
    rows = Rows(name, users, (), audited.target.astype(np.int64), audited.candidates.astype(np.int64))
    return Table(tuple(map(str, range(items))), (), rows)


def _rows(dataset: Dataset, name: str, part: Examples) -> Rows:
    asked = list(zip(part.user.tolist(), part.step.tolist(), strict=True))
    histories = tuple(dataset.sequences[user][:step] for user, step in asked)
    users = tuple(dataset.user_id(user) for user, _ in asked)
    return Rows(name, users, histories, part.target, part.candidates.astype(np.int64))
