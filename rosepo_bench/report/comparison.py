"""Groups records that can be compared, so that they may share a table."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from rosepo_bench.base.failures import Failure
from rosepo_bench.base.records import Record
from rosepo_bench.evaluation import statistics
from rosepo_bench.evaluation.metrics.base import metrics
from rosepo_bench.report.labels import Row, labels
from rosepo_bench.report.notes import apart, machines, mixed, seeds
from rosepo_bench.report.plain import visible
from rosepo_bench.report.result import Result, newest

FAMILIES = ("popularity", "recommender", "language_model", "preference")
ORDER = (
    *("popularity", "sasrec", "zero_shot", "sft"),
    *("dpo", "cdpo", "rdpo", "ipo", "simpo", "cpo", "orpo", "kto", "sdpo", "dmpo", "sprec", "rosepo"),
)
GROUPS = ("accuracy", "harm", "popularity")
PRIMARY = ("hr@1", "correct", "out-of-catalogue")
DISTINCT = ("protocol", "profile", "split", "noise", "candidates", "data")
"""What can tell the sections of a data set apart: in their headings, the first that does so alone, or all together."""


@dataclass(frozen=True)
class Comparison:
    """The results of one data set and protocol, which can be compared: by row (a method, or a method with settings),
    each row's sorted by seed. ``absent`` are the cells without a record, by row. ``repeated``: an earlier section of
    the report is of the same records under another protocol."""

    dataset: str
    title: str
    methods: dict[str, list[Result]]
    absent: dict[str, list[Failure]] = field(default_factory=dict)
    note: str = ""
    repeated: bool = False

    @property
    def records(self) -> list[Result]:
        return [result for results in self.methods.values() for result in results]

    @cached_property
    def users(self) -> Shaped[np.ndarray, " n"]:
        """The users that every method was evaluated on. UserError: they differ."""
        names = [f"{name} (seed {result.seed})" for name, results in self.methods.items() for result in results]
        return statistics.same_users([result.arrays["users"] for result in self.records], list(map(visible, names)))

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that any of the records shows: those that this program knows first, in its order."""
        told = {name for result in self.records for name in result.shown}
        return [*(name for name in metrics() if name in told), *sorted(told - set(metrics()))]

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The metrics by their group; those that this program does not know count as accuracy."""
        found: dict[str, list[str]] = {}
        for group in GROUPS:
            own = [
                name for name in self.metrics if (metrics()[name].group if name in metrics() else GROUPS[0]) == group
            ]
            found |= {group: own} if own else {}
        return found

    @property
    def primary(self) -> str:
        """The metric in which methods are compared: HR@1, else the first of those that are told."""
        return next((name for name in PRIMARY if name in self.metrics), (self.metrics or [PRIMARY[0]])[0])

    @property
    def names(self) -> list[str]:
        """All rows, those without a record included, in the order of the tables."""
        return [*self.methods, *(name for name in self.absent if name not in self.methods)]

    @property
    def rows(self) -> dict[str, Row]:
        """A result, or a cell without a record, of each row."""
        return {name: self.methods[name][0] if name in self.methods else self.absent[name][0] for name in self.names}

    @property
    def synthetic(self) -> bool:
        return any(record["data"]["kind"] != "real" for record in self.records)

    def seeds(self, name: str) -> list[int]:
        """The seeds of a row's records, ascending."""
        return [record.seed for record in self.methods[name]]

    def shared_seeds(self, one: str, other: str) -> list[int]:
        """The seeds that both rows have, over which their paired difference is averaged."""
        return [seed for seed in self.seeds(one) if seed in self.seeds(other)]

    def baseline(self, name: str, method: str) -> str | None:
        """The row of ``method`` that a row is compared with: its only one, or of several the one whose settings are the
        same wherever both have them. None: there is none, or it is the row itself."""
        rows = [one for one, results in self.methods.items() if results[0].method == method]
        if len(rows) > 1:
            rows = [one for one in rows if self._agree(name, one)]
        return rows[0] if len(rows) == 1 and self.methods[name][0].method != method else None

    def _agree(self, one: str, other: str) -> bool:
        first, second = (self.methods[name][0].settings for name in (one, other))
        return all(first[name] == second[name] for name in first.keys() & second.keys())

    def values(
        self, name: str, metric: str, seeds: Collection[int] | None = None
    ) -> list[Float64[np.ndarray, " n"]] | None:
        """Per-user values of a metric, one array per seed: all of the row's seeds, or those given. None where a record
        or its predictions do not tell."""
        assert len(self.users) > 0
        results = [result for result in self.methods[name] if seeds is None or result.seed in seeds]
        found = [values for result in results if (values := result.values(metric)) is not None]
        return found if len(found) == len(results) else None

    def untied(self) -> Bool[np.ndarray, " n"] | None:
        """Mask of the users whose target does not tie in time with another event; None if the records do not say."""
        tied = [result.arrays.get("tied") for result in self.records]
        return None if not tied or tied[0] is None else ~tied[0].astype(bool)


def comparisons(records: Iterable[Record], failures: Sequence[Failure] = ()) -> list[Comparison]:
    """One comparison per data set and protocol, or several where its records cannot be compared because they differ in
    data, split, candidates or profile. Failures go to the first one of their data set, unless a newer record is of the
    same row and seed."""
    groups: dict[str, dict[str, list[Result]]] = {}
    times: dict[tuple[str, str, int, str], str] = {}
    for record in records:
        place = (record.dataset, record.method, record.seed, record.row)
        times[place] = max(record.created, times.get(place, ""))
        for protocol in record.protocols:
            result = Result(record, protocol)
            groups.setdefault(record.dataset, {}).setdefault(result.terms, []).append(result)
    absent = [one for one in failures if one.place not in times or one.created > times[one.place]]
    for failure in absent:
        groups.setdefault(failure.dataset, {"{}": []})
    return [
        one
        for dataset, parts in groups.items()
        for one in _sections(dataset, parts, [failure for failure in absent if failure.dataset == dataset])
    ]


def _sections(dataset: str, parts: dict[str, list[Result]], failures: list[Failure]) -> Iterator[Comparison]:
    shown: set[str] = set()
    for number, (terms, members) in enumerate(parts.items()):
        chosen, notes = newest(members)
        methods, absent = _rows(chosen, failures if number == 0 else [])
        paths = {str(result.record.path) for result in chosen}
        said = (*apart(terms, list(parts)), *mixed(chosen), *machines(chosen), *seeds(methods), *notes)
        title, repeated = _title(dataset, parts, number), bool(paths) and paths <= shown
        yield Comparison(dataset, title, methods, absent, " ".join(said), repeated)
        shown |= paths


def _title(dataset: str, parts: dict[str, list[Result]], number: int) -> str:
    """The data set's name; of several sections with what tells them apart, or a number where nothing short does."""
    if len(parts) == 1:
        return dataset
    terms = [json.loads(one) for one in parts]
    alone = [(name,) for name in DISTINCT]
    together = tuple(name for name in DISTINCT if len({_in_words(one[name]) for one in terms}) > 1)
    for names in (*alone, together):
        told = [", ".join(_term(name, one[name]) for name in names) for one in terms]
        if len(set(told)) == len(parts):
            return f"{dataset}, {told[number]}"
    return f"{dataset} ({number + 1} of {len(parts)})"


def _term(name: str, value: str | dict[str, Any] | None) -> str:
    return _in_words(value) if name == "protocol" else f"{name} {_in_words(value)}"


def _in_words(term: str | dict[str, Any] | None) -> str:
    """A term of a result, not all of a long one: of a hash 12 digits."""
    text = term if isinstance(term, str) else " ".join(map(str, term.values())) if term else "none"
    return text[:12] if len(text) == 64 else text[:32]


def _rows(members: list[Result], failures: list[Failure]) -> tuple[dict[str, list[Result]], dict[str, list[Failure]]]:
    """Results and failures by the names of their rows, in the order of the tables."""
    results: dict[str, list[Result]] = {}
    for result in sorted(members, key=lambda one: (FAMILIES.index(one["family"]), *_place(one.method), one.seed)):
        results.setdefault(result.row, []).append(result)
    absent: dict[str, list[Failure]] = {}
    for failure in sorted(failures, key=lambda one: (_place(one.method), one.seed)):
        absent.setdefault(failure.row, []).append(failure)
    found: dict[str, Row] = {row: members[0] for row, members in absent.items()}
    found |= {row: members[0] for row, members in results.items()}
    names = dict(zip(found, labels(list(found.values())), strict=True))
    return (
        {names[row]: members for row, members in results.items()},
        {names[row]: members for row, members in absent.items()},
    )


def _place(method: str) -> tuple[int, str]:
    return (ORDER.index(method) if method in ORDER else len(ORDER), method)
