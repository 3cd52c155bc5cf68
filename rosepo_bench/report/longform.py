"""Every number of the report in one table in long format, one value per row, for plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from rosepo_bench.base.records import Record
from rosepo_bench.evaluation.metrics import METRICS
from rosepo_bench.report.comparison import Comparison
from rosepo_bench.report.quality import BASELINES, difference, overall

ENDS = ("value", "low", "high", "n")

HEADER = ("dataset", "kind", "method", "seed", "metric", "value", "low", "high", "n")
Value = tuple[str, dict[str, Any]]
"""A metric's name, and its ``value`` with ``low``, ``high`` and ``n`` if it has them."""


def long_form(comparisons: list[Comparison]) -> str:
    """CSV. ``seed`` is that of a record, or ``all`` for values over all seeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for comparison in comparisons:
        for method, records in comparison.methods.items():
            kind = records[0]["data"]["kind"]
            for record in records:
                for metric, value in _values(record):
                    writer.writerow([comparison.title, kind, method, record.seed, metric, *_numbers(value)])
            for metric, value in _overall(comparison, method):
                writer.writerow([comparison.title, kind, method, "all", metric, *_numbers(value)])
    return text.getvalue()


def _values(record: Record) -> Iterator[Value]:
    yield from record["metrics"].items()
    for name, value in record["throughput"].items():
        if name == "seconds":
            yield from ((f"seconds_{stage}", {"value": seconds}) for stage, seconds in value.items())
        elif isinstance(value, int | float):
            yield name, {"value": value}
    if found := record["preference"]:
        yield "pairs_seen", {"value": found["pairs_seen"]}
        yield "beta", {"value": found["beta"]}
        for name in ("epsilon", "validation_epsilon"):
            if found[name]:
                yield from ((f"{name}_{part}", {"value": found[name][part]}) for part in ("mean", "sd"))
        for when, cell in found["margin_accuracy"].items():
            if cell:
                yield f"margin_accuracy_{when}", cell
        yield "changed_top", {"value": found["changed_top"]["share"], "n": found["changed_top"]["n"]}
    if found := record["oracle"]:
        yield "oracle_accuracy", found["accuracy"]
        for name in ("epsilon_gap", "epsilon_gap_without_folds"):
            yield f"oracle_{name}", found[name]
            yield f"oracle_{name}_uniform", found["uniform"][name]
        yield "oracle_tau_uniform", {"value": found["uniform"]["tau"]}
        for kind, fit in found["temperatures"].items():
            yield f"oracle_tau_{kind}", {"value": fit["tau"]}
            yield (
                f"oracle_accuracy_{kind}",
                {name: fit["accuracy" if name == "value" else name] for name in ENDS},
            )


def _overall(comparison: Comparison, method: str) -> Iterator[Value]:
    for metric in METRICS:
        yield metric, overall(comparison, method, metric).as_dict()
        for baseline in BASELINES:
            if (found := difference(comparison, method, baseline, metric)) is not None:
                yield f"{metric}_minus_{baseline}", found.as_dict()


def _numbers(cell: dict[str, Any]) -> list[str]:
    found = [cell.get(name) for name in ENDS]
    return [f"{one:.8g}" if isinstance(one, float) else "" if one is None else str(one) for one in found]
