"""Groups records that can be compared, so that they may share a table."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.records import Failure, Record
from rosepo_bench.evaluation import statistics
from rosepo_bench.evaluation.metrics import METRICS

FAMILIES = ("popularity", "recommender", "language_model", "preference")
ORDER = (
    *("popularity", "sasrec", "zero_shot", "sft"),
    *("dpo", "cdpo", "rdpo", "ipo", "simpo", "cpo", "orpo", "kto", "sdpo", "dmpo", "sprec", "rosepo"),
)


@dataclass(frozen=True)
class Comparison:
    """The records of one data set's tables, which can be compared: by method, each method's sorted by seed."""

    title: str
    methods: dict[str, list[Record]]
    failures: list[Failure]
    note: str = ""

    @property
    def records(self) -> list[Record]:
        return [record for records in self.methods.values() for record in records]

    @cached_property
    def users(self) -> Int64[np.ndarray, " n"]:
        """The users that every method was evaluated on. UserError: they differ."""
        names = [f"{record.method} (seed {record.seed})" for record in self.records]
        return statistics.same_users([record.predictions["users"] for record in self.records], names)

    @property
    def names(self) -> list[str]:
        """All methods, those without a record included, in the order of the tables."""
        absent = {method for _, method, _, _ in self.failures} - set(self.methods)
        return [*self.methods, *sorted(absent, key=_place)]

    @property
    def synthetic(self) -> bool:
        return any(record["data"]["kind"] != "real" for record in self.records)

    def seeds(self, method: str) -> list[int]:
        """The seeds of a method's records, ascending."""
        return [record.seed for record in self.methods[method]]

    def shared_seeds(self, one: str, other: str) -> list[int]:
        """The seeds that both methods have, over which their paired difference is averaged."""
        return [seed for seed in self.seeds(one) if seed in self.seeds(other)]

    def values(self, method: str, metric: str, seeds: Collection[int] | None = None) -> list[Float64[np.ndarray, " n"]]:
        """Per-user values of a metric, one array per seed: all of the method's seeds, or those given."""
        assert len(self.users) > 0
        records = [record for record in self.methods[method] if seeds is None or record.seed in seeds]
        return [METRICS[metric](record.predictions["rank"]) for record in records]

    def untied(self) -> Bool[np.ndarray, " n"] | None:
        """Mask of the users whose target does not tie in time with another event; None if the records do not say."""
        tied = [record.predictions.get("tied") for record in self.records]
        return None if not tied or tied[0] is None else ~tied[0].astype(bool)


def comparisons(records: Iterable[Record], failures: Sequence[Failure] = ()) -> list[Comparison]:
    """One comparison per data set, or several where its records cannot be compared because they differ in data, split,
    candidates, protocol or profile. Failures go to the first one."""
    groups: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        _check(record)
        terms = json.dumps(_terms(record), sort_keys=True)
        groups.setdefault(record.dataset, {}).setdefault(terms, []).append(record)
    for failure in failures:
        groups.setdefault(failure[0], {"{}": []})
    found = []
    for dataset, parts in groups.items():
        for index, (terms, members) in enumerate(parts.items()):
            failed = [failure for failure in failures if failure[0] == dataset and index == 0]
            title = dataset if len(parts) == 1 else f"{dataset} ({index + 1} of {len(parts)})"
            note = " ".join([*_apart(terms, list(parts)), *_mixed(members)])
            found.append(Comparison(title, _by_method(members), failed, note))
    return found


def _terms(record: Record) -> dict[str, Any]:
    """What must be equal for two records to be compared."""
    data = record["data"]
    named = {"data": data["digest"], "split": data["split"], "candidates": data["candidates_sha256"]}
    return {"profile": record["profile"], "protocol": record["protocol"], **named}


def _apart(terms: str, all_terms: list[str]) -> Iterator[str]:
    """How a comparison differs from the others of its data set."""
    if len(all_terms) > 1:
        tables, own = [json.loads(one) for one in all_terms], json.loads(terms)
        unequal = [name for name in own if any(table[name] != own[name] for table in tables)]
        here = "; ".join(f"{name} {json.dumps(own[name])}" for name in unequal)
        yield f"This data set also has records that cannot be compared with these, which have {here}."


def _mixed(members: list[Record]) -> Iterator[str]:
    """Methods should continue from the same SFT model: a note where they do not."""
    models: dict[int, set[str]] = {}
    for record in members:
        if "sft" in record["stages"]:
            models.setdefault(record.seed, set()).add(record["stages"]["sft"])
    for seed, keys in sorted(models.items()):
        if len(keys) > 1:
            yield f"The methods of seed {seed} start from {len(keys)} different SFT models."


def _by_method(members: list[Record]) -> dict[str, list[Record]]:
    ordered = sorted(
        members, key=lambda record: (FAMILIES.index(record["family"]), *_place(record.method), record.seed)
    )
    methods: dict[str, list[Record]] = {}
    for record in ordered:
        methods.setdefault(record.method, []).append(record)
    return methods


def _place(method: str) -> tuple[int, str]:
    return (ORDER.index(method) if method in ORDER else len(ORDER), method)


def _check(record: Record) -> None:
    """Refuses a record whose metrics differ from those of its predictions."""
    if record["family"] not in FAMILIES:
        raise UserError(f"{record.path}: unknown family {record['family']!r}; known: {', '.join(FAMILIES)}")
    for name, metric in METRICS.items():
        told, found = record["metrics"][name]["value"], float(np.mean(metric(record.predictions["rank"])))
        if abs(told - found) > 1e-6:
            raise UserError(
                f"{record.path}: says {name} = {told:.6f}, but its predictions give {found:.6f}: "
                "the two files are not of the same run; delete the folder and run again"
            )
