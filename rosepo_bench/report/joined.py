"""Predictions that can be joined with other tables: a row for each cell and user, users and items as the data set names
them. They need the prepared data among the stages of the output folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from rosepo_bench.base import manifest
from rosepo_bench.base.errors import UserError
from rosepo_bench.data import candidates, storage
from rosepo_bench.data.types import Dataset, Examples
from rosepo_bench.report import provenance
from rosepo_bench.report.comparison import Comparison
from rosepo_bench.report.labels import differing, in_words
from rosepo_bench.report.plain import visible
from rosepo_bench.report.result import Result

PLACE = ("dataset", "section", "kind", "profile", "protocol", "method", "settings", "seed", "record")
"""What is the same in all rows of a cell. ``settings``: those in which it differs from other rows of its method."""
OWN = ("user", "target", "rank", "candidates", "scores")
"""What is a user's own. ``rank`` is the target's, 1 = best; ``candidates`` the ids of the whole list, best first, and
``scores`` theirs. None where the record does not hold them."""

Rows = dict[str, list[Any]]


@dataclass(frozen=True)
class _Names:
    """A data set and its test targets, by user."""

    dataset: Dataset
    target: dict[int, int]

    def items(self, numbers: Sequence[int]) -> list[str]:
        """The items' ids; the titles of items that have none."""
        return [(self.dataset.item_ids or self.dataset.titles)[number] for number in numbers]


def cells(comparisons: Sequence[Comparison], out: Path) -> Iterator[Rows]:
    """The rows of one cell after another, as columns :data:`PLACE` and :data:`OWN`. UserError: the prepared data that a
    record was made from are not in the folder, or the record does not fit them."""
    known: dict[tuple[str, str], _Names] = {}
    for comparison in comparisons:
        rows = comparison.rows
        for name, results in comparison.methods.items():
            settings = in_words(differing(rows[name], list(rows.values())))
            for result in results:
                data = (comparison.dataset, str(result["data"]["candidates_sha256"]))
                if data not in known:
                    known[data] = _names(result, out)
                yield _rows(result, comparison.title, settings, known[data])


def _names(result: Result, out: Path) -> _Names:
    """The data and targets with the hashes of the record, from whichever stage holds them."""
    folders = {facts["key"]: (folder, facts) for folder, facts in manifest.every(out / "stages")}
    lists = [one for one in folders.values() if one[1]["name"] == f"{result.record.dataset}.test"]
    for folder, facts in lists:
        for key in facts.get("parents", ()):
            if key in folders and (found := _read(folder, facts["key"], folders[key][0], key)):
                dataset, examples = found
                told = (dataset.digest, candidates.content_hash(examples))
                if told == (result["data"]["digest"], result["data"]["candidates_sha256"]):
                    target = dict(zip(examples.user.tolist(), examples.target.tolist(), strict=True))
                    return _Names(dataset, target)
    name, stages = visible(result.record.dataset), visible(str(out / "stages"))
    raise UserError(
        f"{name}: the ids of users and items are in the prepared data, which are no longer in {stages}; to make them "
        f"again, repeat the command that made the records with `--datasets {name} --methods popularity --force`"
    )


def _read(lists: Path, key: str, data: Path, data_key: str) -> tuple[Dataset, Examples] | None:
    """None: one of the two is not as it was written."""
    try:
        manifest.verify(lists, key)
        manifest.verify(data, data_key)
        return storage.load(data), candidates.thaw(lists / "candidates.npz")
    except (manifest.BrokenError, UserError):
        return None


def _rows(result: Result, section: str, settings: str, names: _Names) -> Rows:
    found, record = result.predictions, result.record
    users = found.users.tolist()
    if not names.target.keys() >= set(users):
        raise _unfit(result, "has users who have no test target")
    told: tuple[Any, ...] = (record.dataset, section, result["data"]["kind"], result["profile"], result.protocol)
    told += (record.method, settings, record.seed, provenance.name(record.path))
    rows: Rows = {name: [value] * len(users) for name, value in zip(PLACE, told, strict=True)}
    target = np.array([names.target[user] for user in users], dtype=np.int64)
    nothing = [None] * len(users)
    rows |= {
        "user": [names.dataset.user_id(user) for user in users],
        "target": names.items(target.tolist()),
        "rank": nothing if found.rank is None else found.rank.tolist(),
        "candidates": nothing,
        "scores": nothing,
    }
    if found.rank is not None and found.scores is not None and found.candidates is not None:
        order = _order(result, found.rank, found.scores, found.candidates == target[:, None])
        listed, scores = (np.take_along_axis(one, order, axis=1) for one in (found.candidates, found.scores))
        if listed.min(initial=0) < 0 or listed.max(initial=0) >= names.dataset.items:
            raise _unfit(result, "has items that the data set has not")
        rows |= {"candidates": [names.items(one) for one in listed.tolist()], "scores": scores.tolist()}
    return rows


def _order(
    result: Result, rank: Int[np.ndarray, " n"], scores: Float[np.ndarray, "n size"], hits: Bool[np.ndarray, "n size"]
) -> Int[np.ndarray, "n size"]:
    """The columns of each user's list, best first: the target (``hits``) at its rank, the others by score, of equal
    ones the first. Scores are stored with fewer digits than ranks were made with."""
    if scores.shape != hits.shape or np.any(hits.sum(axis=1) != 1) or np.any(rank > hits.shape[1]):
        raise _unfit(result, "has lists in which the target, its rank or scores are missing")
    best = np.argsort(-scores, axis=1, kind="stable")
    own = np.take_along_axis(hits, best, axis=1)
    place = np.arange(hits.shape[1]) == rank[:, None] - 1
    order = np.empty_like(best)
    order[place], order[~place] = best[own], best[~own]
    return order


def _unfit(result: Result, problem: str) -> UserError:
    path = result.record.path.parent / result["evaluations"][result.protocol]["predictions"]["file"]
    return UserError(f"{visible(str(path))} {problem}; delete its folder and run its cell again")
