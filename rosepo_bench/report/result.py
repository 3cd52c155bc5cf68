"""A record as one protocol has evaluated it, and which of them may share a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.records import Record
from rosepo_bench.evaluation.metrics.base import Predictions, metrics


class ContradictionError(UserError):
    """A record says something else than its predictions."""


@dataclass(frozen=True)
class Result:
    """One record as one protocol has evaluated it."""

    record: Record
    protocol: str

    def __getitem__(self, key: str) -> Any:
        return self.record[key]

    @property
    def method(self) -> str:
        return self.record.method

    @property
    def row(self) -> str:
        return self.record.row

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.record.settings

    @property
    def seed(self) -> int:
        return self.record.seed

    @property
    def processor(self) -> str:
        """The model of the processor; empty where the record does not tell."""
        return str(self["environment"].get("processor") or "")

    @property
    def torch(self) -> str:
        """The version of torch; empty where the record does not tell."""
        packages = self["environment"].get("packages")
        return str(packages.get("torch") or "") if isinstance(packages, Mapping) else ""

    @property
    def facts(self) -> dict[str, Any]:
        return dict(self.record["evaluations"][self.protocol]["facts"])

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        return dict(self.record["evaluations"][self.protocol]["metrics"])

    @property
    def shown(self) -> dict[str, dict[str, Any]]:
        """The metrics that tables show: all but those with a cut-off that no list of candidates is longer than, which
        HR cannot miss."""
        size = self.facts.get("size")  # of a protocol that this program does not know, it may be anything
        longest = size if isinstance(size, int) else None
        return {name: told for name, told in self.metrics.items() if not _beyond(name, longest)}

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return self.record.predictions(self.protocol)

    @property
    def predictions(self) -> Predictions:
        return Predictions.of(self.arrays)

    @property
    def terms(self) -> str:
        """What must be equal for two results to be compared, as JSON."""
        data = self["data"]
        named = {"data": data["digest"], "split": data["split"], "candidates": data["candidates_sha256"]}
        noise = data.get("noise")  # but for what it replaced, which depends on the seed
        named["noise"] = noise and {name: noise[name] for name in ("rate", "law")}
        told = {"profile": self["profile"], "protocol": self.protocol, "facts": self.facts, **named}
        return json.dumps(told, sort_keys=True)

    def diagnostics(self, part: str) -> dict[str, Any] | None:
        """``preference`` or ``oracle``, if the record has it."""
        found: dict[str, Any] | None = self.record["diagnostics"][part]
        return found

    def values(self, name: str) -> np.ndarray | None:
        """A metric's value of each user, from the predictions. None: the record lacks the metric, this program does not
        know it, it is one of the whole corpus, or the predictions do not hold what it needs."""
        metric, predictions = metrics().get(name), self.predictions
        if name not in self.metrics or metric is None or metric.per != "user" or not metric.needs <= predictions.gives:
            return None
        return metric(predictions)

    def check(self) -> None:
        """ContradictionError: the record's metrics differ from those of its predictions."""
        for name, told in self.metrics.items():
            values = self.values(name)
            if values is not None and abs(told["value"] - float(np.mean(values))) > 1e-6:
                raise ContradictionError(
                    f"{self.record.path}: says {name} = {told['value']:.6f}, but its predictions give "
                    f"{np.mean(values):.6f}: the files are not of one run, or the metric has changed; delete the "
                    "folder and run again, or give --rescore"
                )


def _beyond(metric: str, size: int | None) -> bool:
    """Whether ``hr@20`` cuts off at or behind the end of a list of ``size``."""
    _, _, k = metric.rpartition("@")
    return size is not None and k.isdecimal() and int(k) >= size


def sound(records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """The records that agree with their predictions, and what is wrong with the others."""
    found, problems = [], []
    for record in records:
        try:
            for protocol in record.protocols:
                Result(record, protocol).check()
            found.append(record)
        except ContradictionError as error:
            problems.append(str(error))
    return found, problems


def newest(results: Iterable[Result]) -> tuple[list[Result], list[str]]:
    """Of results with the same row and seed the newest, and a sentence on each choice."""
    groups: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result.row, result.seed), []).append(result)
    chosen, notes = [], []
    for members in groups.values():
        last = max(members, key=lambda one: (one.record.created, one.record.key))
        chosen.append(last)
        if len(members) > 1:
            notes.append(
                f"Of {len(members)} records of {last.method}, seed {last.seed}, under the same settings, the newest "
                f"counts ({last.record.path.parent.name})."
            )
    return chosen, notes
